package answer

import (
	"errors"

	"github.com/refersam/refersam"
)

// Naming says in what form the client wrote its request, so that errors name the
// parts of the request as the client does: as a field of a form, or as a member
// below a place in JSON. Jobs store it.
type Naming struct {
	Form bool
	At   string
}

// Name returns the client's name for a part of its request.
func (n Naming) Name(p refersam.Place) string {
	if n.Form {
		return p.String()
	}
	return p.Pointer(n.At)
}

// Name returns the client's name for a part of the question.
func (q *Question) Name(p refersam.Place) string {
	if p == refersam.AtImage {
		return q.Source.Field
	}
	return q.Naming.Name(p)
}

// name is Question.Name for a picture without a question.
func (s *Source) name(p refersam.Place) string {
	if p == refersam.AtImage {
		return s.Field
	}
	return p.String()
}

// at gives an error its place.
func at(place refersam.Place, err error) error {
	var e *refersam.Error
	if !errors.As(err, &e) {
		return err
	}
	placed := *e
	placed.At = place
	return &placed
}

// inImage is at for an error of bringing a picture. An error of the service has no
// place.
func inImage(err error) error {
	switch refersam.ErrorCode(err) {
	case refersam.CodeImageNotFound, refersam.CodeImageTooLarge, refersam.CodeUnsupportedMedia, refersam.CodeFetchRefused, refersam.CodeFetchFailed:
		return at(refersam.AtImage, err)
	}
	return err
}
