package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/gateway/reply"
)

// segment answers POST /v1/segment with JSON, with the mask of its one phrase
// as a PNG, or with JSON and files, as the client prefers.
func (g *Gateway) segment(c *gin.Context) error {
	begun := time.Now()
	form := reply.Negotiate(c.Request.Header.Values("Accept"), api.MediaJSON, api.MediaPNG, api.MediaZip, api.MediaMixed)
	if form == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s, %s, %s or %s.", api.MediaJSON, api.MediaPNG, api.MediaZip, api.MediaMixed)
	}
	lease, release, err := g.reserveBody(c, g.pictureLimit)
	if err != nil {
		return err
	}
	defer release()
	req, err := intake.ParseSegment(c.Writer, c.Request, g.maxImage)
	if err != nil {
		return err
	}
	question := req.Question()
	if form == api.MediaPNG {
		if err := question.OnlyPNG(); err != nil {
			return err
		}
	}
	if async := prefersAsync(c.Request.Header); async || req.Webhook != "" {
		field := "webhook"
		if !req.Naming.Form {
			field = "/webhook/url"
		}
		if err := g.checkWebhook(async, req.Webhook, field); err != nil {
			return err
		}
		return g.submit(c, api.JobKindSegment, form, begun, req.Webhook, []answer.Item{{Question: question, Deadline: req.Deadline}})
	}
	read := time.Since(begun)

	ctx, cancel := context.WithDeadline(c.Request.Context(), g.deadline(begun, req.Deadline))
	defer cancel()
	if question.Source.Data == nil {
		dropBody(c, lease)
	}
	who := g.caller(c)
	prepared, err := g.answers.Prepare(ctx, who, question, lease)
	if err != nil {
		return err
	}
	c.Writer.Header().Add("Vary", "Accept, Accept-Encoding")
	if unchanged(c, form, prepared) {
		return nil
	}
	budget := g.answers.Budget()
	defer budget.Release()
	answered, err := prepared.Answer(ctx, budget, read)
	if err != nil {
		return err
	}
	g.access.CountRequest(who.Account)
	c.Set(keyVariant, answered.Response.Variant)
	c.Header("Cache-Control", "private, no-cache")
	c.Header("ETag", etag(form, prepared, answered.Response.Model, answered.Response.Version, answered.Response.Checkpoint))
	c.Header("Server-Timing", answered.Answer.Timings.Header())
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
	_ = rendered.Body(c.Writer) // fails only when the client has gone
	return nil
}

// deadline returns when a request that began at a time must be answered: after
// the time that its client allows, and after RequestTimeout at the latest.
func (g *Gateway) deadline(begun time.Time, allowed time.Duration) time.Time {
	latest := time.Now().Add(g.cfg.Answers.RequestTimeout)
	if own := begun.Add(allowed); own.After(begun) && own.Before(latest) {
		return own
	}
	return latest
}

// checkUnit is middleware that refuses a unit that is no name.
func checkUnit(c *gin.Context) {
	if err := intake.CheckID(api.HeaderUnitID, c.GetHeader(api.HeaderUnitID)); err != nil {
		fail(c, err)
	}
}

// caller identifies the client of a request.
func (g *Gateway) caller(c *gin.Context) answer.Caller {
	unit := c.GetHeader(api.HeaderUnitID)
	if unit == "" {
		unit = c.ClientIP()
	}
	return answer.Caller{RequestID: requestID(c), Account: account(c), FairnessKey: fairnessKey(c), Unit: unit}
}

// fairnessKey is the client among which scarce capacity is shared evenly: the
// API key or, without authentication, the address.
func fairnessKey(c *gin.Context) string {
	if key := apiKey(c); key != nil {
		return key.ID
	}
	return c.ClientIP()
}
