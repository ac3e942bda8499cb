// Package client uses a refersam service over HTTP. A Client is a
// refersam.Segmenter, so what works with the pipeline works with a service; it
// also keeps pictures there and has work done as jobs.
//
// Errors that the service tells are a *refersam.Error with its code. What may
// pass (too much to do, not ready, a quota, a connection that broke) is tried
// again, as long as ctx allows and as the service says when; so give ctx a
// deadline, which the service is told.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
)

const (
	// maxAttempts is how often a request is sent.
	maxAttempts = 6
	// firstPause is how long to wait after the first try, if the service does not
	// say; it doubles with each.
	firstPause = 250 * time.Millisecond
	// maxAnswer bounds what is read of an answer, in bytes: 64 MB of masks in
	// base64, and what is said about them.
	maxAnswer = 96 << 20
)

// Client is a service. Make one with New. It is safe for concurrent use.
type Client struct {
	base *url.URL
	key  string
	http *http.Client
}

// Option changes a Client.
type Option func(*Client)

// WithKey has a Client show an API key.
func WithKey(key string) Option { return func(c *Client) { c.key = key } }

// WithHTTPClient has a Client send through h in the place of
// http.DefaultClient.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// New makes a Client of the service at an address, as https://masks.example.com.
func New(address string, options ...Option) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a service, as https://masks.example.com", address)
	}
	c := &Client{base: base, http: http.DefaultClient}
	for _, option := range options {
		option(c)
	}
	return c, nil
}

// call is a request as it is sent, each time it is tried.
type call struct {
	method, path string
	header       http.Header
	mediaType    string
	body         []byte
}

// do sends a call until it is answered for good, and decodes JSON into v unless
// that is nil.
func (c *Client) do(ctx context.Context, r call, v any) error {
	body, err := c.send(ctx, r)
	if err != nil || v == nil {
		return err
	}
	if err := json.Unmarshal(body, v, json.MatchCaseInsensitiveNames(true)); err != nil {
		return fmt.Errorf("the service's answer to %s %s: %w", r.method, r.path, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, r call) (body []byte, err error) {
	for attempt := 1; ; attempt++ {
		var pause time.Duration
		body, pause, err = c.try(ctx, r)
		if err == nil || pause < 0 || attempt == maxAttempts {
			return body, err
		}
		if pause == 0 {
			pause = firstPause << (attempt - 1)
		}
		pause += mrand.N(pause)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// never is the pause after what is not to be tried again.
const never = -1

// try sends a call once. pause is how long to wait before the next try: 0 for
// who asks to choose, negative if there is to be none.
func (c *Client) try(ctx context.Context, r call) (body []byte, pause time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, r.method, c.base.JoinPath(r.path).String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, never, err
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	if r.mediaType != "" {
		req.Header.Set("Content-Type", r.mediaType)
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, never, ctx.Err()
		}
		return nil, 0, &refersam.Error{Code: refersam.CodeUnavailable, Message: "The service cannot be reached.", Err: err}
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, never, ctx.Err()
	case err != nil:
		return nil, 0, &refersam.Error{Code: refersam.CodeUnavailable, Message: "The service's answer was cut off.", Err: err}
	case len(body) > maxAnswer:
		return nil, never, fmt.Errorf("the service's answer is larger than %d bytes", maxAnswer)
	case resp.StatusCode/100 == 2:
		return body, 0, nil
	}
	problem := newError(resp, body)
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway:
		return nil, problem.RetryAfter, problem
	case http.StatusConflict:
		if problem.Code == refersam.CodeUnderWay {
			return nil, problem.RetryAfter, problem
		}
	}
	return nil, never, problem
}

// newError is what an answer that is no success tells.
func newError(resp *http.Response, body []byte) *refersam.Error {
	var p struct {
		Code      refersam.Code `json:"code"`
		Detail    string        `json:"detail"`
		Field     string        `json:"field"`
		RequestID string        `json:"request_id"`
	}
	err := json.Unmarshal(body, &p)
	if err != nil || p.Code == "" {
		return &refersam.Error{Code: refersam.CodeUpstream, Message: fmt.Sprintf("The answer has status %d and does not say why.", resp.StatusCode)}
	}
	e := &refersam.Error{Code: p.Code, Message: p.Detail, Field: p.Field, Err: fmt.Errorf("status %d, request %s", resp.StatusCode, p.RequestID)}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds < math.MaxInt32 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}

// newKey names a request that is to be done once, however often it is sent.
func newKey() string { return rand.Text() }
