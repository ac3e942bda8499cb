package preprocess

import (
	"errors"
	"fmt"
)

var (
	errTruncated   = errors.New("unexpected end of data")
	errUnsupported = errors.New("unsupported feature")
)

// fault is why a picture cannot be decoded, in words for the client. They go
// on from "The TIFF is broken: ".
type fault struct {
	kind error // errTruncated, errUnsupported, or nil for what is broken
	text string
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

// damaged is the fault of a picture that breaks the rules of its format.
func damaged(format string, args ...any) error {
	return &fault{nil, fmt.Sprintf(format, args...)}
}

// cutOff is the fault of a picture without its end.
func cutOff(format string, args ...any) error {
	return &fault{errTruncated, fmt.Sprintf(format, args...)}
}

// unsupported is the fault of a valid picture that no decoder here can read.
func unsupported(format string, args ...any) error {
	return &fault{errUnsupported, fmt.Sprintf(format, args...)}
}
