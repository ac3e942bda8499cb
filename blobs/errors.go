package blobs

import (
	"context"
	"errors"

	"github.com/refersam/refersam"
)

// Unavailable returns the error that a client gets when the object store did not
// answer: refersam.CodeDeadlineExceeded if the request's own deadline passed
// while it waited, else refersam.CodeUnavailable. The cause is kept for the log.
func Unavailable(cause error) error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return &refersam.Error{Code: refersam.CodeDeadlineExceeded, Message: "The request could not be answered in time.", Err: cause}
	}
	return &refersam.Error{Code: refersam.CodeUnavailable, Message: "The storage of the service is not available; retry shortly.", Err: cause}
}
