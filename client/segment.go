package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// Picture is a picture's bytes or where to find them: exactly one of its fields
// must be set.
type Picture struct {
	// Data is an encoded picture (JPEG, PNG, WebP, GIF, BMP or TIFF). It has at
	// most 20 MB, unless the service is configured otherwise.
	Data []byte
	// ID is the ID of an Image that the service stores.
	ID string
	// URL is the https address of the picture. The service fetches it. If the
	// service may not fetch from this host, the error is CodeFetchRefused.
	URL string
}

// Item is a picture and the phrases to find in it.
type Item struct {
	// ID is returned with the answer. It may be empty, need not be unique, and has
	// at most 128 characters.
	ID      string
	Picture Picture
	// Phrases holds at least one phrase, and at most 32 unless the service is
	// configured otherwise. Results are in the same order.
	Phrases []refersam.Phrase
	// Size is the size of the masks; SizeOriginal if it is empty.
	Size refersam.Size
	// Quality asks for Components and Stability of each result.
	Quality bool
}

// RequestOptions apply to all items of a request.
type RequestOptions struct {
	// Variant selects a variant by name; Models lists the names. If it is empty,
	// the service chooses by Unit.
	Variant string
	// Unit is the user, session or other entity that always gets the same variant.
	// It has at most 128 characters; if it is empty, the client's address is used.
	Unit string
	// Priority is PriorityInteractive or PriorityBatch. If it is empty, jobs are
	// batch and other requests interactive.
	Priority refersam.Priority
}

// BatchResult is the outcome of an item of a batch: an answer or an error.
type BatchResult struct {
	// ID is the ID of the item.
	ID string
	// Answer is nil if there is an error.
	Answer *Answer
	// Err is nil or a *refersam.Error. Its At names the place in the whole
	// batch, such as /items/1/image/data.
	Err error
}

// Segment implements refersam.Segmenter. The request's ID is sent as with
// WithRequestID. PriorityShadow is not available over HTTP and returns
// CodeInvalidRequest. The response is an Answer's Response.
func (c *Client) Segment(ctx context.Context, req *refersam.Request) (*refersam.Response, error) {
	if req.ID != "" {
		ctx = WithRequestID(ctx, req.ID)
	}
	a, err := c.SegmentItem(ctx,
		Item{Picture: Picture{Data: req.Image}, Phrases: req.Phrases, Size: req.Size, Quality: req.Quality},
		RequestOptions{Variant: req.Variant, Unit: req.Unit, Priority: req.Priority})
	if err != nil {
		return nil, err
	}
	return &a.Response, nil
}

// SegmentItem is Segment for a picture given by bytes, ID or URL. It also returns
// the id of the request.
func (c *Client) SegmentItem(ctx context.Context, item Item, o RequestOptions) (*Answer, error) {
	body := newItem(item) // its ID matters only if a request has several items
	r := segmentCall("v1/segment", o, func() ([]byte, error) {
		return encode(api.SegmentRequest{Image: body.Image, Prompts: body.Prompts, Output: body.Output, Common: newCommon(o, left(ctx))})
	})
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	b, err := parse[answerBody](a)
	if err != nil {
		return nil, err
	}
	return b.answer(a, len(item.Phrases))
}

// SegmentBatch sends up to 64 pictures, at most 100 MiB in base64, in one request.
// It returns one result per item, in the same order. The error is about the whole
// request. An error of a single item is in the item's result, and the Client does
// not retry the item.
func (c *Client) SegmentBatch(ctx context.Context, items []Item, o RequestOptions) ([]BatchResult, error) {
	bodies := newItems(items)
	r := segmentCall("v1/segment:batch", o, func() ([]byte, error) {
		return encode(api.BatchRequest{Items: bodies, Common: newCommon(o, left(ctx))})
	})
	type resultBody struct {
		ID      string
		Answer  *answerBody
		Problem *api.Problem
	}
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	b, err := parse[struct{ Results []resultBody }](a)
	if err != nil {
		return nil, err
	}
	if len(b.Results) != len(items) {
		return nil, a.unreadable(fmt.Errorf("the answer has %d results for %d items", len(b.Results), len(items)))
	}
	results := make([]BatchResult, len(items))
	for i, from := range b.Results {
		to := &results[i]
		to.ID = from.ID
		switch {
		case from.Problem != nil:
			to.Err = problem(from.Problem)
		case from.Answer != nil:
			to.Answer, to.Err = from.Answer.answer(a, len(items[i].Phrases))
		default:
			to.Err = a.unreadable(errors.New("a result has neither an answer nor a problem"))
		}
	}
	return results, nil
}

// optional returns nil for the zero value, which the service does not take for an
// absent member.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func newPicture(p Picture) *api.Picture {
	return &api.Picture{Data: p.Data, ID: optional(p.ID), URL: optional(p.URL)}
}

func newItem(item Item) api.BatchItem {
	b := api.BatchItem{
		ID: item.ID, Image: newPicture(item.Picture),
		Output: api.Output{Size: optional(string(item.Size)), Quality: optional(item.Quality)},
	}
	for _, p := range item.Phrases {
		prompt := api.Prompt{ID: p.ID, Text: p.Text, Options: api.Options{
			Threshold: optional(p.Threshold), FillHoles: optional(api.Int(p.FillHoles)), MinArea: optional(api.Int(p.MinArea)),
		}}
		if p.Largest {
			prompt.Keep = optional("largest")
		}
		b.Prompts = append(b.Prompts, prompt)
	}
	return b
}

func newItems(items []Item) []api.BatchItem {
	bodies := make([]api.BatchItem, len(items))
	for i := range items {
		bodies[i] = newItem(items[i])
	}
	return bodies
}

// newCommon includes the time limit of a request; 0 leaves it to the service.
func newCommon(o RequestOptions, deadline time.Duration) api.Common {
	b := api.Common{Variant: optional(o.Variant), Priority: optional(string(o.Priority))}
	if deadline != 0 {
		b.Deadline = optional(api.Int(min(max(1, deadline.Milliseconds()), (24 * time.Hour).Milliseconds())))
	}
	return b
}

// left is how long ctx has left, 0 without a deadline.
func left(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline), 1)
}

// segmentCall is a request for masks. Unless it creates a job, its body says at
// each try how much time is left.
func segmentCall(path string, o RequestOptions, body func() ([]byte, error)) call {
	r := call{method: http.MethodPost, path: path, header: http.Header{"Accept": {mediaJSON}}, mediaType: mediaJSON, body: body}
	if o.Unit != "" {
		r.header.Set("X-Unit-Id", o.Unit)
	}
	return r
}
