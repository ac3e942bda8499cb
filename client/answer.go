package client

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/postprocess"
)

// Answer holds the masks of one picture. Package postprocess turns them into PNGs,
// polygons and pixels.
type Answer struct {
	// Response has no Checkpoint. Its results have Tokens and Limit only for
	// phrases that were cut off. Logits, Picture and ModelTime are not set.
	refersam.Response
	// RequestID is the id that the service logged with the request. Feedback
	// refers to it.
	RequestID string
}

// answerBody is api.Answer with masks that stay JSON, because package postprocess
// parses them and an unknown format must not make the answer unreadable.
type answerBody struct {
	api.Answer
	Results []struct {
		api.AnswerResult
		Masks maskBody `json:"masks"`
	} `json:"results"`
}

// answer converts b to the domain's types. It requires one result per phrase; a is
// the answer that contained b.
func (b *answerBody) answer(a *answer, phrases int) (*Answer, error) {
	if len(b.Results) != phrases {
		return nil, a.unreadable(fmt.Errorf("it has %d results for %d phrases", len(b.Results), phrases))
	}
	resp := refersam.Response{
		Width: b.Image.Width, Height: b.Image.Height, MaskWidth: b.Mask.Width, MaskHeight: b.Mask.Height,
		Model: b.Model.Name, Variant: b.Model.Variant, Version: b.Model.Version, Checkpoint: b.Model.Checkpoint,
		Results: make([]refersam.Result, phrases),
	}
	if t := b.Timings; t != nil {
		resp.Timings = refersam.Timings{Decode: milliseconds(t.Decode), Model: milliseconds(t.Model), Mask: milliseconds(t.Mask)}
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
			PhraseID: from.PromptID, Phrase: from.Phrase, Score: from.Score, Area: from.Area, Origin: refersam.Origin(from.Origin),
			Box:  refersam.Box{X: from.BBox[0], Y: from.BBox[1], W: from.BBox[2], H: from.BBox[3]},
			Mask: mask,
		}
		if q := from.Quality; q != nil {
			resp.Results[i].Components, resp.Results[i].Stability = q.Components, q.Stability
		}
	}
	for _, w := range b.Warnings {
		if w.Code == api.WarningTruncated && w.Result >= 0 && w.Result < len(resp.Results) {
			resp.Results[w.Result].Tokens, resp.Results[w.Result].Limit = w.Tokens, w.Limit
		}
	}
	return &Answer{resp, b.RequestID}, nil
}

// maskBody is a mask in each of the formats that the request asked for.
type maskBody map[string]jsontext.Value

// mask decodes a mask of width × height pixels. The error is a *refersam.Error if
// the mask exists, but only in formats other than run lengths.
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
			return nil, fmt.Errorf("the mask has %d × %d pixels, want %d × %d", mask.Width, mask.Height, width, height)
		}
		return mask, nil
	}
	if len(b) == 0 {
		return nil, errors.New("the mask is missing")
	}
	return nil, refersam.Errorf(refersam.CodeNotAcceptable,
		"The masks are written as %s; read them with RawResult, or add coco_rle to the formats of the job's request.",
		strings.Join(slices.Sorted(maps.Keys(b)), ", "))
}
