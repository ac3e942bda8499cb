package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

const mediaJSON = "application/json"

// requestBody, promptBody and outputBody are what the service reads.
type requestBody struct {
	Image      imageBody    `json:"image"`
	Prompts    []promptBody `json:"prompts"`
	Output     outputBody   `json:"output"`
	Variant    string       `json:"variant,omitempty"`
	DeadlineMS int64        `json:"deadline_ms,omitzero"`
	Priority   string       `json:"priority,omitempty"`
	Webhook    *webhookBody `json:"webhook,omitempty"`
}

type imageBody struct {
	Data []byte `json:"data,omitempty"`
	ID   string `json:"id,omitempty"`
	URL  string `json:"url,omitempty"`
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
	Size    string `json:"size,omitempty"`
	Quality bool   `json:"quality,omitzero"`
}

type webhookBody struct {
	URL string `json:"url"`
}

// answerBody is what the service answers.
type answerBody struct {
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
			RLE struct {
				Counts string `json:"counts"`
			} `json:"coco_rle"`
		}
	}
	Warnings []struct{ Result, Tokens, Limit int }
	Timings  struct{ Decode, Model, Mask float64 }
}

// Segment implements refersam.Segmenter. Of a request, ID, Digest and Key are
// not sent; Priority shadow and Picture are not for clients and an error. Of a
// response there is no Checkpoint, and Tokens and Limit are there for phrases
// that were cut off alone. Logits and ModelTime stay behind.
func (c *Client) Segment(ctx context.Context, req *refersam.Request) (*refersam.Response, error) {
	return c.segment(ctx, imageBody{Data: req.Image}, req)
}

// SegmentImage is Segment for a picture that is kept, by the ID of its Image;
// req has none.
func (c *Client) SegmentImage(ctx context.Context, id string, req *refersam.Request) (*refersam.Response, error) {
	return c.segment(ctx, imageBody{ID: id}, req)
}

func (c *Client) segment(ctx context.Context, image imageBody, req *refersam.Request) (*refersam.Response, error) {
	r, err := newCall(ctx, image, req, "")
	if err != nil {
		return nil, err
	}
	var a answerBody
	if err := c.do(ctx, r, &a); err != nil {
		return nil, err
	}
	return a.response(req)
}

// newCall writes a request, which must end when ctx does.
func newCall(ctx context.Context, image imageBody, req *refersam.Request, webhook string) (call, error) {
	if req.Picture || req.Priority == refersam.PriorityShadow {
		return call{}, errors.New("decoded pictures and shadow requests are not to be had over HTTP")
	}
	body := requestBody{
		Image: image, Variant: req.Variant, Priority: string(req.Priority),
		Output: outputBody{Size: string(req.Size), Quality: req.Quality},
	}
	for _, p := range req.Phrases {
		prompt := promptBody{ID: p.ID, Text: p.Text, Threshold: p.Threshold, FillHoles: p.FillHoles, MinArea: p.MinArea}
		if p.Largest {
			prompt.Keep = "largest"
		}
		body.Prompts = append(body.Prompts, prompt)
	}
	if webhook != "" {
		body.Webhook = &webhookBody{webhook}
	}
	if deadline, ok := ctx.Deadline(); ok {
		body.DeadlineMS = min(max(1, time.Until(deadline).Milliseconds()), (24 * time.Hour).Milliseconds())
	}
	data, err := json.Marshal(body)
	if err != nil {
		return call{}, err
	}
	r := call{method: http.MethodPost, path: "v1/segment", header: http.Header{"Accept": {mediaJSON}}, mediaType: mediaJSON, body: data}
	if req.Unit != "" {
		r.header.Set("X-Unit-Id", req.Unit)
	}
	return r, nil
}

// response is a as a refersam.Response to req.
func (a *answerBody) response(req *refersam.Request) (*refersam.Response, error) {
	resp := &refersam.Response{
		Width: a.Image.Width, Height: a.Image.Height, MaskWidth: a.Mask.Width, MaskHeight: a.Mask.Height,
		Model: a.Model.Name, Variant: a.Model.Variant, Version: a.Model.Version,
		Results: make([]refersam.Result, len(a.Results)),
		Timings: refersam.Timings{Decode: milliseconds(a.Timings.Decode), Model: milliseconds(a.Timings.Model), Mask: milliseconds(a.Timings.Mask)},
	}
	if len(a.Results) != len(req.Phrases) {
		return nil, fmt.Errorf("the service answered %d of %d phrases", len(a.Results), len(req.Phrases))
	}
	for i := range a.Results {
		from := &a.Results[i]
		mask, err := postprocess.DecodeRLE(from.Masks.RLE.Counts, a.Mask.Width, a.Mask.Height)
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
		if w.Result >= 0 && w.Result < len(resp.Results) {
			resp.Results[w.Result].Tokens, resp.Results[w.Result].Limit = w.Tokens, w.Limit
		}
	}
	if req.Encode == nil {
		return resp, nil
	}
	for i := range resp.Results {
		if err := req.Encode(i, &resp.Results[i]); err != nil {
			return nil, err
		}
		resp.Results[i].Mask = nil
	}
	return resp, nil
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
