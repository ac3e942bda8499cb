// Package fetch sends requests to addresses that clients name: it fetches pictures
// and delivers webhooks. A client that may name an address could make the service
// reach hosts that only the service can reach. Therefore every address passes a
// guard: hosts must be on a list, and the IP address must be public or in a network
// that the operator names. The guard checks the IP address when it is dialled, so a
// name that resolves differently later cannot pass it.
package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/refersam/refersam"
	"golang.org/x/sync/semaphore"
)

// Config says which addresses the service may reach.
type Config struct {
	// Hosts are the hosts that pictures may be fetched from, separated by commas:
	// images.example.com, *.example.com for all names below it,
	// images.example.com:8443 for a port other than 443. Default none: no pictures
	// are fetched.
	Hosts []string `env:"REFERSAM_FETCH_HOSTS"`
	// WebhookHosts are the hosts that webhooks may be sent to, in the same form, or
	// * for any public host. Default none: there are no webhooks.
	WebhookHosts []string `env:"REFERSAM_WEBHOOK_HOSTS"`
	// Networks are networks that may be reached although they are not public, such
	// as 10.1.0.0/16, separated by commas. Default none.
	Networks []string `env:"REFERSAM_FETCH_NETWORKS"`
	// Timeout is how long fetching a picture may take. Default 10s.
	Timeout time.Duration `env:"REFERSAM_FETCH_TIMEOUT"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Timeout: 10 * time.Second} }

// Validate reports all faults of c.
func (c *Config) Validate() error {
	var errs []error
	for _, list := range []struct {
		name, allowed string
		entries       []string
		parse         func([]string) error
	}{
		{"REFERSAM_FETCH_HOSTS", "example.com, *.example.com, example.com:8443 or *", c.Hosts, func(e []string) error { _, err := newHosts(e); return err }},
		{"REFERSAM_WEBHOOK_HOSTS", "example.com, *.example.com, example.com:8443 or *", c.WebhookHosts, func(e []string) error { _, err := newHosts(e); return err }},
		{"REFERSAM_FETCH_NETWORKS", "networks such as 10.1.0.0/16", c.Networks, func(e []string) error { _, err := newAddresses(e); return err }},
	} {
		for i := range list.entries { // one at a time, so that every wrong entry is named
			if list.parse(list.entries[i:i+1]) != nil {
				errs = append(errs, fmt.Errorf("%s has %q, allowed: %s", list.name, list.entries[i], list.allowed))
			}
		}
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_FETCH_TIMEOUT is %v, allowed: more than 0s", c.Timeout))
	}
	return errors.Join(errs...)
}

const (
	// maxRedirects is how many redirects are followed for one picture.
	maxRedirects = 3
	// maxHeader bounds the header of an answer, in bytes.
	maxHeader = 16 << 10
	// maxAnswer bounds how much is read of the answer to a webhook, in bytes.
	maxAnswer = 16 << 10
	// atOnce is how many pictures are fetched at the same time.
	atOnce    = 32
	userAgent = "refersam"
)

var errRedirects = fmt.Errorf("it redirects more than %d times", maxRedirects)

// Client fetches pictures and delivers webhooks. It is safe for concurrent use.
type Client struct {
	timeout            time.Duration
	pictures, webhooks hosts
	picture, webhook   *http.Client
	places             *semaphore.Weighted
	transports         []*http.Transport
}

// New makes a Client, or returns the error of cfg.Validate.
func New(cfg Config) (*Client, error) { return newClient(cfg, nil, nil) }

// newClient makes a Client with another resolver and other trusted certificates
// than the system's.
func newClient(cfg Config, resolver *net.Resolver, roots *x509.CertPool) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pictures, err := newHosts(cfg.Hosts)
	if err != nil {
		return nil, err
	}
	webhooks, err := newHosts(cfg.WebhookHosts)
	if err != nil {
		return nil, err
	}
	allowed, err := newAddresses(cfg.Networks)
	if err != nil {
		return nil, err
	}
	named, public := newTransport(allowed, resolver, roots), newTransport(nil, resolver, roots)
	c := &Client{
		timeout: cfg.Timeout, pictures: pictures, webhooks: webhooks, places: semaphore.NewWeighted(atOnce),
		transports: []*http.Transport{named, public},
	}
	c.picture = &http.Client{Transport: &byHost{pictures, named, public}, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errRedirects
		}
		req.Header.Del("Referer")
		return pictures.check(req.URL.String())
	}}
	c.webhook = &http.Client{Transport: &byHost{webhooks, named, public}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// byHost sends requests for hosts that a list names through named, and requests for
// hosts that are allowed only because all are through public. The two share no
// connections.
type byHost struct {
	list          hosts
	named, public http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *byHost) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.list.names(req.URL) {
		return t.named.RoundTrip(req)
	}
	return t.public.RoundTrip(req)
}

// newTransport makes a transport that dials public addresses and the allowed ones.
func newTransport(allowed addresses, resolver *net.Resolver, roots *x509.CertPool) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Resolver: resolver, ControlContext: allowed.control}
	return &http.Transport{
		// Proxy is not set: a proxy would do the dialling, so the guard would not
		// see the address.
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // the bytes are used as they were sent
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    2,
		MaxIdleConns:           64,
		MaxConnsPerHost:        16,
		IdleConnTimeout:        30 * time.Second,
	}
}

// Close closes idle connections.
func (c *Client) Close() {
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// CheckPicture returns a *refersam.Error if the address alone shows that no picture
// may be fetched from it.
func (c *Client) CheckPicture(address string) error {
	if len(c.pictures) == 0 {
		return refused("This service does not fetch pictures; send the picture's bytes.")
	}
	return refuse(c.pictures.check(address))
}

// CheckWebhook returns a *refersam.Error if the address alone shows that no webhook
// may be sent to it.
func (c *Client) CheckWebhook(address string) error {
	if len(c.webhooks) == 0 {
		return refused("Webhooks are switched off here; follow the job's events instead, or ask the operator of the service to allow the host.")
	}
	return refuse(c.webhooks.check(address))
}

// Picture fetches something that looks like a picture, of at most the given number
// of bytes. Before it reads them it calls reserve with the largest size that the
// picture may have, and returns reserve's error if there is one. The context of
// reserve ends when the time for fetching is over. Picture's own errors are a
// *refersam.Error: CodeFetchRefused when the service may not reach the address,
// CodeFetchFailed when the other side did not return a picture, CodeImageTooLarge,
// or CodeDeadlineExceeded when ctx ended. No error shows an IP address that a name
// resolved to.
func (c *Client) Picture(ctx context.Context, address string, most int64, reserve func(ctx context.Context, bytes int64) error) ([]byte, error) {
	if err := c.CheckPicture(address); err != nil {
		return nil, err
	}
	if err := c.places.Acquire(ctx, 1); err != nil {
		return nil, late(err)
	}
	defer c.places.Release(1)
	own, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	content, err := c.get(own, address, most, reserve)
	var domainErr *refersam.Error
	switch {
	case err == nil || errors.As(err, &domainErr):
		return content, err
	case ctx.Err() != nil:
		return nil, late(err)
	default:
		return nil, failure(err)
	}
}

func (c *Client) get(ctx context.Context, address string, most int64, reserve func(ctx context.Context, bytes int64) error) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "image/*")
	resp, err := c.picture.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch encoding := resp.Header.Get("Content-Encoding"); {
	case resp.StatusCode != http.StatusOK:
		return nil, refersam.Errorf(refersam.CodeFetchFailed, "The picture's address answered with status %d.", resp.StatusCode)
	case encoding != "" && encoding != "identity":
		return nil, refersam.Errorf(refersam.CodeFetchFailed, "The picture's address answered with a content encoding; serve the picture without one.")
	case resp.ContentLength > most:
		return nil, tooLarge(most)
	}
	if resp.ContentLength >= 0 {
		most = resp.ContentLength
	}
	if err := reserve(ctx, most); err != nil {
		return nil, err
	}
	var content bytes.Buffer
	if _, err := io.CopyN(&content, resp.Body, 512); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !mayBePicture(content.Bytes()) {
		return nil, refersam.Errorf(refersam.CodeFetchFailed, "The address does not return a picture; give the address of a picture.")
	}
	if _, err := io.Copy(&content, io.LimitReader(resp.Body, most+1-int64(content.Len()))); err != nil {
		return nil, err
	}
	if int64(content.Len()) > most {
		return nil, tooLarge(most)
	}
	// When the time is over, the connection is closed, and the other side may end
	// the body as if it were complete. Therefore ctx's error counts.
	return content.Bytes(), ctx.Err()
}

// mayBePicture reports whether a picture can begin with these bytes: their type
// is a picture's or unknown.
func mayBePicture(beginning []byte) bool {
	kind := http.DetectContentType(beginning)
	return strings.HasPrefix(kind, "image/") || kind == "application/octet-stream" || strings.HasPrefix(kind, "video/") // HEIC is a kind of MP4
}

func tooLarge(most int64) error {
	return refersam.Errorf(refersam.CodeImageTooLarge, "The picture is larger than %d bytes.", most)
}

func late(cause error) error {
	return &refersam.Error{Code: refersam.CodeDeadlineExceeded, Message: "The picture could not be fetched in time.", Err: cause}
}

// Post delivers a webhook, and follows no redirect. Its error does not show an IP
// address that a name resolved to.
func (c *Client) Post(ctx context.Context, address string, header http.Header, body []byte) (status int, retryAfter time.Duration, err error) {
	if err := c.CheckWebhook(address); err != nil { // the list may have changed since the job was submitted
		return 0, 0, plain(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0, 0, plain(err)
	}
	maps.Copy(req.Header, header)
	req.Header.Set("User-Agent", userAgent)
	resp, err := c.webhook.Do(req)
	if err != nil {
		return 0, 0, plain(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be reused
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds < 1<<20 {
		retryAfter = time.Duration(seconds) * time.Second
	}
	return resp.StatusCode, retryAfter, nil
}
