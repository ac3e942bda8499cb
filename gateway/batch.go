package gateway

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/gateway/reply"
	"golang.org/x/sync/errgroup"
)

const (
	// itemsAtOnce is how many pictures of one request are processed at the same
	// time: enough to fill the model's batches.
	itemsAtOnce = 8
)

// segmentBatch answers POST /v1/segment:batch.
func (h *segmentRoutes) segmentBatch(c *gin.Context) error {
	begun := time.Now()
	if reply.Negotiate(c.Request.Header.Values("Accept"), api.MediaJSON) == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s.", api.MediaJSON)
	}
	if err := intake.OnlyJSON(c.Request); err != nil {
		return err
	}
	reading := beginSpan(c, "read")
	defer reading.End()
	lease, release, err := h.bodies.reserve(c, batchLimit)
	if err != nil {
		return err
	}
	defer release()
	batch, err := intake.ParseBatch(http.MaxBytesReader(c.Writer, c.Request.Body, api.MaxBatchBytes), h.bodies.maxImage)
	if err != nil {
		return err
	}
	reading.End()
	if async := prefersAsync(c.Request.Header); async || batch.Webhook != "" {
		if err := h.checkWebhook(async, batch.Webhook, answer.Naming{}); err != nil {
			return err
		}
		items, err := batch.Work()
		if err != nil {
			return err
		}
		return h.submit(c, api.JobKindBatch, api.MediaJSON, begun, batch.Webhook, items)
	}
	who := caller(c)
	if err := h.answers.CheckVariant(who, batch.Variant); err != nil {
		return err
	}
	if batch.ByReference() {
		dropBody(c, lease)
	}
	ctx, cancel := context.WithDeadline(c.Request.Context(), h.deadline(begun, batch.Deadline))
	defer cancel()
	budget := h.answers.Budget()
	defer budget.Release()
	answers := api.BatchAnswer{RequestID: who.RequestID, Results: make([]api.BatchResult, len(batch.Items))}
	var group errgroup.Group
	group.SetLimit(itemsAtOnce)
	for i := range batch.Items {
		group.Go(func() error {
			answers.Results[i] = h.item(ctx, who, &batch.Items[i], lease.Empty(), budget)
			return nil
		})
	}
	_ = group.Wait() // errors are in the results
	if err := c.Request.Context().Err(); err != nil {
		return err
	}
	if slices.ContainsFunc(answers.Results, func(r api.BatchResult) bool { return r.Answer != nil }) {
		h.meter.CountRequest(who.Account)
	}
	c.Writer.Header().Add("Vary", "Accept-Encoding")
	c.Header("Cache-Control", "no-store")
	defer beginSpan(c, "write").End()
	return reply.WriteCompressed(c.Writer, answers, reply.AcceptedEncoding(c.Request.Header.Values("Accept-Encoding")))
}

// item answers an item. Only an item of a batch that holds no memory may wait
// for the memory of its picture.
func (h *segmentRoutes) item(ctx context.Context, who answer.Caller, item *intake.BatchItem, mayWait bool, budget *answer.Budget) api.BatchResult {
	answered, err := h.answerItem(ctx, who, item, mayWait, budget)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // otherwise the client has disconnected
			h.logItem(who, err)
		}
		p, _ := api.NewProblem(err, who.RequestID)
		return api.BatchResult{ID: item.ID, Problem: &p}
	}
	return api.BatchResult{ID: item.ID, Answer: answered.Answer}
}

func (h *segmentRoutes) answerItem(ctx context.Context, who answer.Caller, item *intake.BatchItem, mayWait bool, budget *answer.Budget) (*answer.Answered, error) {
	if item.Err != nil {
		return nil, item.Err
	}
	lease := h.answers.Lease(who.FairnessKey)
	defer lease.Close()
	if !mayWait {
		lease.NoWait()
	}
	prepared, err := h.answers.Prepare(ctx, who, item.Request.Question(), lease)
	if err != nil {
		return nil, err
	}
	return prepared.Answer(ctx, budget, 0)
}

// logItem logs an error of an item if it is the service's fault, because the status
// of the whole request does not show it.
func (h *segmentRoutes) logItem(who answer.Caller, err error) {
	if p, _ := api.NewProblem(err, ""); p.Status >= http.StatusInternalServerError {
		h.log.Warn("an item of a batch failed", "request_id", who.RequestID, "code", p.Code, "error", err)
	}
}
