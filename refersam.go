// Package refersam is the domain of the service in plain words: a picture and
// phrases go in, one mask per phrase comes out. It imports nothing of the other
// packages; every one of them may import it.
package refersam

import (
	"context"
	"time"
)

// Picture is a decoded picture, upright (its EXIF orientation is applied).
//
// Pix holds 3 bytes per pixel (R, G, B), row by row from the top left, without
// padding: len(Pix) == 3*Width*Height. Nothing may write to Pix once the
// Picture has been handed on.
type Picture struct {
	Width, Height int
	Pix           []uint8
}

// Phrase is one free-form expression to be found in the picture.
type Phrase struct {
	// ID is echoed in the result. It may be empty and need not be unique.
	ID string
	// Text is valid UTF-8 and not blank.
	Text string
	// Threshold is the lowest foreground probability of a pixel of the mask, in
	// (0, 1); 0 means the model's own threshold.
	Threshold float64
	// FillHoles is the largest area of a hole that is filled. MinArea is the
	// smallest area of a component that is kept. Both are in pixels of the mask.
	// Largest keeps only the largest component. Holes are filled first.
	FillHoles, MinArea int
	Largest            bool
}

// Size says how large masks are.
type Size string

// The sizes of masks. The zero Size is SizeOriginal.
const (
	// SizeOriginal is the size of the upright picture.
	SizeOriginal Size = "original"
	// SizeModel is the size of the model's answer: a quarter of the square that
	// the model reads, or the part of it that the picture covers.
	SizeModel Size = "model"
)

// Logits are one row of the model's output: Width × Height values, row by row.
// A value of 0 is a foreground probability of one half.
type Logits struct {
	Width, Height int
	Values        []float32
}

// Mask says which pixels a phrase means.
//
// Runs holds the lengths of alternating runs of background and foreground down
// the columns, from the leftmost on; a run may go on in the next column. The
// first is background and may be 0, no other is; their sum is Width*Height.
type Mask struct {
	Width, Height int
	Runs          []uint32
}

// Point is a place in a picture, in pixels: x from the left, y from the top.
type Point [2]float64

// Ring is a closed line: its last point is its first one again.
type Ring []Point

// Polygon is an area: its first ring is the outline, the others are holes in
// it.
type Polygon []Ring

// Box is an axis-aligned box in pixels of the mask: left, top,
// width and height. The zero Box belongs to an empty mask.
type Box struct {
	X, Y, W, H int
}

// Priority says which work is done first when there is too much.
type Priority string

// The priorities, most urgent first. The zero Priority is PriorityInteractive.
const (
	// PriorityInteractive is for work that a user waits for.
	PriorityInteractive Priority = "interactive"
	// PriorityBatch is for work that nobody waits for at the moment.
	PriorityBatch Priority = "batch"
	// PriorityShadow is for work with an answer that nobody sees.
	PriorityShadow Priority = "shadow"
)

// Before reports whether p is done before q.
func (p Priority) Before(q Priority) bool { return p.rank() < q.rank() }

func (p Priority) rank() int {
	switch p {
	case PriorityBatch:
		return 1
	case PriorityShadow:
		return 2
	}
	return 0
}

// Origin says where the model's answer to a phrase came from.
type Origin string

// The origins of an answer.
const (
	// OriginModel answers were made for the request.
	OriginModel Origin = "model"
	// OriginShared answers were made for another request at the same time.
	OriginShared Origin = "shared"
	// OriginCache answers were made before.
	OriginCache Origin = "cache"
)

// Request asks for the masks of one picture.
type Request struct {
	// ID names the request in logs and answers.
	ID string
	// Image is an encoded picture (JPEG, PNG, WebP, GIF, BMP or TIFF) exactly as it came
	// from outside: nothing about it has been checked.
	Image []byte
	// Phrases holds at least one phrase; results keep their order.
	Phrases []Phrase
	// Variant forces a variant by name. When empty, Unit decides.
	Variant string
	// Unit selects the variant: the same unit gets the same variant as long as the
	// split stays the same.
	Unit string
	// Priority says which work is done first.
	Priority Priority
	// Size is the size of the masks.
	Size Size
	// Quality asks for Components and Stability of each result.
	Quality bool
}

// Result is what one phrase means.
type Result struct {
	PhraseID string
	// Phrase is the text of the phrase, as the request has it.
	Phrase string
	// Mask has the size that was asked for.
	Mask *Mask
	// Score is the mean foreground probability over the mask's foreground, in
	// [0, 1]; 0 for an empty mask. It is not calibrated.
	Score float64
	// Area counts the foreground pixels.
	Area int
	// Box encloses the foreground tightly.
	Box Box
	// Components counts the parts of the foreground that hang together by the
	// edges of pixels. Stability, in [0, 1], is how little the mask depends on
	// its threshold: the intersection over union of those for logits 1 above and
	// below; 1 for two empty ones. Both are 0 unless Request.Quality asks for
	// them.
	Components int
	Stability  float64
	// Tokens is how many tokens the phrase has, and Limit how many the model
	// reads, special tokens counted in both.
	Tokens, Limit int
	// Origin says where the model's answer came from. Only with OriginModel is the
	// time of the answer the model's time.
	Origin Origin
	// ModelTime is the phrase's part of the time that its batch kept a model
	// server busy, as measured in this process; 0 unless Origin is OriginModel.
	ModelTime time.Duration
}

// Empty reports whether nothing in the picture is meant by the phrase.
func (r *Result) Empty() bool { return r.Area == 0 }

// Truncated reports whether the end of the phrase was not read.
func (r *Result) Truncated() bool { return r.Tokens > r.Limit }

// Response answers a Request: one Result per phrase, in order.
type Response struct {
	// Width and Height are the size of the upright picture, MaskWidth and
	// MaskHeight the size of the masks.
	Width, Height         int
	MaskWidth, MaskHeight int
	// Model is the name of the ensemble that answered, Variant its short name,
	// Version the version the server reported and Checkpoint the SHA-256 of its
	// weights.
	Model, Variant, Version, Checkpoint string
	Results                             []Result
	Timings                             Timings
}

// Timings say where the time of a request went; they add up to about all of
// it.
type Timings struct {
	// Decode is how long decoding the picture took, waiting for its turn
	// included; 0 when nothing had to be decoded. Model is the rest of the time
	// until the model's last answer, its queue included. Mask is from then to
	// the last result.
	Decode, Model, Mask time.Duration
}

// Segmenter finds the masks of phrases in a picture.
//
// Segment returns an *Error for everything that the caller can act on
// (CodeInvalidImage, CodeImageTooLarge, CodeUnsupportedMedia, CodePhraseEmpty,
// CodePhraseTooLong, CodeInvalidRequest, CodeUnknownVariant, CodeNotReady,
// CodeUnavailable, CodeUpstream, CodeDeadlineExceeded, CodeOverloaded); any other
// error is a fault of the service. It keeps nothing of the request and changes nothing,
// so a failed call may be repeated. It is safe for concurrent use.
type Segmenter interface {
	Segment(ctx context.Context, req *Request) (*Response, error)
}
