package refersam

import (
	"errors"
	"fmt"
)

// Place is the part of a request that an Error is about. Packages that do not know
// how the client wrote its request use the parts below. Rename replaces them once,
// where the client is known, by the client's names. The zero Place is no part.
type Place struct {
	part part
	// index is the index of a phrase.
	index int
	// name is the client's name, if part is partNamed.
	name string
}

type part int

const (
	partNamed part = iota
	partImage
	partPhrases
	partPhrase
	partThreshold
	partFormats
	partVariant
	partWebhook
)

// The parts of a request that there is one of.
var (
	AtImage   = Place{part: partImage}
	AtPhrases = Place{part: partPhrases}
	AtFormats = Place{part: partFormats}
	AtVariant = Place{part: partVariant}
	// AtWebhook is the address that receives the end of a job.
	AtWebhook = Place{part: partWebhook}
)

// AtPhrase is the text of the i-th phrase.
func AtPhrase(i int) Place { return Place{part: partPhrase, index: i} }

// AtThreshold is the threshold of the i-th phrase.
func AtThreshold(i int) Place { return Place{part: partThreshold, index: i} }

// Named is a part by the name that the client uses for it: a form field
// ("phrase"), a JSON pointer ("/prompts/0/text"), a parameter or a header. The
// empty name is no part.
func Named(name string) Place { return Place{name: name} }

// Equal reports whether both are the same part. Packages that compare values field
// by field need it.
func (p Place) Equal(q Place) bool { return p == q }

// String is the client's name of a Place that has one, else its form field.
func (p Place) String() string {
	switch p.part {
	case partImage:
		return "image"
	case partPhrases, partPhrase:
		return "phrase"
	case partThreshold:
		return "threshold"
	case partFormats:
		return "format"
	case partVariant:
		return "variant"
	case partWebhook:
		return "webhook"
	}
	return p.name
}

// Pointer is the JSON pointer of a Place in a request that has the members of one
// picture at prefix. The variant and the webhook belong to the whole request, and
// a Place with a name keeps it.
func (p Place) Pointer(prefix string) string {
	switch p.part {
	case partImage:
		return prefix + "/image"
	case partPhrases:
		return prefix + "/prompts"
	case partPhrase:
		return fmt.Sprintf("%s/prompts/%d/text", prefix, p.index)
	case partThreshold:
		return fmt.Sprintf("%s/prompts/%d/threshold", prefix, p.index)
	case partFormats:
		return prefix + "/output/formats"
	case partVariant:
		return "/variant"
	case partWebhook:
		return "/webhook/url"
	}
	return p.name
}

// Rename returns err with the client's names for the places of its Error and of
// the faults beside it. An error without places stays as it is.
func Rename(err error, name func(Place) string) error {
	var e *Error
	if !errors.As(err, &e) || e.At == (Place{}) {
		return err
	}
	renamed := *e
	renamed.At = Named(name(e.At))
	renamed.Also = make([]*Error, len(e.Also))
	for i, also := range e.Also {
		other := *also
		if also.At != (Place{}) {
			other.At = Named(name(also.At))
		}
		renamed.Also[i] = &other
	}
	return &renamed
}
