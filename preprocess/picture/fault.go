package picture

import (
	"errors"
	"fmt"
)

// Kinds of a Fault.
var (
	ErrTruncated   = errors.New("unexpected end of data")
	ErrUnsupported = errors.New("unsupported feature")
	ErrTooLarge    = errors.New("beyond the limits")
)

// Fault is why a picture cannot be decoded, in words for the client. They go on
// from "The TIFF is broken: ". Of ErrTooLarge they are a whole sentence.
type Fault struct {
	kind error // one of the kinds above; nil for a broken picture
	text string
}

func (f *Fault) Error() string { return f.text }
func (f *Fault) Unwrap() error { return f.kind }

// Damaged is the fault of a picture that breaks the rules of its format.
func Damaged(format string, args ...any) error {
	return &Fault{nil, fmt.Sprintf(format, args...)}
}

// CutOff is the fault of a picture without its end.
func CutOff(format string, args ...any) error {
	return &Fault{ErrTruncated, fmt.Sprintf(format, args...)}
}

// Unsupported is the fault of a valid picture that no decoder here can read.
func Unsupported(format string, args ...any) error {
	return &Fault{ErrUnsupported, fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) error {
	return &Fault{ErrTooLarge, fmt.Sprintf(format, args...)}
}
