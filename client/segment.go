package client

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
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

// Answer has the masks of one picture.
type Answer struct {
	// Response has no Checkpoint. Of its results, Tokens and Limit are there for
	// phrases that were cut off alone; Logits, Picture and ModelTime stay behind.
	refersam.Response
	// RequestID is the id under which the service has logged the request; Feedback
	// names it.
	RequestID string
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
// CodeInvalidRequest. The response is that of an Answer.
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
		return json.Marshal(segmentBody{itemBody: body, commonBody: newCommonBody(o, left(ctx))})
	})
	a, err := get[answerBody](ctx, c, r)
	if err != nil {
		return nil, err
	}
	if len(a.Results) != len(item.Phrases) {
		return nil, fmt.Errorf("the service answered %d of %d phrases", len(a.Results), len(item.Phrases))
	}
	return a.answer()
}

// SegmentBatch asks about up to 64 pictures, of 100 MiB in base64 at most, in
// one request. There is one result an item, in their order. The error is about
// the whole request; what is wrong with an item alone is in its result, and not
// tried again.
func (c *Client) SegmentBatch(ctx context.Context, items []Item, o RequestOptions) ([]BatchResult, error) {
	bodies := newItemBodies(items)
	r := segmentCall("v1/segment:batch", o, func() ([]byte, error) {
		return json.Marshal(batchBody{Items: bodies, commonBody: newCommonBody(o, left(ctx))})
	})
	type resultBody struct {
		ID      string
		Answer  *answerBody
		Problem *problem
	}
	a, err := get[struct{ Results []resultBody }](ctx, c, r)
	if err != nil {
		return nil, err
	}
	if len(a.Results) != len(items) {
		return nil, fmt.Errorf("the service answered %d of %d items", len(a.Results), len(items))
	}
	results := make([]BatchResult, len(items))
	for i, from := range a.Results {
		to := &results[i]
		to.ID = from.ID
		switch {
		case from.Problem != nil:
			to.Err = from.Problem.err()
		case from.Answer != nil:
			if to.Answer, err = from.Answer.answer(); err != nil {
				return nil, fmt.Errorf("item %d: %w", i, err)
			}
		default:
			return nil, fmt.Errorf("item %d has neither an answer nor a problem", i)
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

// answerBody is what the service answers about a picture.
type answerBody struct {
	RequestID   string `json:"request_id"`
	Image, Mask struct{ Width, Height int }
	Model       struct{ Name, Variant, Version string }
	Results     []struct {
		PromptID string `json:"prompt_id"`
		Score    float64
		Origin   refersam.Origin
		Area     int
		BBox     [4]int `json:"bbox"`
		Quality  struct {
			Components int
			Stability  float64
		}
		Masks struct {
			RLE rleBody `json:"coco_rle"`
		}
	}
	Warnings []struct {
		Code                  string
		Result, Tokens, Limit int
	}
	Timings struct{ Decode, Model, Mask float64 }
}

// rleBody is a mask as pycocotools writes it. Size is height, width.
type rleBody struct {
	Size   [2]int `json:"size"`
	Counts string `json:"counts"`
}

func (r *rleBody) mask() (*refersam.Mask, error) {
	return postprocess.DecodeRLE(r.Counts, r.Size[1], r.Size[0])
}

func (a *answerBody) answer() (*Answer, error) {
	resp := refersam.Response{
		Width: a.Image.Width, Height: a.Image.Height, MaskWidth: a.Mask.Width, MaskHeight: a.Mask.Height,
		Model: a.Model.Name, Variant: a.Model.Variant, Version: a.Model.Version,
		Results: make([]refersam.Result, len(a.Results)),
		Timings: refersam.Timings{Decode: milliseconds(a.Timings.Decode), Model: milliseconds(a.Timings.Model), Mask: milliseconds(a.Timings.Mask)},
	}
	for i := range a.Results {
		from := &a.Results[i]
		mask, err := from.Masks.RLE.mask()
		if err != nil {
			return nil, fmt.Errorf("the mask of phrase %d: %w", i, err)
		}
		resp.Results[i] = refersam.Result{
			PhraseID: from.PromptID, Score: from.Score, Area: from.Area, Origin: from.Origin,
			Box:        refersam.Box{X: from.BBox[0], Y: from.BBox[1], W: from.BBox[2], H: from.BBox[3]},
			Components: from.Quality.Components, Stability: from.Quality.Stability,
			Mask: mask,
		}
	}
	for _, w := range a.Warnings {
		if w.Code == "phrase_truncated" && w.Result >= 0 && w.Result < len(resp.Results) {
			resp.Results[w.Result].Tokens, resp.Results[w.Result].Limit = w.Tokens, w.Limit
		}
	}
	return &Answer{resp, a.RequestID}, nil
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
