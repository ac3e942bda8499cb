package gateway

import (
	"bytes"
	"fmt"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// The formats of a mask that a client may ask for.
const (
	// FormatRLE is the compressed run-length encoding of COCO's tools.
	FormatRLE = "coco_rle"
	// FormatPNG is a PNG of one bit a pixel, white where the mask is, in base64.
	FormatPNG = "png"
)

// Formats lists the formats of a mask.
var Formats = []string{FormatRLE, FormatPNG}

// Answer is a refersam.Response as POST /v1/segment writes it.
type Answer struct {
	RequestID string         `json:"request_id"`
	Image     AnswerImage    `json:"image"`
	Model     AnswerModel    `json:"model"`
	Results   []AnswerResult `json:"results"`
	Warnings  []Warning      `json:"warnings,omitempty"`
}

// AnswerImage is the size of the upright picture in pixels.
type AnswerImage struct {
	Width  int `json:"width"`
	Height int `json:"height"`
}

// AnswerModel names what answered.
type AnswerModel struct {
	Name    string `json:"name"`
	Variant string `json:"variant"`
	Version string `json:"version"`
}

// AnswerResult is what one phrase means. Results are in the order of the
// phrases.
type AnswerResult struct {
	PromptID string `json:"prompt_id,omitempty"`
	// Status is "ok", or "empty" when nothing in the picture is meant.
	Status string `json:"status"`
	// Score is the mean foreground probability over the mask, 0 to 1.
	Score float64 `json:"score"`
	Empty bool    `json:"empty"`
	// Origin is "model", or "shared" or "cache" when the model's answer was
	// made for an equal request at the same time or before.
	Origin string `json:"origin"`
	// Area is in pixels; BBox is left, top, width, height.
	Area  int         `json:"area"`
	BBox  [4]int      `json:"bbox"`
	Masks AnswerMasks `json:"masks"`
}

// AnswerMasks is a mask in the formats asked for.
type AnswerMasks struct {
	RLE *RLE   `json:"coco_rle,omitempty"`
	PNG []byte `json:"png,omitempty"`
}

// RLE is a mask as pycocotools reads it. Size is height, width.
type RLE struct {
	Size   [2]int `json:"size"`
	Counts string `json:"counts"`
}

// Warning tells something about a result that did not keep it from being
// given: with the code "phrase_truncated", that only Limit of the phrase's
// Tokens were read.
type Warning struct {
	Code string `json:"code"`
	// Result is the index of the result.
	Result int `json:"result"`
	Tokens int `json:"tokens"`
	Limit  int `json:"limit"`
}

const warningTruncated = "phrase_truncated"

// NewAnswer writes resp with the masks of its results.
func NewAnswer(requestID string, resp *refersam.Response, masks []AnswerMasks) *Answer {
	a := &Answer{
		RequestID: requestID,
		Image:     AnswerImage{resp.Width, resp.Height},
		Model:     AnswerModel{resp.Model, resp.Variant, resp.Version},
		Results:   make([]AnswerResult, len(resp.Results)),
	}
	for i := range resp.Results {
		r := &resp.Results[i]
		a.Results[i] = AnswerResult{
			PromptID: r.PhraseID,
			Status:   Status(r),
			Score:    r.Score,
			Empty:    r.Empty(),
			Origin:   string(r.Origin),
			Area:     r.Area,
			BBox:     [4]int{r.Box.X, r.Box.Y, r.Box.W, r.Box.H},
			Masks:    masks[i],
		}
		if r.Truncated() {
			a.Warnings = append(a.Warnings, Warning{warningTruncated, i, r.Tokens, r.Limit})
		}
	}
	return a
}

// Status is the word for a result: "ok" or "empty".
func Status(r *refersam.Result) string {
	if r.Empty() {
		return "empty"
	}
	return "ok"
}

// EncodeMask writes a mask in the given formats.
func EncodeMask(mask *refersam.Mask, formats ...string) (AnswerMasks, error) {
	var masks AnswerMasks
	for _, format := range formats {
		switch format {
		case FormatRLE:
			masks.RLE = &RLE{[2]int{mask.Height, mask.Width}, postprocess.RLE(mask)}
		case FormatPNG:
			var png bytes.Buffer
			if err := postprocess.EncodePNG(&png, mask); err != nil {
				return AnswerMasks{}, err
			}
			masks.PNG = png.Bytes()
		default:
			return AnswerMasks{}, fmt.Errorf("unknown mask format %q", format)
		}
	}
	return masks, nil
}
