package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// The ways to decide whether clients must show a key.
const (
	AuthOn  = "on"
	AuthOff = "off"
	// AuthAuto is on unless only this machine can reach the gateway.
	AuthAuto = "auto"
)

// Authenticates reports whether clients must show a key.
func (c *Config) Authenticates() bool {
	if c.Auth != AuthAuto {
		return c.Auth == AuthOn
	}
	host, _, err := net.SplitHostPort(c.Listen)
	return err != nil || !loopback(host)
}

// loopback reports whether what listens on a host is out of others' reach.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Keys is where keys are looked up; *store.Store is one.
type Keys interface {
	// Key returns the key of an id, or store.ErrNotFound.
	Key(ctx context.Context, id string) (*store.Key, error)
	Keys(ctx context.Context) ([]*store.Key, error)
}

const (
	// keyMemory is how long a key that was looked up is believed: a key that is
	// revoked is refused by every gateway after that.
	keyMemory = 2 * time.Second
	// maxKnown bounds how many keys are remembered, those that do not exist
	// included.
	maxKnown = 10_000
)

// keyring remembers keys for a moment.
type keyring struct {
	keys Keys

	mu    sync.Mutex
	known map[string]knownKey
}

type knownKey struct {
	key   *store.Key // nil when there is none
	until time.Time
}

func newKeyring(keys Keys) *keyring { return &keyring{keys: keys, known: make(map[string]knownKey)} }

// get returns the key of an id, or nil if there is none.
func (r *keyring) get(ctx context.Context, id string) (*store.Key, error) {
	now := time.Now()
	r.mu.Lock()
	k, ok := r.known[id]
	r.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.key, nil
	}
	key, err := r.keys.Key(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxKnown {
		clear(r.known)
	}
	// From when it was asked for, so that the bound holds however long that took.
	r.known[id] = knownKey{key, now.Add(keyMemory)}
	return key, nil
}

// stateTimeout is how long a request waits to be told who its client is and
// whether it may: a database that is silent is one that is away.
const stateTimeout = 2 * time.Second

func withStateTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, stateTimeout)
}

// stateAway is databaseAway for what was asked withStateTimeout.
func stateAway(c *gin.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && c.Request.Context().Err() == nil {
		err = errors.New("the database is silent")
	}
	return databaseAway(err)
}

// databaseAway is the answer when the database gives none. That the request's
// own time is over is not the database's fault.
func databaseAway(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return outOfTime(err)
	}
	return &refersam.Error{Code: refersam.CodeUnavailable, Message: "The database of the service is not available at the moment; try again soon.", Err: err}
}

func outOfTime(err error) error {
	return &refersam.Error{Code: refersam.CodeDeadlineExceeded, Message: "The request could not be answered in time.", Err: err}
}

// token returns what a client sent to say who it is, "" if it sent nothing.
func token(h http.Header) (string, error) {
	authorization := h.Get("Authorization")
	if len(h.Values("Authorization")) > 1 || len(h.Values("X-API-Key")) > 1 {
		return "", errors.New("several keys")
	}
	if authorization == "" {
		return h.Get("X-API-Key"), nil
	}
	scheme, value, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("another scheme")
	}
	return strings.TrimSpace(value), nil
}

// authenticate returns the key that a request shows. Whether it is a key that
// does not exist or a wrong secret is not told; what became of a key is told to
// those who hold it.
func (r *keyring) authenticate(c *gin.Context) (*store.Key, error) {
	sent, err := token(c.Request.Header)
	if err != nil {
		return nil, unauthorized(c, "invalid_request", "Authorization must be “Bearer rsk_…”, and given once.")
	}
	if sent == "" {
		return nil, unauthorized(c, "", "Send an API key as “Authorization: Bearer rsk_…” or “X-API-Key: rsk_…”; whoever runs the service makes one.")
	}
	parsed, err := store.ParseToken(sent)
	if err != nil {
		return nil, unauthorized(c, "invalid_token", "The API key is not of the form rsk_<id>_<secret>; was it cut off?")
	}
	now := time.Now()
	ctx, cancel := withStateTimeout(c.Request.Context())
	defer cancel()
	key, err := r.get(ctx, parsed.ID)
	if err != nil {
		return nil, stateAway(c, err)
	}
	if key == nil || !key.Holds(parsed.Secret, now) {
		return nil, unauthorized(c, "invalid_token", "There is no such API key, or its secret has been replaced.")
	}
	if err := key.Live(now); err != nil {
		return nil, unauthorized(c, "invalid_token", "The API key does not work any more: %v.", err)
	}
	return key, nil
}

