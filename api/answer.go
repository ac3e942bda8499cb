// Package api is the contract with clients: the types that requests and answers
// are written in. It holds no behaviour beyond their encoding, so that the
// gateway and the client of this module use the same types.
package api

import (
	"fmt"
	"time"

	"github.com/refersam/refersam"
)

// The formats of a mask that a client may ask for.
const (
	// FormatRLE is the compressed run-length encoding of COCO's tools.
	FormatRLE = "coco_rle"
	// FormatCounts is the uncompressed run-length encoding.
	FormatCounts = "rle"
	// FormatPolygon is a MultiPolygon of GeoJSON, in pixels.
	FormatPolygon = "polygon"
	// FormatPNG is a PNG of one bit per pixel, white where the mask is, in base64.
	FormatPNG = "png"
	// FormatPNG8 is a PNG of 8 bits per pixel, in base64.
	FormatPNG8 = "png8"
	// FormatProbability is a PNG of 16 bits per pixel, 65535 for a foreground
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
	// Mask is the size of the masks. Areas and boxes are in pixels of this size.
	Mask     AnswerImage    `json:"mask" doc:"The size of the masks; areas and boxes are in pixels of this size"`
	Model    AnswerModel    `json:"model" doc:"The model that answered"`
	Results  []AnswerResult `json:"results" doc:"One result per phrase, in the order of the phrases"`
	Warnings []Warning      `json:"warnings,omitempty" doc:"Warnings about results"`
	Timings  *AnswerTimings `json:"timings,omitempty" doc:"How long each step took"`
}

// AnswerTimings say how long each step took, in milliseconds.
type AnswerTimings struct {
	_ struct{} `doc:"How long each step took, in milliseconds."`
	// Read is the time until the request had been read, Fetch is for a picture that
	// was not in the request, Decode is for decoding the picture, Model is for the
	// model and its queue, and Mask is for the rest of making the masks after the
	// model was done. Total is the time until the answer began.
	Read   float64 `json:"read" doc:"Time until the request was read"`
	Fetch  float64 `json:"fetch" doc:"For fetching or loading a picture that was not in the request"`
	Decode float64 `json:"decode" doc:"For decoding the picture; 0 if the answer came from the cache"`
	Model  float64 `json:"model" doc:"For the model and waiting for it"`
	Mask   float64 `json:"mask" doc:"For making the masks, as far as it continued after the model was done"`
	Total  float64 `json:"total" doc:"Time until the answer began"`
}

// Header returns the value of Server-Timing.
func (t *AnswerTimings) Header() string {
	return fmt.Sprintf("read;dur=%.3f, fetch;dur=%.3f, decode;dur=%.3f, model;dur=%.3f, mask;dur=%.3f, total;dur=%.3f",
		t.Read, t.Fetch, t.Decode, t.Model, t.Mask, t.Total)
}

// Milliseconds writes a duration as the API does: in milliseconds, to the
// microsecond.
func Milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

// AnswerImage is the size of the upright picture or of its masks, in pixels.
type AnswerImage struct {
	_      struct{} `doc:"The size of the upright picture, or of its masks."`
	Width  int      `json:"width" doc:"In pixels"`
	Height int      `json:"height" doc:"In pixels"`
}

// AnswerModel names the model that answered.
type AnswerModel struct {
	_          struct{} `doc:"The model that answered."`
	Name       string   `json:"name" doc:"The name of the model"`
	Variant    string   `json:"variant" minLength:"1" doc:"The short name of the model's variant"`
	Version    string   `json:"version" doc:"The version of the model"`
	Checkpoint string   `json:"checkpoint" doc:"The SHA-256 of the weights that made the masks"`
}

