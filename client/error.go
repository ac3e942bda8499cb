package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// failure is a try that did not succeed. It also says whether another try may
// succeed.
type failure struct {
	err    *refersam.Error
	passes bool
}

// Error implements error.
func (f *failure) Error() string { return f.err.Error() }

// gone reports whether the resource of the request does not exist.
func (f *failure) gone() bool {
	return f.err.Code == refersam.CodeImageNotFound || f.err.Code == refersam.CodeJobNotFound
}

// problem converts the service's description of an error to an error of the domain.
func problem(p *api.Problem) *refersam.Error {
	e := &refersam.Error{Code: cmp.Or(p.Code, codeOf(p.Status)), Message: p.Detail, At: refersam.Named(p.Field), RequestID: p.RequestID}
	for i, fault := range p.Errors {
		name := fault.Field
		if fault.Pointer != "" {
			name = strings.TrimPrefix(fault.Pointer, "#")
			if pointer, err := url.PathUnescape(name); err == nil {
				name = pointer
			}
		}
		also := &refersam.Error{Code: e.Code, Message: fault.Detail, At: refersam.Named(name), RequestID: p.RequestID}
		if i > 0 || also.At != e.At {
			e.Also = append(e.Also, also)
		}
	}
	return e
}

// newFailure reads an answer that is not a success: a problem of the service, or
// only its status if a proxy has answered.
func newFailure(resp *http.Response, body []byte) *failure {
	var p api.Problem
	var e *refersam.Error
	if err := decode(body, &p); err == nil && p.Code != "" {
		e = problem(&p)
		e.Err = fmt.Errorf("status %d", resp.StatusCode)
	} else {
		e = unexplained(resp, body)
	}
	if e.RequestID == "" {
		e.RequestID = resp.Header.Get("X-Request-Id")
	}
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"))
	f := &failure{err: e}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusServiceUnavailable:
		f.passes = true
	case http.StatusTooManyRequests:
		f.passes = e.Code != refersam.CodeStorageFull // because the client must delete something first
	case http.StatusConflict:
		f.passes = e.Code == refersam.CodeUnderWay
	}
	return f
}

// codeOf returns the code that fits a status when nothing else is known.
func codeOf(status int) refersam.Code {
	switch status {
	case http.StatusUnauthorized:
		return refersam.CodeUnauthorized
	case http.StatusForbidden:
		return refersam.CodeForbidden
	case http.StatusNotFound:
		return refersam.CodeNotFound
	case http.StatusRequestTimeout:
		return refersam.CodeBodyTooSlow
	case http.StatusRequestEntityTooLarge:
		return refersam.CodeImageTooLarge
	case http.StatusTooManyRequests:
		return refersam.CodeQuotaExceeded
	case http.StatusServiceUnavailable:
		return refersam.CodeUnavailable
	case http.StatusGatewayTimeout:
		return refersam.CodeDeadlineExceeded
	default:
		return refersam.CodeUpstream
	}
}

// retryAfter reads a Retry-After (RFC 9110, section 10.2.3): seconds or a time.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(0, seconds), math.MaxInt32)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, time.Until(at)), math.MaxInt32*time.Second)
	}
	return 0
}

// ended returns the error of a call after its context has ended. last is the last
// error that the service reported, or nil.
func ended(ctx context.Context, last error) error {
	e := refersam.Errorf(refersam.CodeCancelled, "The context was cancelled before the answer arrived.")
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e = refersam.Errorf(refersam.CodeDeadlineExceeded, "The context's deadline passed before the answer arrived.")
	}
	e.Err = errors.Join(ctx.Err(), last)
	return e
}
