package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
	"golang.org/x/net/http/httpguts"
)

const (
	// maxTries is how often a request is sent, and maxPatience the longest
	// Retry-After that is waited for, if its context has no deadline.
	maxTries    = 6
	maxPatience = time.Minute
	// firstPause is how long to wait after the first try; it doubles with each,
	// up to maxPause.
	firstPause = 250 * time.Millisecond
	maxPause   = 10 * time.Second
	// maxJitter bounds what chance adds to a pause.
	maxJitter = 2 * time.Second
	// maxAnswer bounds what is read of an answer, in bytes: 64 MB of masks in
	// base64, and what is said about them.
	maxAnswer = 96 << 20

	mediaJSON  = "application/json"
	mediaBytes = "application/octet-stream"
)

// call is a request.
type call struct {
	method string
	// path is relative to the service's address, each element escaped.
	path  string
	query url.Values
	// header is sent with every try.
	header    http.Header
	mediaType string
	// body is asked at each try for what to send then; nil is nothing.
	body func() ([]byte, error)
	// stream leaves the body of an answer to be read by the caller.
	stream bool
}

// constant is a call's body that is the same at each try, as it must be with
// an Idempotency-Key.
func constant(body []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return body, nil }
}

// once is the header of a request that is to be done once, however often it is
// sent.
func once() http.Header { return http.Header{"Idempotency-Key": {rand.Text()}} }

// answer is a success. It has a stream, which must be closed, in the place of a
// body if the call asks for that.
type answer struct {
	status int
	body   []byte
	stream io.ReadCloser
}

// stream is a body whose request ends when it is closed.
type stream struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (s stream) Close() error {
	defer s.cancel()
	return s.ReadCloser.Close()
}

// get sends a call and decodes the JSON that is answered.
func get[T any](ctx context.Context, c *Client, r call) (*T, error) {
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := decode(a.body, v); err != nil {
		return nil, fmt.Errorf("the service's answer to %s %s: %w", r.method, r.path, err)
	}
	return v, nil
}

func decode(data []byte, v any) error {
	return json.Unmarshal(data, v, json.MatchCaseInsensitiveNames(true))
}

// list goes through the pages of a list; name is that of its member.
func list[T any](ctx context.Context, c *Client, path, name string, query url.Values) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		at := url.Values{"limit": {"100"}}
		maps.Copy(at, query)
		for {
			page, err := get[map[string]jsontext.Value](ctx, c, call{method: http.MethodGet, path: path, query: at})
			if err != nil {
				yield(nil, err)
				return
			}
			var entries []*T
			if err := decode((*page)[name], &entries); err != nil {
				yield(nil, fmt.Errorf("the service's answer to GET %s: %w", path, err))
				return
			}
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
			after, more := (*page)["next"]
			if !more {
				return
			}
			var next string
			if err := decode(after, &next); err != nil {
				yield(nil, fmt.Errorf("the service's answer to GET %s: %w", path, err))
				return
			}
			if next == "" {
				return
			}
			at.Set("cursor", next)
		}
	}
}

// send sends a call until it is answered for good.
func (c *Client) send(ctx context.Context, r call) (*answer, error) {
	if !fs.ValidPath(r.path) {
		return nil, refersam.Errorf(refersam.CodeInvalidRequest, "An id is empty, or is not one.")
	}
	var last error
	var unsure bool // whether a try that has failed may have done what it was to do
	for try := 1; ; try++ {
		a, err := c.try(ctx, r)
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
			return &answer{status: http.StatusNoContent}, nil // by a try whose answer was lost
		case !f.passes:
			return nil, f.err
		}
		last = f.err
		unsure = unsure || f.err.Code == refersam.CodeUnavailable || f.err.Code == refersam.CodeUpstream
		pause := max(min(firstPause<<min(try-1, 16), maxPause), f.err.RetryAfter)
		deadline, bounded := ctx.Deadline()
		if !bounded && (try == maxTries || f.err.RetryAfter > maxPatience) {
			return nil, last
		}
		pause += mrand.N(min(pause/4, maxJitter))
		if bounded && time.Until(deadline) < pause {
			return nil, last
		}
		if err := sleep(ctx, pause, last); err != nil {
			return nil, err
		}
	}
}

// sleep waits, unless ctx ends; last is what the service said before.
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

// try sends a call once. Its error is a *failure if the service, or the way to
// it, is at fault.
func (c *Client) try(ctx context.Context, r call) (*answer, error) {
	req, err := c.request(ctx, r)
	if err != nil {
		return nil, err
	}
	cancel := func() {}
	if r.stream {
		// An answer that does not begin is as silent as one that does not go on.
		var silence context.Context
		silence, cancel = context.WithCancel(ctx)
		defer time.AfterFunc(maxSilence, cancel).Stop()
		req = req.WithContext(silence)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		cancel()
	}
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		var untrusted *tls.CertificateVerificationError
		return nil, &failure{
			err:    &refersam.Error{Code: refersam.CodeUnavailable, Message: "The service cannot be reached.", Err: err},
			passes: !errors.As(err, &untrusted),
		}
	}
	success := resp.StatusCode/100 == 2
	if success && r.stream {
		return &answer{status: resp.StatusCode, stream: stream{resp.Body, cancel}}, nil
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
		return nil, fmt.Errorf("the service's answer is larger than %d bytes", maxAnswer)
	}
	return &answer{status: resp.StatusCode, body: body}, nil
}

// request writes a call for one try.
func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = r.body(); err != nil {
			return nil, err
		}
	}
	address := c.base.JoinPath(r.path)
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
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if id, ok := ctx.Value(requestIDKey{}).(string); ok && id != "" {
		req.Header.Set("X-Request-Id", id)
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldValue(values[0]) { // which may be a secret
			return nil, refersam.Errorf(refersam.CodeInvalidRequest, "The value of %s cannot be sent: it has control characters.", name)
		}
	}
	return req, nil
}
