// Package client uses a refersam service over HTTP. A Client is a
// refersam.Segmenter, so what works with the pipeline works with a service; it
// also asks about several pictures at once, keeps pictures there, and has work
// done as jobs.
//
// # Errors
//
// Every error of a call is a *refersam.Error. That which the service tells has
// its code, and the id under which the service has logged the request. A refusal
// that is not the service's, as of a proxy, has the code that fits its status,
// and a success that cannot be read, or is of something else than what was asked
// for, is CodeUpstream. A service that cannot be reached is CodeUnavailable. If
// the context ends first, the code is CodeDeadlineExceeded or CodeCancelled, and
// the error wraps ctx.Err() and what the service said last. Text that is not
// UTF-8, a number that is not finite, and what cannot be in a header or a path
// are CodeInvalidRequest, and are not sent.
//
// # Retries
//
// What may pass is tried again: answers with the status 408, 429 (but not
// CodeStorageFull), 502 or 503, 409 with CodeUnderWay, and connections that
// broke. The pause is 250 ms, doubles with each try up to 10 s, is never shorter
// than Retry-After says, and is stretched by chance by up to a quarter, at most
// 2 s. The deadline of the
// context is the bound: if the next pause would pass it, the last error is
// returned at once. So give contexts a deadline; the service is told, at each
// try, how much of it is left. Without one there are six tries, and none after
// a Retry-After of more than a minute.
//
// What stores something is sent with an Idempotency-Key, so that it is done
// once, however often it must be sent. WithIdempotencyKey sets one that outlives
// the process.
package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
// http.DefaultClient. A Timeout of h bounds each try, and each connection of
// Events. Redirects are not followed unless h has a CheckRedirect of its own.
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
	if c.http == nil {
		return nil, errors.New("the HTTP client is nil")
	}
	if c.http.CheckRedirect == nil {
		h := *c.http
		// A redirected POST or DELETE would become a GET, whose success says nothing,
		// and the key could go to where it should not.
		h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		c.http = &h
	}
	return c, nil
}

type requestIDKey struct{}

// WithRequestID names the requests that are sent with the context, in the
// service's log, in answers and in errors: letters, digits, ".", "_", ":" and
// "-", at most 128 of them. The service gives others a name of its own.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}