// unauthorized challenges the client as RFC 6750 says; reason is "" when it
// showed nothing.
func unauthorized(c *gin.Context, reason, format string, args ...any) error {
	challenge := `Bearer realm="refersam"`
	if reason != "" {
		challenge += fmt.Sprintf(`, error=%q`, reason)
	}
	c.Header("WWW-Authenticate", challenge)
	return refersam.Errorf(refersam.CodeUnauthorized, format, args...)
}

// forbidden tells which scope a key lacks.
func forbidden(c *gin.Context, scope store.Scope) error {
	c.Header("WWW-Authenticate", fmt.Sprintf(`Bearer realm="refersam", error="insufficient_scope", scope=%q`, scope))
	return refersam.Errorf(refersam.CodeForbidden, "The API key lacks the scope %q.", scope)
}

// anyScope lets every key in.
const anyScope store.Scope = ""

// require lets in who shows a key with a scope and has not used up its rate.
// Without authentication it lets everybody in.
func (g *Gateway) require(scope store.Scope) gin.HandlerFunc {
	return func(c *gin.Context) {
		if !g.cfg.Authenticates() {
			if err := g.checkNear(c); err != nil {
				fail(c, err)
			}
			return
		}
		key, err := g.keyring.authenticate(c)
		if err == nil {
			c.Set(keyAPIKey, key)
			err = g.limiter.admit(c, key)
		}
		if err == nil && scope != anyScope && !key.Has(scope) {
			err = forbidden(c, scope)
		}
		if err != nil {
			fail(c, err)
		}
	}
}

// checkNear refuses, where everybody is let in because only this machine can
// reach the gateway, what others have sent through this machine: a browser for a
// page of another site, or a proxy.
func (g *Gateway) checkNear(c *gin.Context) error {
	if g.cfg.Auth != AuthAuto {
		return nil
	}
	if !namesLoopback(c.Request.Host) {
		return refersam.Errorf(refersam.CodeForbidden, "The service is for this machine alone, as localhost or 127.0.0.1; with REFERSAM_AUTH=on it is for others, too.")
	}
	if crossOrigin(c.Request) && !mayShare(g.cfg.CORSOrigins, c.GetHeader("Origin")) {
		return foreignOrigin(c)
	}
	return nil
}

// crossOrigin reports whether a browser has sent a request for a page of another
// origin, which another port of this machine is as well. Browsers say so in
// Sec-Fetch-Site; old ones tell no more than the page's origin.
func crossOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
	default:
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// foreignOrigin refuses the page that has sent a request.
func foreignOrigin(c *gin.Context) error {
	pages := "Pages of other origins"
	if origin := c.GetHeader("Origin"); origin != "" {
		pages = fmt.Sprintf("Pages of the origin %q", origin)
	}
	return refersam.Errorf(refersam.CodeForbidden, "%s may not use this service; whoever runs it can let them with REFERSAM_CORS_ORIGINS.", pages)
}

// apiKey returns the key that the request has shown, or nil without
// authentication.
func apiKey(c *gin.Context) *store.Key {
	key, _ := c.Value(keyAPIKey).(*store.Key)
	return key
}

// anonymous stands for everybody in usage without authentication.
const anonymous = "anonymous"

// consumer is whose usage a request is.
func consumer(c *gin.Context) string {
	if key := apiKey(c); key != nil {
		return key.ID
	}
	return anonymous
}

// CheckAccess returns an error that says what to do when nobody could use the
// service: clients must show a key, and none works.
func (g *Gateway) CheckAccess(ctx context.Context) error {
	if !g.cfg.Authenticates() {
		return nil
	}
	keys, err := g.state.Keys(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, k := range keys {
		if k.Live(now) == nil {
			return nil
		}
	}
	otherwise := "listen on 127.0.0.1"
	if host, _, err := net.SplitHostPort(g.cfg.Listen); err == nil && loopback(host) {
		otherwise = "set REFERSAM_AUTH=auto, with which this machine alone needs none"
	}
	return fmt.Errorf("clients of %s must show an API key (REFERSAM_AUTH=%s), and there is none that works: "+
		"make one with “refersam keys create --name NAME --scopes segment”, %s, "+
		"or set REFERSAM_AUTH=off if something before the gateway lets only the right ones through", g.cfg.Listen, g.cfg.Auth, otherwise)
}
