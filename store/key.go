package store

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Scope is a permission of an API key.
type Scope string

// The scopes.
const (
	// ScopeSegment allows to request masks.
	ScopeSegment Scope = "segment"
	// ScopeFeedback allows to send feedback about masks.
	ScopeFeedback Scope = "feedback"
	// ScopeAdmin allows to see the usage of all keys. It includes no other scope.
	ScopeAdmin Scope = "admin"
)

// Scopes lists every scope.
var Scopes = []Scope{ScopeSegment, ScopeFeedback, ScopeAdmin}

// ParseScope returns the scope with a name.
func ParseScope(name string) (Scope, error) {
	if s := Scope(name); slices.Contains(Scopes, s) {
		return s, nil
	}
	return "", fmt.Errorf("unknown scope %q; the scopes are segment, feedback and admin", name)
}

// Rate limits the requests of a key: Requests at once, and the same number again
// in each Window. The zero Rate is no limit.
type Rate struct {
	Requests int64
	Window   time.Duration
}

var rateForm = regexp.MustCompile(`^([1-9][0-9]{0,8})/([smhd])$`)

var rateWindows = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// ParseRate reads a rate as String writes it.
func ParseRate(s string) (Rate, error) {
	parts := rateForm.FindStringSubmatch(s)
	if parts == nil {
		return Rate{}, fmt.Errorf("the rate %q is not of the form 10/s, 600/m, 1000/h or 5000/d", s)
	}
	n, err := strconv.ParseInt(parts[1], 10, 64)
	return Rate{n, rateWindows[parts[2]]}, err
}

// String returns the rate as "10/s", or "-" for no limit.
func (r Rate) String() string {
	for unit, window := range rateWindows {
		if window == r.Window {
			return fmt.Sprintf("%d/%s", r.Requests, unit)
		}
	}
	return "-"
}

// Key is a row of api_keys. The store does not know the secret, only its hash.
type Key struct {
	// ID is public. Logs and usage show it.
	ID     string
	Name   string
	Scopes []Scope
	Rate   Rate
	// Concurrency limits the requests that run at once, 0 for no limit.
	Concurrency int64
	// The key works from Created until Expires or Revoked, which are zero for
	// never.
	Created, Expires, Revoked time.Time
	// OldUntil is when the secret before the last rotation stops working.
	OldUntil time.Time

	hash, oldHash []byte
}

// Has reports whether the key has a scope.
func (k *Key) Has(s Scope) bool { return slices.Contains(k.Scopes, s) }

// Live returns nil if the key works at the time now, and otherwise the reason why
// it does not.
func (k *Key) Live(now time.Time) error {
	switch {
	case !k.Revoked.IsZero():
		return fmt.Errorf("it was revoked on %s", k.Revoked.Format(time.DateOnly))
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return fmt.Errorf("it expired on %s", k.Expires.Format(time.DateOnly))
	}
	return nil
}

// Holds reports whether a secret is valid: the key's current one, or the previous
// one before OldUntil. Its running time does not depend on the secret.
func (k *Key) Holds(secret string, now time.Time) bool {
	hash := hashSecret(secret)
	current := subtle.ConstantTimeCompare(hash, k.hash)
	old := subtle.ConstantTimeCompare(hash, k.oldHash)
	if !now.Before(k.OldUntil) {
		old = 0
	}
	return current|old == 1
}

// hashSecret returns the hash of a secret that the database stores. One round of
// SHA-256 is enough, because a secret has 256 random bits. Salt and slow hashes
// protect passwords, which can be guessed.
func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// Token is an API key as a client sends it. It is shown once, when it is created.
type Token struct{ ID, Secret string }

var tokenForm = regexp.MustCompile(`^rsk_([a-z2-7]{16})_([a-z2-7]{52})$`)

var errToken = errors.New("the API key is not of the form rsk_<id>_<secret>")

// ParseToken reads a token. Its error does not show the text.
func ParseToken(s string) (Token, error) {
	parts := tokenForm.FindStringSubmatch(s)
	if parts == nil {
		return Token{}, errToken
	}
	return Token{parts[1], parts[2]}, nil
}

// Reveal returns the token with its secret, as a client must send it.
func (t Token) Reveal() string { return "rsk_" + t.ID + "_" + t.Secret }

// String returns the token without its secret.
func (t Token) String() string { return "rsk_" + t.ID + "_…" }

// randomText returns n random bytes in base32, in lower case.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

func newSecret() string { return randomText(32) }
