package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/refersam/refersam"
	"golang.org/x/net/http/httpguts"
)

const (
	// Without a deadline of the context, a request is sent at most maxTries times,
	// and maxPatience is the longest Retry-After that the Client waits for.
	maxTries    = 6
	maxPatience = time.Minute
	// firstPause is how long to wait after the first try. The pause doubles with
	// each try, up to maxPause.
	firstPause = 250 * time.Millisecond
	maxPause   = 10 * time.Second
	// maxJitter bounds the random part of a pause.
	maxJitter = 2 * time.Second
	// maxAnswer bounds an answer, in bytes: 64 MB of masks in base64, and the rest
	// of the JSON.
	maxAnswer = 96 << 20

	mediaJSON  = "application/json"
	mediaBytes = "application/octet-stream"
)

// call is a request.
type call struct {
	method string
	// path is relative to the service's address, with each element escaped.
	path  string
	query url.Values
	// header is sent with every try.
	header    http.Header
	mediaType string
	// body is called at each try and returns the body to send; nil sends none.
	body func() ([]byte, error)
	// stream makes send leave the body of the answer for the caller to read.
	stream bool
}

// constant returns a call's body that is the same at each try. A call with an
// Idempotency-Key must use it.
func constant(body []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return body, nil }
}

// answer is a success. If the call asks for a stream, the answer has a stream
// instead of a body, and the caller must close it.
type answer struct {
	to     string // such as GET v1/models
	status int
	header http.Header
	body   []byte
	stream io.ReadCloser
}

// stream is a body. Closing it ends its request.
type stream struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (s stream) Close() error {
	defer s.cancel()
	return s.ReadCloser.Close()
}

// mediaType is the media type of the body, such as application/json; "" if the
// header names none.
func (a *answer) mediaType() string {
	mediaType, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return mediaType
}

func (a *answer) requestID() string { return a.header.Get("X-Request-Id") }

// unreadable returns the error for an answer that is not one of the service's, and
// would not be one at another try.
func (a *answer) unreadable(cause error) error {
	return &refersam.Error{
		Code:      refersam.CodeUpstream,
		Message:   "The answer is not from a refersam service, or cannot be read; check the address and any proxy before the service.",
		RequestID: a.requestID(),
		Err:       fmt.Errorf("%s was answered with %q: %w", a.to, a.header.Get("Content-Type"), cause),
	}
}

// get sends a call and decodes the JSON of its answer.
func get[T any](ctx context.Context, c *Client, r call) (*T, error) {
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	return parse[T](a)
}

// parse decodes an answer that is JSON.
func parse[T any](a *answer) (*T, error) {
	v := new(T)
	if err := decode(a.body, v); err != nil {
		return nil, a.unreadable(err)
	}
	return v, nil
}

// delete deletes the resource at a path.
func (t *transport) delete(ctx context.Context, path string) error {
	a, err := t.send(ctx, call{method: http.MethodDelete, path: path})
	if err == nil && a.status != http.StatusNoContent {
		return a.unreadable(fmt.Errorf("the status is %d, want 204", a.status))
	}
	return err
}

// send repeats a call until it succeeds or cannot succeed any more.
func (t *transport) send(ctx context.Context, r call) (*answer, error) {
	if !fs.ValidPath(r.path) {
		return nil, refersam.Errorf(refersam.CodeInvalidRequest, "The id is empty or not valid; give an id that the service returned.")
	}
	var last error
	var unsure bool // whether a failed try may have had its effect
	for try := 1; ; try++ {
		a, err := t.try(ctx, r)
		var f *failure
		switch {
		case err == nil:
			return a, nil
		case !errors.As(err, &f):
			if ctx.Err() != nil {
				return nil, ended(ctx, last)
			}
			return nil, err
		case r.method == http.MethodDelete && unsure && f.gone():
			return &answer{status: http.StatusNoContent}, nil // an earlier try did it, and its answer was lost
		case !f.passes:
			return nil, f.err
		}
		last = f.err
		unsure = unsure || f.err.Code == refersam.CodeUnavailable || f.err.Code == refersam.CodeUpstream
		deadline, bounded := ctx.Deadline()
		if !bounded && (try == maxTries || f.err.RetryAfter > maxPatience) {
			return nil, last
		}
		pause := pauseAfter(try, f.err.RetryAfter)
		if bounded && time.Until(deadline) < pause {
			return nil, last
		}
		if err := sleep(ctx, pause, last); err != nil {
			return nil, err
		}
	}
}

