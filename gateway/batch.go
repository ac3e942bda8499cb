package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"golang.org/x/sync/errgroup"
)

const (
	// itemsAtOnce is how many pictures of one request are worked on at once: so
	// many that batches of the model are full.
	itemsAtOnce = 8
)

// batchRequest is a request for the masks of several pictures.
type batchRequest struct {
	variant  string
	deadline time.Duration
	webhook  string
	items    []batchItem
}

// batchItem is one picture of a batch: a request, or what is wrong with it.
type batchItem struct {
	id  string
	req *segmentRequest
	err error
}

// batchLimit is the bodyLimit of batches.
func batchLimit(string) int64 { return api.MaxBatchBytes }

// parseBatch reads a batch. What is wrong with one item alone is left in it;
// everything else is an error.
func parseBatch(r io.Reader, maxImage int64) (*batchRequest, error) {
	var b api.BatchRequest
	if err := readJSON(r, &b); err != nil {
		return nil, bodyError(err)
	}
	var wrong refersam.Faults
	common, err := parseCommon(b.Variant, b.Deadline, b.Priority, b.Webhook)
	wrong.Add(err)
	wrong.Add(checkOutput(&b.Output, func(member string) string { return "/output/" + member }))
	if len(b.Items) == 0 {
		wrong.Add(invalid("/items", "There must be at least one item."))
	}
	batch := &batchRequest{variant: common.variant, deadline: common.deadline, webhook: common.webhook, items: make([]batchItem, len(b.Items))}
	for i := range b.Items {
		from, to := &b.Items[i], &batch.items[i]
		out := inherit(from.Output, &b.Output)
		wrong.Add(checkID("/items/"+strconv.Itoa(i)+"/id", from.ID)) // an answer would have to repeat it
		to.id = from.ID
		to.req, to.err = newRequest("/items/"+strconv.Itoa(i), common, from.Image, from.Prompts, &out, maxImage)
	}
	return batch, wrong.Err()
}

// all returns the items of a job, or what is wrong with any of them.
func (b *batchRequest) all() ([]answer.Item, error) {
	var wrong refersam.Faults
	items := make([]answer.Item, len(b.items))
	for i := range b.items {
		item := &b.items[i]
		if item.err != nil {
			wrong.Add(item.err)
			continue
		}
		items[i] = answer.Item{ID: item.id, Question: item.req.question(), Deadline: item.req.deadline}
	}
	return items, wrong.Err()
}

// byReference reports whether no item brings its picture itself.
func (b *batchRequest) byReference() bool {
	for i := range b.items {
		if req := b.items[i].req; req != nil && req.source.Data != nil {
			return false
		}
	}
	return true
}

// segmentBatch answers POST /v1/segment:batch.
func (g *Gateway) segmentBatch(c *gin.Context) error {
	begun := time.Now()
	if negotiate(c.Request.Header.Values("Accept"), api.MediaJSON) == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s.", api.MediaJSON)
	}
	if err := onlyJSON(c.Request); err != nil {
		return err
	}
	lease, release, err := g.reserveBody(c, batchLimit)
	if err != nil {
		return err
	}
	defer release()
	batch, err := parseBatch(http.MaxBytesReader(c.Writer, c.Request.Body, api.MaxBatchBytes), g.maxImage)
	if err != nil {
		return err
	}
	if async := prefersAsync(c.Request.Header); async || batch.webhook != "" {
		if err := g.checkWebhook(async, batch.webhook, "/webhook/url"); err != nil {
			return err
		}
		items, err := batch.all()
		if err != nil {
			return err
		}
		return g.submit(c, api.JobKindBatch, api.MediaJSON, begun, batch.webhook, items)
	}
	if _, err := g.segmenter.Choose(&refersam.Request{Variant: batch.variant}); err != nil {
		return err
	}
	if batch.byReference() {
		dropBody(c, lease)
	}
	ctx, cancel := context.WithDeadline(c.Request.Context(), g.deadline(begun, batch.deadline))
	defer cancel()
	budget := g.answers.Budget()
	defer budget.Release()
	who := g.caller(c)
	answers := api.BatchAnswer{RequestID: who.RequestID, Results: make([]api.BatchResult, len(batch.items))}
	var group errgroup.Group
	group.SetLimit(itemsAtOnce)
	for i := range batch.items {
		group.Go(func() error {
			answers.Results[i] = g.item(ctx, who, &batch.items[i], lease.Empty(), budget)
			return nil
		})
	}
	_ = group.Wait() // errors are in the results
	if err := c.Request.Context().Err(); err != nil {
		return err
	}
	if slices.ContainsFunc(answers.Results, func(r api.BatchResult) bool { return r.Answer != nil }) {
		g.access.CountRequest(who.Account)
	}
	c.Writer.Header().Add("Vary", "Accept-Encoding")
	c.Header("Cache-Control", "no-store")
	return writeCompressed(c.Writer, answers, acceptedEncoding(c.Request.Header.Values("Accept-Encoding")))
}

// item answers an item. Only an item of a batch that holds no memory may wait
// for the memory of its picture.
func (g *Gateway) item(ctx context.Context, who answer.Caller, item *batchItem, mayWait bool, budget *answer.Budget) api.BatchResult {
	answered, err := g.answerItem(ctx, who, item, mayWait, budget)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // else the client has gone
			g.logItem(who, err)
		}
		p, _ := api.NewProblem(err, who.RequestID)
		return api.BatchResult{ID: item.id, Problem: &p}
	}
	return api.BatchResult{ID: item.id, Answer: answered.Answer}
}

func (g *Gateway) answerItem(ctx context.Context, who answer.Caller, item *batchItem, mayWait bool, budget *answer.Budget) (*answer.Answered, error) {
	if item.err != nil {
		return nil, item.err
	}
	lease := g.answers.Lease(who.FairnessKey)
	defer lease.Close()
	if !mayWait {
		lease.NoWait()
	}
	prepared, err := g.answers.Prepare(ctx, who, item.req.question(), lease)
	if err != nil {
		return nil, err
	}
	return prepared.Answer(ctx, budget, 0)
}

// logItem logs what went wrong with an item if that is the service's fault: the
// status of the whole request does not tell.
func (g *Gateway) logItem(who answer.Caller, err error) {
	if p, _ := api.NewProblem(err, ""); p.Status >= http.StatusInternalServerError {
		g.log.Warn("an item of a batch failed", "request_id", who.RequestID, "code", p.Code, "error", err)
	}
}

// onlyJSON refuses bodies that are not JSON, and queries.
func onlyJSON(r *http.Request) error {
	if err := identityEncoded(r); err != nil {
		return err
	}
	if mediaType(r) != api.MediaJSON {
		return refersam.Errorf(refersam.CodeUnsupportedMedia, "Send %s.", api.MediaJSON)
	}
	if r.URL.RawQuery != "" {
		return refersam.Errorf(refersam.CodeInvalidRequest, "There is no query here; put its parameters into the JSON.")
	}
	return nil
}
