// Package api is the contract with clients: the types that requests and answers
// are written in. It holds no behaviour beyond their encoding, so that the
// gateway and the client of this module use the same types.
package api

import (
	"fmt"

	"github.com/refersam/refersam"
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

// Answer is the body of an answer to POST /v1/segment.
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

// Header returns the value of Server-Timing.
func (t *AnswerTimings) Header() string {
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
	Type        string             `json:"type"`
	Coordinates []refersam.Polygon `json:"coordinates"`
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

// WarningTruncated is the code of the warning that the end of a phrase was not read.
const WarningTruncated = "phrase_truncated"

// Status is the word for a result: "ok" or "empty".
func Status(r *refersam.Result) string {
	if r.Empty() {
		return "empty"
	}
	return "ok"
}