// pauseAfter is how long to wait after a number of failed tries in a row. It is
// never less than least.
func pauseAfter(tries int, least time.Duration) time.Duration {
	pause := max(min(firstPause<<min(tries-1, 16), maxPause), least)
	return pause + rand.N(min(pause/4, maxJitter))
}

// sleep blocks for a time, or until ctx ends. last is the last error that the
// service reported.
func sleep(ctx context.Context, pause time.Duration, last error) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ended(ctx, last)
	case <-timer.C:
		return nil
	}
}

// try sends a call once. Its error is a *failure if the service, or the network
// between, is at fault.
func (t *transport) try(ctx context.Context, r call) (*answer, error) {
	req, err := t.request(ctx, r)
	if err != nil {
		return nil, err
	}
	cancel := func() {}
	if r.stream {
		// The timer also bounds an answer that does not begin.
		var silence context.Context
		silence, cancel = context.WithCancel(ctx)
		defer time.AfterFunc(maxSilence, cancel).Stop()
		req = req.WithContext(silence)
	}
	resp, err := t.http.Do(req)
	if err != nil {
		cancel()
	}
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		var untrusted *tls.CertificateVerificationError
		message := "The service cannot be reached; check its address and that it is running."
		if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			message = fmt.Sprintf("The connection was closed before the answer to the request of %d bytes arrived; "+
				"check that the service is running, and how large a request a proxy before it accepts.", req.ContentLength)
		}
		return nil, &failure{
			err:    &refersam.Error{Code: refersam.CodeUnavailable, Message: message, Err: err},
			passes: !errors.As(err, &untrusted),
		}
	}
	a := &answer{to: r.method + " " + r.path, status: resp.StatusCode, header: resp.Header}
	success := resp.StatusCode/100 == 2
	if success && r.stream {
		a.stream = stream{resp.Body, cancel}
		return a, nil
	}
	defer cancel()
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		e := &refersam.Error{Code: refersam.CodeUnavailable, Message: "The service's answer was cut off.", Err: err}
		return nil, &failure{err: e, passes: true}
	case !success:
		return nil, newFailure(resp, body)
	case len(body) > maxAnswer:
		return nil, a.unreadable(fmt.Errorf("the answer is larger than %d bytes", maxAnswer))
	}
	a.body = body
	return a, nil
}

// request builds the HTTP request of one try.
func (t *transport) request(ctx context.Context, r call) (*http.Request, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = r.body(); err != nil {
			return nil, err
		}
	}
	address := t.base.JoinPath(r.path)
	address.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, address.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	req.Header.Set("User-Agent", "refersam-go")
	if r.mediaType != "" {
		req.Header.Set("Content-Type", r.mediaType)
	}
	if t.key != "" {
		req.Header.Set("Authorization", "Bearer "+t.key)
	}
	if id, ok := ctx.Value(requestIDKey{}).(string); ok && id != "" {
		req.Header.Set("X-Request-Id", id)
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldValue(values[0]) { // the message must not quote it, because it may be a secret
			return nil, refersam.Errorf(refersam.CodeInvalidRequest, "The value of %s contains control characters; remove them.", name)
		}
	}
	if key, named := req.Header[headerIdempotencyKey]; named && !idempotencyForm.MatchString(key[0]) {
		return nil, refersam.Errorf(refersam.CodeInvalidRequest, "The %s must have 1 to 255 visible ASCII characters without quotes, such as a UUID.", headerIdempotencyKey)
	}
	return req, nil
}
