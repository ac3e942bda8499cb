package answer

import (
	"errors"

	"github.com/refersam/refersam"
)

// translate renames the fields of an error from the parts of a refersam.Request
// to the client's names.
func translate(err error, field func(string) string) error {
	var e *refersam.Error
	if !errors.As(err, &e) || e.Field == "" {
		return err
	}
	translated := *e
	translated.Field = field(e.Field)
	translated.Also = make([]*refersam.Error, len(e.Also))
	for i, other := range e.Also {
		also := *other
		also.Field = field(other.Field)
		translated.Also[i] = &also
	}
	return &translated
}

// placed names the field of an error about a picture, unless the error is about
// the service.
func placed(field string, err error) error {
	switch refersam.ErrorCode(err) {
	case refersam.CodeImageNotFound, refersam.CodeImageTooLarge, refersam.CodeUnsupportedMedia, refersam.CodeFetchRefused, refersam.CodeFetchFailed:
		var e *refersam.Error
		if errors.As(err, &e) {
			named := *e
			named.Field = field
			return &named
		}
	}
	return err
}
