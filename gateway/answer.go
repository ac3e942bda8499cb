package gateway

import (
	"fmt"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// The formats of a mask that a client may ask for.
const (
	// FormatRLE is the compressed run-length encoding of COCO's tools.
	FormatRLE = "coco_rle"
	// FormatCounts is the uncompressed one.
	FormatCounts = "rle"
	// FormatPolygon is a MultiPolygon of GeoJSON, in pixels.
	FormatPolygon = "polygon"
	// FormatPNG is a PNG of one bit a pixel, white where the mask is, in base64.
	FormatPNG = "png"
	// FormatPNG8 is the same with 8 bits a pixel.
	FormatPNG8 = "png8"
	// FormatProbability is a PNG of 16 bits a pixel, 65535 for a foreground
	// probability of 1, in base64.
	FormatProbability = "probability"
	// FormatOverlay is the picture with the mask laid over it, a PNG or a JPEG
	// in base64.
	FormatOverlay = "overlay"
)

// Formats lists the formats of a mask.
var Formats = []string{FormatRLE, FormatCounts, FormatPolygon, FormatPNG, FormatPNG8, FormatProbability, FormatOverlay}

// Answer is a refersam.Response as POST /v1/segment writes it.
type Answer struct {
	RequestID string      `json:"request_id"`
	Image     AnswerImage `json:"image"`
	// Mask is the size of the masks, to which areas and boxes belong.
	Mask     AnswerImage    `json:"mask"`
	Model    AnswerModel    `json:"model"`
	Results  []AnswerResult `json:"results"`
	Warnings []Warning      `json:"warnings,omitempty"`
	Timings  *AnswerTimings `json:"timings,omitempty"`
}

// AnswerTimings say where the time went, in milliseconds.
type AnswerTimings struct {
	// Read is until the request had been read, Fetch the bringing of a picture
	// that was not in it, Decode the decoding of the
	// picture, Model the model and its queue, Mask what was left of the making
	// of masks when the model was done. Total is all until the answer began.
	Read   float64 `json:"read"`
	Fetch  float64 `json:"fetch"`
	Decode float64 `json:"decode"`
	Model  float64 `json:"model"`
	Mask   float64 `json:"mask"`
	Total  float64 `json:"total"`
}

func newTimings(read, fetch, total time.Duration, t refersam.Timings) *AnswerTimings {
	return &AnswerTimings{milliseconds(read), milliseconds(fetch), milliseconds(t.Decode), milliseconds(t.Model), milliseconds(t.Mask), milliseconds(total)}
}

// header is the value of Server-Timing.
func (t *AnswerTimings) header() string {
	return fmt.Sprintf("read;dur=%.3f, fetch;dur=%.3f, decode;dur=%.3f, model;dur=%.3f, mask;dur=%.3f, total;dur=%.3f",
		t.Read, t.Fetch, t.Decode, t.Model, t.Mask, t.Total)
}

// AnswerImage is the size of the upright picture or of its masks, in pixels.
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
	// Phrase is the text of the phrase, as the request has it.
	Phrase string `json:"phrase"`
	// Status is "ok", or "empty" when nothing in the picture is meant.
	Status string `json:"status"`
	// Score is the mean foreground probability over the mask, 0 to 1.
	Score float64 `json:"score"`
	Empty bool    `json:"empty"`
	// Origin is "model", or "shared" or "cache" when the model's answer was
	// made for an equal request at the same time or before.
	Origin string `json:"origin"`
	// Area is in pixels; BBox is left, top, width, height.
	Area    int            `json:"area"`
	BBox    [4]int         `json:"bbox"`
	Quality *AnswerQuality `json:"quality,omitempty"`
	// Masks are there unless they are in files of their own, which Files then
	// names by format.
	Masks AnswerMasks       `json:"masks,omitzero"`
	Files map[string]string `json:"files,omitempty"`
}

// AnswerQuality says how far a mask is to be trusted.
type AnswerQuality struct {
	// Components counts the parts of the mask that hang together.
	Components int `json:"components"`
	// Stability is how little the mask depends on its threshold, 0 to 1.
	Stability float64 `json:"stability"`
}

// AnswerMasks is a mask in the formats asked for.
type AnswerMasks struct {
	RLE         *RLE      `json:"coco_rle,omitempty"`
	Counts      *Counts   `json:"rle,omitempty"`
	Polygon     *Geometry `json:"polygon,omitempty"`
	PNG         []byte    `json:"png,omitempty"`
	PNG8        []byte    `json:"png8,omitempty"`
	Probability []byte    `json:"probability,omitempty"`
	Overlay     []byte    `json:"overlay,omitempty"`
}

// RLE is a mask as pycocotools reads it. Size is height, width.
type RLE struct {
	Size   [2]int `json:"size"`
	Counts string `json:"counts"`
}

// NewRLE writes a mask.
func NewRLE(mask *refersam.Mask) *RLE {
	return &RLE{[2]int{mask.Height, mask.Width}, postprocess.RLE(mask)}
}

// Counts is a mask as the lengths of its runs down the columns, background
// first. Size is height, width.
type Counts struct {
	Size   [2]int   `json:"size"`
	Counts []uint32 `json:"counts"`
}

// Geometry is a MultiPolygon of GeoJSON: polygons of rings of points x, y in
// pixels, y down. The first ring of a polygon is its outline, the others are
// holes.
type Geometry struct {
	Type        string                `json:"type"`
	Coordinates []postprocess.Polygon `json:"coordinates"`
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
		Mask:      AnswerImage{resp.MaskWidth, resp.MaskHeight},
		Model:     AnswerModel{resp.Model, resp.Variant, resp.Version},
		Results:   make([]AnswerResult, len(resp.Results)),
	}
	for i := range resp.Results {
		r := &resp.Results[i]
		a.Results[i] = AnswerResult{
			PromptID: r.PhraseID,
			Phrase:   r.Phrase,
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

func (a *Answer) addQuality(resp *refersam.Response) {
	for i := range resp.Results {
		a.Results[i].Quality = &AnswerQuality{resp.Results[i].Components, resp.Results[i].Stability}
	}
}

// Status is the word for a result: "ok" or "empty".
func Status(r *refersam.Result) string {
	if r.Empty() {
		return "empty"
	}
	return "ok"
}
