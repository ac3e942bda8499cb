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
	_         struct{}    `doc:"The masks of one picture."`
	RequestID string      `json:"request_id" doc:"The id of the request, as in the log"`
	Image     AnswerImage `json:"image" doc:"The upright picture"`
	// Mask is the size of the masks, to which areas and boxes belong.
	Mask     AnswerImage    `json:"mask" doc:"The size of the masks, in whose pixels areas and boxes are"`
	Model    AnswerModel    `json:"model" doc:"What answered"`
	Results  []AnswerResult `json:"results" doc:"One result a phrase, in their order"`
	Warnings []Warning      `json:"warnings,omitempty" doc:"What should be known about results"`
	Timings  *AnswerTimings `json:"timings,omitempty" doc:"Where the time went"`
}

// AnswerTimings say where the time went, in milliseconds.
type AnswerTimings struct {
	_ struct{} `doc:"Where the time went, in milliseconds."`
	// Read is until the request had been read, Fetch the bringing of a picture
	// that was not in it, Decode the decoding of the
	// picture, Model the model and its queue, Mask what was left of the making
	// of masks when the model was done. Total is all until the answer began.
	Read   float64 `json:"read" doc:"Until the request was read"`
	Fetch  float64 `json:"fetch" doc:"For bringing a picture that was not in the request"`
	Decode float64 `json:"decode" doc:"For the picture; 0 when the answer was there already"`
	Model  float64 `json:"model" doc:"For the model and the wait for it"`
	Mask   float64 `json:"mask" doc:"For what was left of the masks' making when the model was done"`
	Total  float64 `json:"total" doc:"Until the answer began"`
}

// Header returns the value of Server-Timing.
func (t *AnswerTimings) Header() string {
	return fmt.Sprintf("read;dur=%.3f, fetch;dur=%.3f, decode;dur=%.3f, model;dur=%.3f, mask;dur=%.3f, total;dur=%.3f",
		t.Read, t.Fetch, t.Decode, t.Model, t.Mask, t.Total)
}

// AnswerImage is the size of the upright picture or of its masks, in pixels.
type AnswerImage struct {
	_      struct{} `doc:"The size of the upright picture, or of its masks."`
	Width  int      `json:"width" doc:"In pixels"`
	Height int      `json:"height" doc:"In pixels"`
}

// AnswerModel names what answered.
type AnswerModel struct {
	_          struct{} `doc:"What answered."`
	Name       string   `json:"name" doc:"The name of the model"`
	Variant    string   `json:"variant" minLength:"1" doc:"Its short name"`
	Version    string   `json:"version" doc:"Its version"`
	Checkpoint string   `json:"checkpoint" doc:"The SHA-256 of the weights that made the masks"`
}

// AnswerResult is what one phrase means. Results are in the order of the
// phrases.
type AnswerResult struct {
	_        struct{} `doc:"What one phrase means."`
	PromptID string   `json:"prompt_id,omitempty" doc:"The 'id' of the prompt, if it had one"`
	// Phrase is the text of the phrase, as the request has it.
	Phrase string `json:"phrase" doc:"The phrase that the result answers, as the request has it"`
	// Status is "ok", or "empty" when nothing in the picture is meant.
	Status string `json:"status" enum:"ok,empty" doc:"'empty' when nothing in the picture is meant, which is no error"`
	// Score is the mean foreground probability over the mask, 0 to 1.
	Score float64 `json:"score" minimum:"0" maximum:"1" doc:"The mean foreground probability over the mask, not calibrated; 0 for an empty mask"`
	Empty bool    `json:"empty" doc:"Whether nothing in the picture is meant"`
	// Origin is "model", or "shared" or "cache" when the model's answer was
	// made for an equal request at the same time or before.
	Origin string `json:"origin" enum:"model,shared,cache" doc:"'shared' or 'cache' when the model's answer was made for an equal request at the same time, or before"`
	// Area is in pixels; BBox is left, top, width, height.
	Area    int            `json:"area" doc:"Foreground pixels"`
	BBox    [4]int         `json:"bbox" doc:"Left, top, width and height in pixels"`
	Quality *AnswerQuality `json:"quality,omitempty" doc:"How far the mask is to be trusted; there when asked for"`
	// Masks are there unless they are in files of their own, which Files then
	// names by format.
	Masks AnswerMasks       `json:"masks,omitzero" doc:"The mask in the formats asked for"`
	Files map[string]string `json:"files,omitempty" doc:"The names of the mask's files by format, in 'application/zip' and 'multipart/mixed'"`
}

