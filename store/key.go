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

// Scope is something that a key allows.
type Scope string

// The scopes.
const (
	// ScopeSegment is for asking for masks.
	ScopeSegment Scope = "segment"
	// ScopeFeedback is for saying how good masks were.
	ScopeFeedback Scope = "feedback"
	// ScopeAdmin is for seeing what all keys have used. It includes no other.
	ScopeAdmin Scope = "admin"
)

// Scopes are all there are.
var Scopes = []Scope{ScopeSegment, ScopeFeedback, ScopeAdmin}

// ParseScope checks the name of a scope.
func ParseScope(name string) (Scope, error) {
	if s := Scope(name); slices.Contains(Scopes, s) {
		return s, nil
	}
	return "", fmt.Errorf("there is no scope %q; there are segment, feedback and admin", name)
}

// Rate is how many requests a time allows: Requests at once, and as many again
// in each Window. The zero Rate allows any number.
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

// String writes the rate as "10/s", and "-" for any.
func (r Rate) String() string {
	for unit, window := range rateWindows {
		if window == r.Window {
			return fmt.Sprintf("%d/%s", r.Requests, unit)
		}
	}
	return "-"
}

// Key is what is known of an API key. The secret is not: only its hash.
type Key struct {
	// ID is public: it stands in logs and in usage.
	ID     string
	Name   string
	Scopes []Scope
	Rate   Rate
	// Concurrency is how many requests may be under way, 0 for any number.
	Concurrency int64
	// Created is when the key was made, Expires and Revoked when it stops
	// working; those two are zero if it does not.
	Created, Expires, Revoked time.Time
	// OldUntil is when the secret before the last rotation stops working.
	OldUntil time.Time

	hash, oldHash []byte
}

// Has reports whether the key allows something.
func (k *Key) Has(s Scope) bool { return slices.Contains(k.Scopes, s) }

// Live returns nil when the key works at a time, else why it does not.
func (k *Key) Live(now time.Time) error {
	switch {
	case !k.Revoked.IsZero():
		return fmt.Errorf("it was revoked on %s", k.Revoked.Format(time.DateOnly))
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return fmt.Errorf("it expired on %s", k.Expires.Format(time.DateOnly))
	}
	return nil
}

// Holds reports whether a secret is the key's, or was until a rotation whose
// overlap has not ended. How long it takes tells nothing about the secret.
func (k *Key) Holds(secret string, now time.Time) bool {
	hash := hashSecret(secret)
	current := subtle.ConstantTimeCompare(hash, k.hash)
	old := subtle.ConstantTimeCompare(hash, k.oldHash)
	if !now.Before(k.OldUntil) {
		old = 0
	}
	return current|old == 1
}

// hashSecret is what is stored of a secret. One round of SHA-256 is enough: a
// secret has 256 random bits, which nobody finds by trying; salt and slow hashes
// are for passwords.
func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// Token is what a client sends. It is shown once, when it is made.
type Token struct{ ID, Secret string }

var tokenForm = regexp.MustCompile(`^rsk_([a-z2-7]{16})_([a-z2-7]{52})$`)

var errToken = errors.New("a key is of the form rsk_<id>_<secret>")

// ParseToken reads a token. Its error tells nothing of what was read.
func ParseToken(s string) (Token, error) {
	parts := tokenForm.FindStringSubmatch(s)
	if parts == nil {
		return Token{}, errToken
	}
	return Token{parts[1], parts[2]}, nil
}

// Reveal returns the token as the client must send it.
func (t Token) Reveal() string { return "rsk_" + t.ID + "_" + t.Secret }

// String leaves out the secret.
func (t Token) String() string { return "rsk_" + t.ID + "_…" }

// randomText returns n random bytes as lower-case letters and digits.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

func newSecret() string { return randomText(32) }
