package answer

import (
	"slices"

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
	// Drawn reports that Variant was drawn for the caller's unit when its job was
	// accepted. Otherwise the client has named it, unless it is empty.
	Drawn bool
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

// Wants reports whether any prompt asks for a format.
func (q *Question) Wants(format string) bool {
	return slices.ContainsFunc(q.Prompts, func(p Prompt) bool { return slices.Contains(p.Formats, format) })
}

// OnlyPNG prepares a question for an answer that is a single PNG: it must have one
// prompt with one format, and the format must be a PNG.
func (q *Question) OnlyPNG() error {
	if len(q.Prompts) != 1 {
		return refersam.Invalidf(q.Name(refersam.AtPhrases), "A PNG shows the mask of exactly one phrase, but the request has %d; "+
			"accept %s to get several, or %s and ask for the format %q.", len(q.Prompts), api.MediaZip, api.MediaJSON, api.FormatPNG)
	}
	p := &q.Prompts[0]
	if !p.Chosen {
		p.Formats = []string{api.FormatPNG}
	}
	if len(p.Formats) != 1 || mediaOf(p.Formats[0], q.Overlay) != api.MediaPNG {
		return refersam.Invalidf(q.Name(refersam.AtFormats), "A PNG answer has exactly one format, which must be a PNG; leave it out for the mask.")
	}
	return nil
}

// request converts the question to the segmenter's type, without its variant.
func (q *Question) request(who Caller, image []byte) *refersam.Request {
	req := &refersam.Request{
		ID:       who.RequestID,
		Image:    image,
		Phrases:  make([]refersam.Phrase, len(q.Prompts)),
		Unit:     who.Unit,
		Priority: q.Priority,
		Size:     q.Size,
		Quality:  q.Quality,
	}
	for i := range q.Prompts {
		req.Phrases[i] = q.Prompts[i].Phrase
	}
	return req
}
