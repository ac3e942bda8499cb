package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/refersam/refersam"
)

// Picture says where a picture is: exactly one of its fields is there.
type Picture struct {
	// Data is an encoded picture (JPEG, PNG, WebP, GIF, BMP or TIFF), at most
	// 20 MB unless the service is set otherwise.
	Data []byte `json:"data,omitempty"`
	// ID is that of an Image that the service keeps.
	ID string `json:"id,omitempty"`
	// URL is an https address from which the service fetches the picture, if it
	// is set to go to its host; else the error is CodeFetchRefused.
	URL string `json:"url,omitempty"`
}

// Item is a picture and what is to be found in it.
type Item struct {
	// ID comes back with what is answered. It may be empty, need not be unique,
	// and has at most 128 characters.
	ID      string
	Picture Picture
	// Phrases holds at least one phrase, and at most 32 unless the service is set
	// otherwise; results keep their order.
	Phrases []refersam.Phrase
	// Size is that of the masks; SizeOriginal if it is empty.
	Size refersam.Size
	// Quality asks for Components and Stability of each result.
	Quality bool
}

// RequestOptions are those of a request, for all of its items.
type RequestOptions struct {
	// Variant forces a variant by name, as Models lists them. When empty, Unit
	// decides.
	Variant string
	// Unit is whom a variant sticks to, at most 128 characters; the address of the
	// client if it is empty.
	Unit string
	// Priority is PriorityInteractive or PriorityBatch. When empty, it is the
	// former, and for jobs the latter.
	Priority refersam.Priority
}

// BatchResult is what came of an item of a batch: an answer or an error.
type BatchResult struct {
	// ID is that of the item.
	ID string
	// Answer is nil if there is an error.
	Answer *Answer
	// Err is nil or a *refersam.Error, whose Field names the place in the whole
	// batch, as /items/1/image/data.
	Err error
}

// Segment implements refersam.Segmenter. Of a request, ID is sent as
// WithRequestID says; Digest and Key are not. Picture, which is not to be had
// over HTTP, and PriorityShadow, which is not for clients, are
// CodeInvalidRequest. The response is that of an Answer. An error of Encode is
// returned as it is.
func (c *Client) Segment(ctx context.Context, req *refersam.Request) (*refersam.Response, error) {
	if req.Picture {
		return nil, refersam.Errorf(refersam.CodeInvalidRequest, "Decoded pictures are not to be had over HTTP.")
	}
	if req.ID != "" {
		ctx = WithRequestID(ctx, req.ID)
	}
	a, err := c.SegmentItem(ctx,
		Item{Picture: Picture{Data: req.Image}, Phrases: req.Phrases, Size: req.Size, Quality: req.Quality},
		RequestOptions{Variant: req.Variant, Unit: req.Unit, Priority: req.Priority})
	if err != nil {
		return nil, err
	}
	if req.Encode == nil {
		return &a.Response, nil
	}
	for i := range a.Results {
		if err := req.Encode(i, &a.Results[i]); err != nil {
			return nil, err
		}
		a.Results[i].Mask = nil
	}
	return &a.Response, nil
}

// SegmentItem is Segment for a picture wherever it is, and tells the id of the
// request.
func (c *Client) SegmentItem(ctx context.Context, item Item, o RequestOptions) (*Answer, error) {
	body := newItemBody(item)
	body.ID = "" // which is for who sends several
	r := segmentCall("v1/segment", o, func() ([]byte, error) {
		return encode(segmentBody{itemBody: body, commonBody: newCommonBody(o, left(ctx))})
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

// SegmentBatch asks about up to 64 pictures, of 100 MiB in base64 at most, in
// one request. There is one result an item, in their order. The error is about
// the whole request; what is wrong with an item alone is in its result, and not
// tried again.
func (c *Client) SegmentBatch(ctx context.Context, items []Item, o RequestOptions) ([]BatchResult, error) {
	bodies := newItemBodies(items)
	r := segmentCall("v1/segment:batch", o, func() ([]byte, error) {
		return encode(batchBody{Items: bodies, commonBody: newCommonBody(o, left(ctx))})
	})
	type resultBody struct {
		ID      string
		Answer  *answerBody
		Problem *problem
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
		return nil, a.unreadable(fmt.Errorf("it has %d results for %d items", len(b.Results), len(items)))
	}
	results := make([]BatchResult, len(items))
	for i, from := range b.Results {
		to := &results[i]
		to.ID = from.ID
		switch {
		case from.Problem != nil:
			to.Err = from.Problem.err()
		case from.Answer != nil:
			to.Answer, to.Err = from.Answer.answer(a, len(items[i].Phrases))
		default:
			to.Err = a.unreadable(errors.New("an item has neither an answer nor a problem"))
		}
	}
	return results, nil
}

// segmentBody, batchBody and what they consist of are what the service reads.
type segmentBody struct {
	itemBody
	commonBody
}

type batchBody struct {
	Items []itemBody `json:"items"`
	commonBody
}

type itemBody struct {
	ID      string       `json:"id,omitempty"`
	Image   Picture      `json:"image"`
	Prompts []promptBody `json:"prompts"`
	Output  outputBody   `json:"output"`
}

type promptBody struct {
	ID        string  `json:"id,omitempty"`
	Text      string  `json:"text"`
	Threshold float64 `json:"threshold,omitzero"`
	FillHoles int     `json:"fill_holes,omitzero"`
	MinArea   int     `json:"min_area,omitzero"`
	Keep      string  `json:"keep,omitempty"`
}

type outputBody struct {
	Size    refersam.Size `json:"size,omitempty"`
	Quality bool          `json:"quality,omitzero"`
}

type commonBody struct {
	Variant    string            `json:"variant,omitempty"`
	Priority   refersam.Priority `json:"priority,omitempty"`
	DeadlineMS int64             `json:"deadline_ms,omitzero"`
	Webhook    *webhookBody      `json:"webhook,omitempty"`
}

type webhookBody struct {
	URL string `json:"url"`
}

func newItemBody(item Item) itemBody {
	b := itemBody{ID: item.ID, Image: item.Picture, Output: outputBody{item.Size, item.Quality}}
	for _, p := range item.Phrases {
		prompt := promptBody{ID: p.ID, Text: p.Text, Threshold: p.Threshold, FillHoles: p.FillHoles, MinArea: p.MinArea}
		if p.Largest {
			prompt.Keep = "largest"
		}
		b.Prompts = append(b.Prompts, prompt)
	}
	return b
}

func newItemBodies(items []Item) []itemBody {
	bodies := make([]itemBody, len(items))
	for i := range items {
		bodies[i] = newItemBody(items[i])
	}
	return bodies
}

// newCommonBody says that a request may take so long; 0 leaves it to the
// service.
func newCommonBody(o RequestOptions, deadline time.Duration) commonBody {
	b := commonBody{Variant: o.Variant, Priority: o.Priority}
	if deadline != 0 {
		b.DeadlineMS = min(max(1, deadline.Milliseconds()), (24 * time.Hour).Milliseconds())
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

// segmentCall is a request for masks. Unless it makes a job its body says at each
// try how much time is left.
func segmentCall(path string, o RequestOptions, body func() ([]byte, error)) call {
	r := call{method: http.MethodPost, path: path, header: http.Header{"Accept": {mediaJSON}}, mediaType: mediaJSON, body: body}
	if o.Unit != "" {
		r.header.Set("X-Unit-Id", o.Unit)
	}
	return r
}
