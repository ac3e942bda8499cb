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

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/store"
)

// The values of REFERSAM_AUTH.
const (
	AuthOn  = "on"
	AuthOff = "off"
	// AuthAuto requires a key unless only this machine can reach the gateway.
	AuthAuto = "auto"
)

// Authenticates reports whether clients must send a key.
func (c *Config) Authenticates() bool {
	if c.Auth != AuthAuto {
		return c.Auth == AuthOn
	}
	host, _, err := net.SplitHostPort(c.Listen)
	return err != nil || !loopback(host)
}

// loopback reports whether only this machine can reach a listener on the host.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// token returns the API key that a client sent, or "" if it sent none.
func token(h http.Header) (string, error) {
	authorization := h.Get("Authorization")
	if len(h.Values("Authorization")) > 1 || len(h.Values("X-API-Key")) > 1 {
		return "", access.Malformed()
	}
	if authorization == "" {
		return h.Get("X-API-Key"), nil
	}
	scheme, value, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", access.Malformed()
	}
	return strings.TrimSpace(value), nil
}

// authenticate returns the key that a request was sent with, and challenges a
// client without one as RFC 6750 requires.
func (d *door) authenticate(c *gin.Context) (*store.Key, error) {
	sent, err := token(c.Request.Header)
	var key *store.Key
	if err == nil {
		key, err = d.gate.Authenticate(c.Request.Context(), sent)
	}
	var denied *access.Denied
	if errors.As(err, &denied) {
		challenge := `Bearer realm="refersam"`
		if denied.Reason != "" {
			challenge += fmt.Sprintf(`, error=%q`, denied.Reason)
		}
		c.Header("WWW-Authenticate", challenge)
	}
	return key, err
}

// forbidden returns the error for a key that lacks a scope.
func forbidden(c *gin.Context, scope store.Scope) error {
	c.Header("WWW-Authenticate", fmt.Sprintf(`Bearer realm="refersam", error="insufficient_scope", scope=%q`, scope))
	return refersam.Errorf(refersam.CodeForbidden, "The API key lacks the scope %q.", scope)
}

// anyScope accepts every key.
const anyScope store.Scope = ""

// door authenticates clients.
type door struct {
	gate          *access.Gate
	auth          string
	authenticates bool
	// origins are the origins of pages that may use a service without keys.
	origins []string
}

// require accepts a request if its key has a scope and has not used up its rate.
// Without authentication it accepts every request.
func (d *door) require(scope store.Scope) gin.HandlerFunc {
	return func(c *gin.Context) {
		if !d.authenticates {
			if err := d.checkNear(c); err != nil {
				fail(c, err)
			}
			return
		}
		key, err := d.authenticate(c)
		if err == nil {
			c.Set(keyAPIKey, key)
			err = d.admit(c, key)
		}
		if err == nil && scope != anyScope && !key.Has(scope) {
			err = forbidden(c, scope)
		}
		if err != nil {
			fail(c, err)
		}
	}
}

// checkNear protects a service without keys that only this machine can reach. It
// refuses requests that others have sent through this machine: through a browser
// that shows a page of another site, or through a proxy.
func (d *door) checkNear(c *gin.Context) error {
	if d.auth != AuthAuto {
		return nil
	}
	if !namesLoopback(c.Request.Host) {
		return refersam.Errorf(refersam.CodeForbidden, "The service accepts requests only from this machine, for localhost or 127.0.0.1; set REFERSAM_AUTH=on to serve others.")
	}
	if crossOrigin(c.Request) && !mayShare(d.origins, c.GetHeader("Origin")) {
		return foreignOrigin(c)
	}
	return nil
}

// crossOrigin reports whether a browser has sent a request for a page of another
// origin; another port of this machine is another origin too. Browsers report it in
// Sec-Fetch-Site; old browsers send only the page's origin.
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

// foreignOrigin returns the error for a page that may not use the service.
func foreignOrigin(c *gin.Context) error {
	pages := "Pages of other origins"
	if origin := c.GetHeader("Origin"); origin != "" {
		pages = fmt.Sprintf("Pages of the origin %q", origin)
	}
	return refersam.Errorf(refersam.CodeForbidden, "%s may not use this service; the operator can allow them with REFERSAM_CORS_ORIGINS.", pages)
}

// apiKey returns the key of the request, or nil without authentication.
func apiKey(c *gin.Context) *store.Key {
	key, _ := c.Value(keyAPIKey).(*store.Key)
	return key
}

// anonymous is the key id in usage without authentication.
const anonymous = "anonymous"

// account is the API key that the usage of a request is counted for.
func account(c *gin.Context) string {
	if key := apiKey(c); key != nil {
		return key.ID
	}
	return anonymous
}

// CheckAccess returns an error if no client could use the service, because clients
// must send a key and no valid key exists. The error says what to do.
func (g *Gateway) CheckAccess(ctx context.Context) error {
	if !g.cfg.Authenticates() {
		return nil
	}
	if ok, err := g.access.AnyLive(ctx); err != nil || ok {
		return err
	}
	otherwise := "listen on 127.0.0.1"
	if host, _, err := net.SplitHostPort(g.cfg.Listen); err == nil && loopback(host) {
		otherwise = "set REFERSAM_AUTH=auto, which requires no key from this machine"
	}
	return fmt.Errorf("clients of %s must send an API key (REFERSAM_AUTH=%s), but no valid key exists: "+
		"make one with “refersam keys create --name NAME --scopes segment”, start with --first-key, which prints one if no key was ever made, %s, "+
		"or set REFERSAM_AUTH=off if a proxy before the gateway authenticates clients", g.cfg.Listen, g.cfg.Auth, otherwise)
}
