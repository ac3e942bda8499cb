package refersam

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Code is the stable, machine-readable name of what went wrong.
type Code string

// The codes a client can meet. Their spelling is part of the API.
const (
	CodeMalformedRequest Code = "malformed_request"
	CodeInvalidRequest   Code = "invalid_request"
	CodeInvalidImage     Code = "invalid_image"
	CodeImageTooLarge    Code = "image_too_large"
	CodeBodyTooSlow      Code = "body_too_slow"
	CodeUnsupportedMedia Code = "unsupported_media_type"
	CodePhraseEmpty      Code = "phrase_empty"
	CodePhraseTooLong    Code = "phrase_too_long"
	CodeUnknownVariant   Code = "unknown_model"
	CodeJobNotFound      Code = "job_not_found"
	CodeUnfinished       Code = "job_unfinished"
	CodeItemFailed       Code = "item_failed"
	CodeCancelled        Code = "cancelled"
	CodeFetchRefused     Code = "fetch_refused"
	CodeFetchFailed      Code = "fetch_failed"
	CodeImageNotFound    Code = "image_not_found"
	CodeNotFound         Code = "not_found"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeNotAcceptable    Code = "not_acceptable"
	CodeUnauthorized     Code = "unauthorized"
	CodeForbidden        Code = "forbidden"
	CodeQuotaExceeded    Code = "quota_exceeded"
	CodeStorageFull      Code = "storage_full"
	CodeUnderWay         Code = "request_under_way"
	CodeKeyReused        Code = "idempotency_key_reused"
	CodeOverloaded       Code = "overloaded"
	CodeNotReady         Code = "not_ready"
	CodeUnavailable      Code = "upstream_unavailable"
	CodeUpstream         Code = "upstream_failed"
	CodeDeadlineExceeded Code = "deadline_exceeded"
	CodeInternal         Code = "internal"
)

// Error is an error that a client may be shown.
type Error struct {
	Code Code
	// Message says what is wrong and what to do about it. It never holds
	// secrets, addresses or file names of the server.
	Message string
	// At is the part of the request at fault; the zero Place when none is.
	At Place
	// RetryAfter is when to try again, for CodeOverloaded, CodeQuotaExceeded,
	// CodeUnderWay and CodeUnfinished; 0 when nobody knows.
	RetryAfter time.Duration
	// Also are further faults of the same request, so that a client can mend all
	// of them at once.
	Also []*Error
	// RequestID is the id of the failed request in the service's log, so that
	// clients can report it. It is empty inside the service.
	RequestID string
	// Err is the cause. It is logged, never shown.
	Err error
}

// Error returns all that is known, the cause too, for logs.
func (e *Error) Error() string {
	s := string(e.Code) + ": " + e.Message
	if e.At != (Place{}) {
		s += " (" + e.At.String() + ")"
	}
	if e.RequestID != "" {
		s += " [request " + e.RequestID + "]"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error without place or cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalidf makes an Error with CodeInvalidRequest about the part of a request that
// the client calls name.
func Invalidf(name, format string, args ...any) *Error {
	return &Error{Code: CodeInvalidRequest, Message: fmt.Sprintf(format, args...), At: Named(name)}
}

// Late makes the Error for a request that missed its deadline.
func Late(cause error) *Error {
	return &Error{Code: CodeDeadlineExceeded, Message: "The request could not be answered in time.", Err: cause}
}

// Unavailable makes the Error for a part of the service that did not answer: Late
// if the request's own deadline passed while it waited, else CodeUnavailable with
// the message.
func Unavailable(message string, cause error) *Error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return Late(cause)
	}
	return &Error{Code: CodeUnavailable, Message: message, Err: cause}
}

// ErrorCode returns the code of err: "" for nil and CodeInternal for errors
// that are not an *Error.
func ErrorCode(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	default:
		return CodeInternal
	}
}

// MaxFaults bounds how many faults of a request are reported at once.
const MaxFaults = 32

// Faults collects what is wrong with a request, up to MaxFaults. The zero value
// has none.
type Faults struct{ all []*Error }

// Add adds err, with what is wrong also; nil adds nothing.
func (f *Faults) Add(err error) {
	if err == nil {
		return
	}
	var domainErr *Error
	if !errors.As(err, &domainErr) {
		domainErr = &Error{Code: CodeInternal, Message: "Something went wrong inside the service.", Err: err}
	}
	f.all = append(append(f.all, domainErr), domainErr.Also...)
	f.all = f.all[:min(len(f.all), MaxFaults)]
}

// Err is nil without faults, else the first, with the others beside it.
func (f *Faults) Err() error {
	if len(f.all) == 0 {
		return nil
	}
	first := *f.all[0]
	first.Also = f.all[1:]
	return &first
}
