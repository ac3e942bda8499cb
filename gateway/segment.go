package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/gateway/reply"
	"github.com/refersam/refersam/jobs"
)

// segmentRoutes are the routes for masks.
type segmentRoutes struct {
	answers *answer.Service
	bodies  *bodies
	jobs    Jobs
	meter   *access.Meter
	// timeout bounds the answer, counted from when the request has been read.
	timeout time.Duration
	log     *slog.Logger
}

// segment answers POST /v1/segment with JSON, with the mask of its one phrase as a
// PNG, or with JSON and files, as the client prefers.
func (h *segmentRoutes) segment(c *gin.Context) error {
	begun := time.Now()
	form := reply.Negotiate(c.Request.Header.Values("Accept"), api.MediaJSON, api.MediaPNG, api.MediaZip, api.MediaMixed)
	if form == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s, %s, %s or %s.", api.MediaJSON, api.MediaPNG, api.MediaZip, api.MediaMixed)
	}
	reading := beginSpan(c, "read")
	defer reading.End()
	lease, release, err := h.bodies.reserve(c, h.bodies.pictureLimit)
	if err != nil {
		return err
	}
	defer release()
	req, err := intake.ParseSegment(c.Writer, c.Request, h.bodies.maxImage)
	if err != nil {
		return err
	}
	reading.End()
	question := req.Question()
	if form == api.MediaPNG {
		if err := question.OnlyPNG(); err != nil {
			return err
		}
	}
	if async := prefersAsync(c.Request.Header); async || req.Webhook != "" {
		if err := h.checkWebhook(async, req.Webhook, req.Naming); err != nil {
			return err
		}
		return h.submit(c, api.JobKindSegment, form, begun, req.Webhook, []answer.Item{{Question: question, Deadline: req.Deadline}})
	}
	read := time.Since(begun)

	ctx, cancel := context.WithDeadline(c.Request.Context(), h.deadline(begun, req.Deadline))
	defer cancel()
	if question.Source.Data == nil {
		dropBody(c, lease)
	}
	who := caller(c)
	prepared, err := h.answers.Prepare(ctx, who, question, lease)
	if err != nil {
		return err
	}
	c.Writer.Header().Add("Vary", "Accept, Accept-Encoding")
	if unchanged(c, form, prepared) {
		return nil
	}
	budget := h.answers.Budget()
	defer budget.Release()
	answered, err := prepared.Answer(ctx, budget, read)
	if err != nil {
		return err
	}
	h.meter.CountRequest(who.Account)
	c.Set(keyVariant, answered.Response.Variant)
	c.Header("Cache-Control", "private, no-cache")
	c.Header("ETag", etag(form, prepared, answered.Response.Model, answered.Response.Version, answered.Response.Checkpoint))
	c.Header("Server-Timing", answered.Answer.Timings.Header())
	writing := beginSpan(c, "write")
	defer writing.End()
	if form == api.MediaJSON {
		return reply.WriteCompressed(c.Writer, answered.Answer, reply.AcceptedEncoding(c.Request.Header.Values("Accept-Encoding")))
	}
	rendered, err := answered.Render(form)
	if err != nil {
		return err
	}
	for name, value := range rendered.Header {
		c.Header(name, value)
	}
	c.Status(http.StatusOK)
	_ = rendered.Body(c.Writer) // fails only when the client has disconnected
	return nil
}

// deadline returns when a request that began at the given time must be answered:
// after the time that its client allows, and after RequestTimeout at the latest.
func (h *segmentRoutes) deadline(begun time.Time, allowed time.Duration) time.Time {
	latest := time.Now().Add(h.timeout)
	if own := begun.Add(allowed); own.After(begun) && own.Before(latest) {
		return own
	}
	return latest
}

// submit answers with a new job for the items. form is the media type of their
// answers.
func (h *segmentRoutes) submit(c *gin.Context, kind, form string, begun time.Time, webhook string, items []answer.Item) error {
	ctx, cancel := context.WithTimeout(c.Request.Context(), h.timeout)
	defer cancel()
	who := caller(c)
	works, drop, err := h.answers.Submission(ctx, who, form, begun, items)
	if err != nil {
		return err
	}
	j, err := h.jobs.Submit(ctx, jobs.Submission{
		ID: idempotentID(c, "job_"), APIKey: who.Account, RequestID: who.RequestID, Kind: kind, WebhookURL: webhook, Items: works,
	}, time.Now())
	if err != nil {
		drop()
		return jobsError(err)
	}
	h.meter.CountRequest(who.Account)
	c.Header("Location", "/v1/jobs/"+j.ID)
	c.Header(api.HeaderApplied, api.PreferAsync)
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, http.StatusAccepted, answer.NewJob(j))
}

// checkWebhook checks the address that receives the end of a job. Only a request
// for a job may have one.
func (h *segmentRoutes) checkWebhook(async bool, url string, naming answer.Naming) error {
	if !async {
		return refersam.Invalidf(naming.Name(refersam.AtWebhook), "Webhooks report the end of a job; send Prefer: %s to create one.", api.PreferAsync)
	}
	if url == "" {
		return nil
	}
	return h.answers.CheckWebhook(url, naming)
}
