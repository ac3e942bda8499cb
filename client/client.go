// Package client uses a refersam service over HTTP. A Client is a
// refersam.Segmenter, so code that works with the pipeline works with a service. A
// Client can also send several pictures in one request, store pictures in the
// service, and submit jobs.
//
// # Errors
//
// Every error of a call is a *refersam.Error. An error that the service reports has
// the service's code and the id that the service logged with the request. A
// refusal by something else, such as a proxy, has the code that fits its status. A
// success that cannot be read, or that answers something else than the request, is
// CodeUpstream. A service that cannot be reached is CodeUnavailable. If the context
// ends first, the code is CodeDeadlineExceeded or CodeCancelled, and the error
// wraps ctx.Err() and the last error that the service reported. Text that is not
// UTF-8, a number that is not finite, and a value that cannot be in a header or a
// path are CodeInvalidRequest; such requests are not sent.
//
// # Retries
//
// The Client retries temporary failures: answers with the status 408, 429 (but not
// CodeStorageFull), 502 or 503, 409 with CodeUnderWay, and broken connections. The
// pause is 250 ms and doubles with each try up to 10 s. It is never shorter than
// Retry-After. A random part of up to a quarter, at most 2 s, is added. The
// deadline of the context is the bound: if the next pause would pass it, the Client
// returns the last error at once. So give contexts a deadline; each try sends the
// service the time that is left. Without a deadline there are six tries, and none
// after a Retry-After of more than a minute.
//
// A request that stores something is sent with an Idempotency-Key, so the service
// performs it once, however often the Client sends it. WithIdempotencyKey sets a
// key that outlives the process.
package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Client is a connection to one service. Make one with New. It is safe for
// concurrent use.
type Client struct{ transport }

// transport sends calls to a service and repeats them while that can help.
type transport struct {
	base *url.URL
	key  string
	http *http.Client
}

// Option changes a Client.
type Option func(*Client)

// WithKey makes a Client send an API key.
func WithKey(key string) Option { return func(c *Client) { c.key = key } }

// WithHTTPClient makes a Client send through h instead of http.DefaultClient. A
// Timeout of h bounds each try, and each connection of Events. Redirects are not
// followed unless h has a CheckRedirect of its own.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// New makes a Client for the service at an address such as
// https://masks.example.com.
func New(address string, options ...Option) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("%q is not the address of a service; give one such as https://masks.example.com", address)
	}
	c := &Client{transport{base: base, http: http.DefaultClient}}
	for _, option := range options {
		option(c)
	}
	if c.http == nil {
		return nil, errors.New("the HTTP client is nil")
	}
	if c.http.CheckRedirect == nil {
		h := *c.http
		// A redirected POST or DELETE would become a GET, and the GET's success
		// would not show that the POST or DELETE was done. The key could also go to
		// another host.
		h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		c.http = &h
	}
	return c, nil
}

type requestIDKey struct{}

// WithRequestID sets the id of the requests that are sent with the context. The id
// appears in the service's log, in answers and in errors. It has 1 to 128 letters,
// digits, ".", "_", ":" and "-"; the service replaces any other id by one of its
// own.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}