// AnswerResult is the result of one phrase. Results are in the order of the
// phrases.
type AnswerResult struct {
	_        struct{} `doc:"The result of one phrase."`
	PromptID string   `json:"prompt_id,omitempty" doc:"The 'id' of the prompt, if it had one"`
	// Phrase is the text of the phrase, as in the request.
	Phrase string `json:"phrase" doc:"The phrase, as in the request"`
	// Status is "ok", or "empty" if the phrase describes nothing in the picture.
	Status string `json:"status" enum:"ok,empty" doc:"'empty' if the phrase describes nothing in the picture; this is not an error"`
	// Score is the mean foreground probability over the mask, 0 to 1.
	Score float64 `json:"score" minimum:"0" maximum:"1" doc:"The mean foreground probability over the mask, not calibrated; 0 for an empty mask"`
	Empty bool    `json:"empty" doc:"Whether the phrase describes nothing in the picture"`
	// Origin is "model", "shared" if the model's answer was made for an equal
	// request at the same time, or "cache" if it was made for an earlier one.
	Origin string `json:"origin" enum:"model,shared,cache" doc:"'shared' if the model's answer was made for an equal request at the same time, 'cache' if for an earlier one"`
	// Area is in pixels; BBox is left, top, width, height.
	Area    int            `json:"area" doc:"Foreground pixels"`
	BBox    [4]int         `json:"bbox" doc:"Left, top, width and height in pixels"`
	Quality *AnswerQuality `json:"quality,omitempty" doc:"How reliable the mask is; only if the request asks for it"`
	// Masks is set unless the masks are separate files. Then Files names them by
	// format.
	Masks AnswerMasks       `json:"masks,omitzero" doc:"The mask in the requested formats"`
	Files map[string]string `json:"files,omitempty" doc:"The names of the mask's files by format, in 'application/zip' and 'multipart/mixed'"`
}

// AnswerQuality says how reliable a mask is.
type AnswerQuality struct {
	_ struct{} `doc:"How reliable a mask is."`
	// Components counts the connected parts of the mask.
	Components int `json:"components" doc:"The number of connected parts of the mask"`
	// Stability is the IoU of masks with a lower and a higher threshold, 0 to 1.
	Stability float64 `json:"stability" minimum:"0" maximum:"1" doc:"How little the mask depends on its threshold; 1 is not at all"`
}

// AnswerMasks is a mask in the requested formats.
type AnswerMasks struct {
	_           struct{}  `doc:"A mask in the requested formats."`
	RLE         *RLE      `json:"coco_rle,omitempty" doc:"The run-length encoding that pycocotools reads"`
	Counts      *Counts   `json:"rle,omitempty" doc:"The lengths of the runs, uncompressed"`
	Polygon     *Geometry `json:"polygon,omitempty" doc:"A GeoJSON MultiPolygon"`
	PNG         []byte    `json:"png,omitempty" doc:"A PNG of one bit per pixel, white on black"`
	PNG8        []byte    `json:"png8,omitempty" doc:"A PNG of 8 bits per pixel, 255 on 0"`
	Probability []byte    `json:"probability,omitempty" doc:"A PNG of 16 bits per pixel, the foreground probability times 65535"`
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
	Type        string             `json:"type" enum:"MultiPolygon" doc:"Always 'MultiPolygon'"`
	Coordinates []refersam.Polygon `json:"coordinates" doc:"Polygons. Each begins with its outline, clockwise on the screen, followed by its holes, counterclockwise. All rings are closed"`
}

// Warning is a remark about a result that is nevertheless valid. Code
// "phrase_truncated" means that only Limit of the phrase's Tokens were read.
type Warning struct {
	_    struct{} `doc:"A remark about a result that is nevertheless valid."`
	Code string   `json:"code" enum:"phrase_truncated" doc:"'phrase_truncated': the end of the phrase was not read"`
	// Result is the index of the result.
	Result int `json:"result" doc:"The index of the result"`
	Tokens int `json:"tokens" doc:"How many tokens the phrase has"`
	Limit  int `json:"limit" doc:"How many tokens the model reads"`
}

// BatchAnswer is the body of an answer to POST /v1/segment:batch, with one result
// per item, in their order.
type BatchAnswer struct {
	_         struct{}      `doc:"The masks of several pictures."`
	RequestID string        `json:"request_id" doc:"The id of the request, as in the log"`
	Results   []BatchResult `json:"results" doc:"One result per picture, in the order of the request"`
}

// BatchResult is an answer or a problem.
type BatchResult struct {
	_       struct{} `doc:"The result of one picture: an answer or a problem."`
	ID      string   `json:"id,omitempty" doc:"The 'id' of the item, if it had one"`
	Answer  *Answer  `json:"answer,omitempty" doc:"The masks"`
	Problem *Problem `json:"problem,omitempty" doc:"Why the picture has no answer"`
}

// WarningTruncated is the code of the warning that the end of a phrase was not read.
const WarningTruncated = "phrase_truncated"

// Status returns the status of a result: "ok" or "empty".
func Status(r *refersam.Result) string {
	if r.Empty() {
		return "empty"
	}
	return "ok"
}
