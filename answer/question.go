package answer

import (
	"slices"
	"strings"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// Caller identifies the client that asks.
type Caller struct {
	RequestID string
	// Account is the API key that the usage is counted for, or an anonymous one.
	Account string
	// FairnessKey is the client among which scarce capacity is shared evenly: the
	// API key or, without authentication, the address.
	FairnessKey string
	// Unit is the experimental unit: equal units get the same variant.
	Unit string
}

// Question asks for the masks of one picture. Its values have been checked.
type Question struct {
	Source  Source
	Prompts []Prompt
	Variant string
	// Size is the size of the masks.
	Size refersam.Size
	// Overlay is the kind of file that overlays are: api.OverlayPNG or
	// api.OverlayJPEG.
	Overlay string
	// Quality asks for components and stability of each result.
	Quality  bool
	Priority refersam.Priority
	Naming   Naming
}

// Prompt is a phrase and the formats of its mask.
type Prompt struct {
	refersam.Phrase
	// Formats holds at least one format, and none twice.
	Formats []string
	// Chosen reports that the client named the formats.
	Chosen bool
	// Tolerance is how far a simplified polygon may be from the mask, in pixels.
	Tolerance float64
}

// Source is where the picture of a question comes from: a stored image (ID), an
// address (URL), an object that was stored for a job (Object), or else Data.
type Source struct {
	ID, URL string
	// Object is the name of an object of Bytes bytes.
	Object string
	Bytes  int64
	Data   []byte
	// Field is the client's name for the picture.
	Field string
}

// Naming says in what form the client wrote its request. An error uses it to name a
// part of the request: a field of a form, or a member below a place in JSON. Jobs
// store it.
type Naming struct {
	Form bool
	At   string
}

// name returns the client's name for a part of a refersam.Request other than
// the picture.
func (n Naming) name(pointer string) string {
	switch {
	case n.Form:
		return formField(pointer)
	case pointer == "/variant":
		return pointer // one form field for all items of a batch
	}
	return n.At + jsonField(pointer)
}

// Field returns the client's name for a part of a refersam.Request.
func (q *Question) Field(pointer string) string {
	if pointer == "/image" {
		return q.Source.Field
	}
	return q.Naming.name(pointer)
}

// Wants reports whether any prompt asks for a format.
func (q *Question) Wants(format string) bool {
	return slices.ContainsFunc(q.Prompts, func(p Prompt) bool { return slices.Contains(p.Formats, format) })
}

// OnlyPNG prepares a question for an answer that is a single PNG: it must have one
// prompt with one format, and the format must be a PNG.
func (q *Question) OnlyPNG() error {
	if len(q.Prompts) != 1 {
		return refersam.Invalidf(q.Field("/phrases"), "A PNG shows the mask of exactly one phrase, but the request has %d; "+
			"accept %s to get several, or %s and ask for the format %q.", len(q.Prompts), api.MediaZip, api.MediaJSON, api.FormatPNG)
	}
	p := &q.Prompts[0]
	if !p.Chosen {
		p.Formats = []string{api.FormatPNG}
	}
	if len(p.Formats) != 1 || mediaOf(p.Formats[0], q.Overlay) != api.MediaPNG {
		return refersam.Invalidf(q.Field("/formats"), "A PNG answer has exactly one format, which must be a PNG; leave it out for the mask.")
	}
	return nil
}

// request converts the question to the segmenter's type, without Encode.
func (q *Question) request(who Caller, pic *Picture) *refersam.Request {
	req := &refersam.Request{
		ID:       who.RequestID,
		Image:    pic.Content,
		Digest:   &pic.Digest,
		Phrases:  make([]refersam.Phrase, len(q.Prompts)),
		Variant:  q.Variant,
		Unit:     who.Unit,
		Priority: q.Priority,
		Key:      who.FairnessKey,
		Size:     q.Size,
		Quality:  q.Quality,
		Picture:  q.Wants(api.FormatOverlay),
	}
	for i := range q.Prompts {
		req.Phrases[i] = q.Prompts[i].Phrase
	}
	if req.Picture || q.Wants(api.FormatProbability) {
		req.EncodeWeight = encodeWeight
	}
	return req
}

// jsonField returns the member of a body for a pointer into a refersam.Request.
func jsonField(pointer string) string {
	switch {
	case pointer == "/phrases":
		return "/prompts"
	case pointer == "/formats":
		return "/output/formats"
	case strings.HasPrefix(pointer, "/phrases/"):
		pointer = "/prompts" + strings.TrimPrefix(pointer, "/phrases")
		if !strings.HasSuffix(pointer, "/threshold") {
			pointer += "/text"
		}
	}
	return pointer
}

// formField returns the form field for a pointer into a refersam.Request.
func formField(pointer string) string {
	name, rest, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	switch {
	case name == "phrases" && strings.HasSuffix(rest, "/threshold"):
		return "threshold"
	case name == "phrases":
		return "phrase"
	case name == "formats":
		return "format"
	default:
		return name
	}
}