// AnswerQuality says how far a mask is to be trusted.
type AnswerQuality struct {
	_ struct{} `doc:"How far a mask is to be trusted."`
	// Components counts the parts of the mask that hang together.
	Components int `json:"components" doc:"The parts of the mask that hang together"`
	// Stability is how little the mask depends on its threshold, 0 to 1.
	Stability float64 `json:"stability" minimum:"0" maximum:"1" doc:"How little the mask depends on its threshold"`
}

// AnswerMasks is a mask in the formats asked for.
type AnswerMasks struct {
	_           struct{}  `doc:"A mask in the formats asked for."`
	RLE         *RLE      `json:"coco_rle,omitempty" doc:"As pycocotools reads it"`
	Counts      *Counts   `json:"rle,omitempty" doc:"The lengths of runs"`
	Polygon     *Geometry `json:"polygon,omitempty" doc:"A GeoJSON MultiPolygon"`
	PNG         []byte    `json:"png,omitempty" doc:"A PNG of one bit a pixel, white on black"`
	PNG8        []byte    `json:"png8,omitempty" doc:"A PNG of 8 bits a pixel, 255 on 0"`
	Probability []byte    `json:"probability,omitempty" doc:"A PNG of 16 bits a pixel, the foreground probability times 65535"`
	Overlay     []byte    `json:"overlay,omitempty" doc:"The picture with the mask in red over it"`
}

// RLE is a mask as pycocotools reads it. Size is height, width.
type RLE struct {
	_      struct{} `doc:"The compressed run-length encoding of pycocotools."`
	Size   [2]int   `json:"size" doc:"Height and width in pixels"`
	Counts string   `json:"counts" doc:"The runs"`
}

// Counts is a mask as the lengths of its runs down the columns, background
// first. Size is height, width.
type Counts struct {
	_      struct{} `doc:"A mask as the lengths of runs down the columns."`
	Size   [2]int   `json:"size" doc:"Height and width in pixels"`
	Counts []uint32 `json:"counts" doc:"The lengths of runs, background first"`
}

// Geometry is a MultiPolygon of GeoJSON: polygons of rings of points x, y in
// pixels, y down. The first ring of a polygon is its outline, the others are
// holes.
type Geometry struct {
	_           struct{}           `doc:"A GeoJSON MultiPolygon in pixels, y down."`
	Type        string             `json:"type" enum:"MultiPolygon" doc:"Always the same"`
	Coordinates []refersam.Polygon `json:"coordinates" doc:"Of each polygon the outline first, clockwise as one sees it, then its holes the other way; rings are closed"`
}

// Warning tells something about a result that did not keep it from being
// given: with the code "phrase_truncated", that only Limit of the phrase's
// Tokens were read.
type Warning struct {
	_    struct{} `doc:"Something that should be known about a result."`
	Code string   `json:"code" enum:"phrase_truncated" doc:"'phrase_truncated': the end of the phrase was not read"`
	// Result is the index of the result.
	Result int `json:"result" doc:"The index of the result"`
	Tokens int `json:"tokens" doc:"How many tokens the phrase has"`
	Limit  int `json:"limit" doc:"How many of them are read"`
}

// BatchAnswer is the body of an answer to POST /v1/segment:batch, with one result
// per item, in their order.
type BatchAnswer struct {
	_         struct{}      `doc:"The masks of several pictures."`
	RequestID string        `json:"request_id" doc:"The id of the request, as in the log"`
	Results   []BatchResult `json:"results" doc:"One result a picture, in their order"`
}

// BatchResult is an answer or a problem.
type BatchResult struct {
	_       struct{} `doc:"What came of one picture: an answer or a problem."`
	ID      string   `json:"id,omitempty" doc:"The 'id' of the item, if it had one"`
	Answer  *Answer  `json:"answer,omitempty" doc:"The masks"`
	Problem *Problem `json:"problem,omitempty" doc:"Why there are none"`
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
