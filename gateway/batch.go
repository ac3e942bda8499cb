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
	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
	"golang.org/x/sync/errgroup"
)

const (
	// maxItems is how many pictures one request may bring.
	maxItems = 64
	// maxBatchBody is how many bytes such a request may have.
	maxBatchBody = 100 << 20
	// itemsAtOnce is how many pictures of one request are worked on at once: so
	// many that batches of the model are full.
	itemsAtOnce = 8
)

// batchBody asks for the masks of several pictures.
type batchBody struct {
	Items itemList `json:"items"`
	// Output holds where an item's own says nothing.
	Output   output     `json:"output"`
	Variant  *string    `json:"variant"`
	Deadline *whole     `json:"deadline_ms"`
	Priority *string    `json:"priority"`
	Webhook  *webhookTo `json:"webhook"`
}

type itemBody struct {
	ID      string       `json:"id"`
	Image   *pictureBody `json:"image"`
	Prompts promptList   `json:"prompts"`
	Output  output       `json:"output"`
}

// itemList has no more than maxItems items.
type itemList []itemBody

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *itemList) UnmarshalJSONFrom(d *jsontext.Decoder) (err error) {
	*l, err = readList[itemBody](d, maxItems)
	return err
}

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
func batchLimit(string) int64 { return maxBatchBody }

// parseBatch reads a batch. What is wrong with one item alone is left in it;
// everything else is an error.
func parseBatch(r io.Reader, maxImage int64) (*batchRequest, error) {
	var b batchBody
	if err := readJSON(r, &b); err != nil {
		return nil, bodyError(err)
	}
	var wrong refersam.Faults
	common, err := parseCommon(b.Variant, b.Deadline, b.Priority, b.Webhook)
	wrong.Add(err)
	wrong.Add(b.Output.check(func(member string) string { return "/output/" + member }))
	if len(b.Items) == 0 {
		wrong.Add(invalid("/items", "There must be at least one item."))
	}
	batch := &batchRequest{variant: common.variant, deadline: common.deadline, webhook: common.webhook, items: make([]batchItem, len(b.Items))}
	for i := range b.Items {
		from, to := &b.Items[i], &batch.items[i]
		out := from.Output.within(&b.Output)
		wrong.Add(checkID("/items/"+strconv.Itoa(i)+"/id", from.ID)) // an answer would have to repeat it
		to.id = from.ID
		to.req, to.err = newRequest("/items/"+strconv.Itoa(i), common, from.Image, from.Prompts, &out, maxImage)
	}
	return batch, wrong.Err()
}

// byReference reports whether no item brings its picture itself.
func (b *batchRequest) byReference() bool {
	for i := range b.items {
		if req := b.items[i].req; req != nil && req.source.data != nil {
			return false
		}
	}
	return true
}

// BatchAnswer is the answer to POST /v1/segment:batch, with one result an item,
// in their order.
type BatchAnswer struct {
	RequestID string        `json:"request_id"`
	Results   []BatchResult `json:"results"`
}

// BatchResult is an answer or a problem.
type BatchResult struct {
	ID      string   `json:"id,omitempty"`
	Answer  *Answer  `json:"answer,omitempty"`
	Problem *problem `json:"problem,omitempty"`
}

// segmentBatch answers POST /v1/segment:batch.
func (g *Gateway) segmentBatch(c *gin.Context) error {
	begun := time.Now()
	if negotiate(c.Request.Header.Values("Accept"), mediaJSON) == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s.", mediaJSON)
	}
	if err := onlyJSON(c.Request); err != nil {
		return err
	}
	held, release, err := g.reserveBody(c, batchLimit)
	if err != nil {
		return err
	}
	defer release()
	batch, err := parseBatch(http.MaxBytesReader(c.Writer, c.Request.Body, maxBatchBody), g.maxImage)
	if err != nil {
		return err
	}
	if async := prefersAsync(c.Request.Header); async || batch.webhook != "" {
		if err := g.checkWebhook(async, batch.webhook, "/webhook/url"); err != nil {
			return err
		}
		return g.submit(c, kindBatch, mediaJSON, begun, batch.items)
	}
	if _, err := g.segmenter.Choose(&refersam.Request{Variant: batch.variant}); err != nil {
		return err
	}
	if batch.byReference() {
		g.dropBody(c, held)
	}
	ctx, cancel := context.WithDeadline(c.Request.Context(), g.deadline(begun, batch.deadline))
	defer cancel()
	masks := room{memory: g.answers}
	defer masks.release()
	who := g.asker(c)
	answer := BatchAnswer{RequestID: who.requestID, Results: make([]BatchResult, len(batch.items))}
	var group errgroup.Group
	group.SetLimit(itemsAtOnce)
	for i := range batch.items {
		group.Go(func() error {
			answer.Results[i] = g.item(ctx, who, &batch.items[i], held.n == 0, &masks)
			return nil
		})
	}
	_ = group.Wait() // errors are in the results
	if err := c.Request.Context().Err(); err != nil {
		return err
	}
	if slices.ContainsFunc(answer.Results, func(r BatchResult) bool { return r.Answer != nil }) {
		g.access.CountRequest(who.consumer)
	}
	c.Writer.Header().Add("Vary", "Accept-Encoding")
	c.Header("Cache-Control", "no-store")
	return writeCompressed(c.Writer, answer, acceptedEncoding(c.Request.Header.Values("Accept-Encoding")))
}

// item answers an item. It may wait for memory for its picture only if its
// batch holds none.
func (g *Gateway) item(ctx context.Context, who asker, item *batchItem, mayWait bool, masks *room) BatchResult {
	answer, err := g.answerItem(ctx, who, item, mayWait, masks)
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) { // else the client has gone
			g.logItem(who, err)
		}
		p, _ := newProblem(err, who.requestID)
		return BatchResult{ID: item.id, Problem: &p}
	}
	return BatchResult{ID: item.id, Answer: answer}
}

func (g *Gateway) answerItem(ctx context.Context, who asker, item *batchItem, mayWait bool, masks *room) (*Answer, error) {
	if item.err != nil {
		return nil, item.err
	}
	begun := time.Now()
	held, release := g.newHold(who.sharer)
	defer release()
	held.impatient = !mayWait
	pic, err := g.picture(ctx, who, &item.req.source, held)
	if err != nil {
		return nil, err
	}
	fetched := time.Since(begun)
	found, err := g.find(ctx, who, item.req, question(who, item.req, pic), masks)
	if err != nil {
		return nil, err
	}
	found.answer.Timings = newTimings(0, fetched, time.Since(begun), found.resp.Timings)
	return found.answer, nil
}

// logItem logs what went wrong with an item if that is the service's fault: the
// status of the whole request does not tell.
func (g *Gateway) logItem(who asker, err error) {
	if p, _ := newProblem(err, ""); p.Status >= http.StatusInternalServerError {
		g.log.Warn("an item of a batch failed", "request_id", who.requestID, "code", p.Code, "error", err)
	}
}

// onlyJSON refuses bodies that are not JSON, and queries.
func onlyJSON(r *http.Request) error {
	if err := identityEncoded(r); err != nil {
		return err
	}
	if mediaType(r) != mediaJSON {
		return refersam.Errorf(refersam.CodeUnsupportedMedia, "Send %s.", mediaJSON)
	}
	if r.URL.RawQuery != "" {
		return refersam.Errorf(refersam.CodeInvalidRequest, "There is no query here; put its parameters into the JSON.")
	}
	return nil
}
