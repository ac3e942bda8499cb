package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// Answer has the masks of one picture. Package postprocess makes PNGs,
// polygons and pixels of them.
type Answer struct {
	// Response has no Checkpoint. Of its results, Tokens and Limit are there for
	// phrases that were cut off alone; Logits, Picture and ModelTime stay behind.
	refersam.Response
	// RequestID is the id under which the service has logged the request; Feedback
	// names it.
	RequestID string
}

// answerBody is what the service answers about a picture.
type answerBody struct {
	RequestID   string `json:"request_id"`
	Image, Mask struct{ Width, Height int }
	Model       struct{ Name, Variant, Version, Checkpoint string }
	Results     []struct {
		PromptID string `json:"prompt_id"`
		Phrase   string
		Score    float64
		Origin   refersam.Origin
		Area     int
		BBox     [4]int `json:"bbox"`
		Quality  struct {
			Components int
			Stability  float64
		}
		Masks maskBody
	}
	Warnings []struct {
		Code                  string
		Result, Tokens, Limit int
	}
	Timings refersam.Timings
}

// answer is b in the words of the domain, with one result for each of so many
// phrases. a is what b came with.
func (b *answerBody) answer(a *answer, phrases int) (*Answer, error) {
	if len(b.Results) != phrases {
		return nil, a.unreadable(fmt.Errorf("it has %d results for %d phrases", len(b.Results), phrases))
	}
	resp := refersam.Response{
		Width: b.Image.Width, Height: b.Image.Height, MaskWidth: b.Mask.Width, MaskHeight: b.Mask.Height,
		Model: b.Model.Name, Variant: b.Model.Variant, Version: b.Model.Version, Checkpoint: b.Model.Checkpoint,
		Results: make([]refersam.Result, phrases),
		Timings: b.Timings,
	}
	for i := range b.Results {
		from := &b.Results[i]
		mask, err := from.Masks.mask(b.Mask.Width, b.Mask.Height)
		var unknown *refersam.Error
		if errors.As(err, &unknown) {
			unknown.RequestID = b.RequestID
			return nil, unknown
		} else if err != nil {
			return nil, a.unreadable(fmt.Errorf("the mask of phrase %d: %w", i, err))
		}
		resp.Results[i] = refersam.Result{
			PhraseID: from.PromptID, Phrase: from.Phrase, Score: from.Score, Area: from.Area, Origin: from.Origin,
			Box:        refersam.Box{X: from.BBox[0], Y: from.BBox[1], W: from.BBox[2], H: from.BBox[3]},
			Components: from.Quality.Components, Stability: from.Quality.Stability,
			Mask: mask,
		}
	}
	for _, w := range b.Warnings {
		if w.Code == "phrase_truncated" && w.Result >= 0 && w.Result < len(resp.Results) {
			resp.Results[w.Result].Tokens, resp.Results[w.Result].Limit = w.Tokens, w.Limit
		}
	}
	return &Answer{resp, b.RequestID}, nil
}

// maskBody is a mask in each of the formats that its request has asked for.
type maskBody map[string]jsontext.Value

// mask reads a mask of width × height pixels. It is a *refersam.Error if there
// is one, but not in a format of run lengths.
func (b maskBody) mask(width, height int) (*refersam.Mask, error) {
	for _, format := range []string{"coco_rle", "rle"} {
		rle, ok := b[format]
		if !ok {
			continue
		}
		mask, err := postprocess.ParseRLE(rle)
		if err != nil {
			return nil, err
		}
		if mask.Width != width || mask.Height != height {
			return nil, fmt.Errorf("it has %d × %d pixels, not %d × %d", mask.Width, mask.Height, width, height)
		}
		return mask, nil
	}
	if len(b) == 0 {
		return nil, errors.New("there is none")
	}
	return nil, refersam.Errorf(refersam.CodeNotAcceptable,
		"The masks are written as %s, which only RawResult gives; a job whose request asks for coco_rle, too, can be read.",
		strings.Join(slices.Sorted(maps.Keys(b)), ", "))
}
