// Package access decides which clients may use the service, how often, and how
// much at once, and it counts what each of them used. It knows no HTTP: a
// caller passes a token and gets a key or an error.
package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// State is the memory behind a Gate; *store.Store is one. All methods are safe
// for concurrent use and may be called again after an error.
type State interface {
	Keys
	Quotas
	Ledger
	// MultiGateway reports whether other gateways may use the same state.
	MultiGateway() bool
}

// Gate authenticates clients and holds each API key to its limits. All methods
// are safe for concurrent use.
type Gate struct {
	*Meter
	keys    Keys
	keyring *keyring
	limiter *limiter
	log     *slog.Logger
}

// New makes a Gate. name identifies this process among the gateways that share
// state, and must be new for every start.
func New(state State, name string, log *slog.Logger) (*Gate, error) {
	keyring, err := newKeyring(state)
	if err != nil {
		return nil, err
	}
	var quotas Quotas
	if state.MultiGateway() {
		quotas = state
	}
	return &Gate{Meter: newMeter(state, name), keys: state, keyring: keyring, limiter: newLimiter(quotas, name, log), log: log}, nil
}

// Run writes counted usage every FlushInterval and renews leases every
// RenewInterval, until ctx ends.
func (g *Gate) Run(ctx context.Context) {
	flush, renew := time.NewTicker(FlushInterval), time.NewTicker(RenewInterval)
	defer flush.Stop()
	defer renew.Stop()
	var failing bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			bounded, cancel := context.WithTimeout(ctx, upkeepTimeout)
			err := g.Flush(bounded)
			cancel()
			if err != nil && !failing && ctx.Err() == nil {
				g.log.Warn("usage cannot be written at the moment; it is kept in memory", "cause", err)
			}
			failing = err != nil
		case <-renew.C:
			bounded, cancel := context.WithTimeout(ctx, upkeepTimeout)
			g.Renew(bounded)
			cancel()
		}
	}
}

// upkeepTimeout bounds one round of Run.
const upkeepTimeout = 5 * time.Second

// Close ends the Gate's background work and writes the usage that was counted since
// Run last wrote it. Nothing may use the Gate at the same time.
func (g *Gate) Close() error {
	defer g.keyring.cache.StopAllGoroutines()
	ctx, cancel := context.WithTimeout(context.Background(), upkeepTimeout)
	defer cancel()
	if err := g.Flush(ctx); err != nil {
		return fmt.Errorf("usage of the last %s was not written: %w", FlushInterval, err)
	}
	return nil
}

// stateTimeout is how long a request waits for the database to say who its
// client is and whether the client may go on. A database that takes longer
// counts as away.
const stateTimeout = 2 * time.Second

func withStateTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, stateTimeout)
}

// unavailable is store.Unavailable for a call that ran under withStateTimeout:
// a timeout is the client's fault only if ctx, the request's own context, has
// ended too.
func unavailable(ctx context.Context, err error) error {
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("the database did not answer within %v", stateTimeout)
	}
	return store.Unavailable(err)
}

// Denied is the error for a token that does not authenticate its sender. It
// wraps a *refersam.Error with refersam.CodeUnauthorized.
type Denied struct {
	// Reason is an error code of RFC 6750, section 3.1, or "" if the client sent
	// no token.
	Reason string
	Err    *refersam.Error
}

// Error implements error.
func (d *Denied) Error() string { return d.Err.Error() }

// Unwrap returns the *refersam.Error.
func (d *Denied) Unwrap() error { return d.Err }

func denied(reason, format string, args ...any) error {
	return &Denied{reason, refersam.Errorf(refersam.CodeUnauthorized, format, args...)}
}

// Malformed returns the error for credentials that are no single bearer token.
func Malformed() error {
	return denied("invalid_request", "Authorization must be “Bearer rsk_…”, and given once.")
}

// Authenticate returns the key that a token belongs to. The error is a *Denied
// or, if the database does not answer, a *refersam.Error. It does not say
// whether the key or only the secret is wrong; only a client that knows the
// secret learns that its key was revoked or has expired.
func (g *Gate) Authenticate(ctx context.Context, token string) (*store.Key, error) {
	if token == "" {
		return nil, denied("", "Send an API key as “Authorization: Bearer rsk_…” or “X-API-Key: rsk_…”; the operator of the service creates keys.")
	}
	parsed, err := store.ParseToken(token)
	if err != nil {
		return nil, denied("invalid_token", "The API key is not of the form rsk_<id>_<secret>; was it cut off?")
	}
	key, err := g.Key(ctx, parsed.ID)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if key == nil || !key.Holds(parsed.Secret, now) {
		return nil, denied("invalid_token", "There is no such API key, or its secret has been replaced.")
	}
	if err := key.Live(now); err != nil {
		return nil, denied("invalid_token", "The API key does not work any more: %v.", err)
	}
	return key, nil
}

// Key returns the key with an id, or nil if there is none. A change to the key
// shows after keyMemory at the latest. The error is a *refersam.Error.
func (g *Gate) Key(ctx context.Context, id string) (*store.Key, error) {
	bounded, cancel := withStateTimeout(ctx)
	defer cancel()
	key, err := g.keyring.get(bounded, id)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	return key, nil
}

// AnyLive reports whether at least one key works now.
func (g *Gate) AnyLive(ctx context.Context) (bool, error) {
	keys, err := g.keys.Keys(ctx)
	if err != nil {
		return false, err
	}
	now := time.Now()
	for _, k := range keys {
		if k.Live(now) == nil {
			return true, nil
		}
	}
	return false, nil
}

// Allowance is the rest of a key's rate.
type Allowance struct {
	// Requests is how many requests the key may send now.
	Requests int64
	// Full is how long the key must stay idle until its whole rate is available.
	Full time.Duration
}

// Admit counts one request against the key's rate and returns the rest of the
// rate, which is zero for a key without a rate. The error is a *refersam.Error
// with refersam.CodeQuotaExceeded and a RetryAfter when the rate is used up.
func (g *Gate) Admit(ctx context.Context, key *store.Key) (Allowance, error) {
	if key.Rate.Requests == 0 {
		return Allowance{}, nil
	}
	bounded, cancel := withStateTimeout(ctx)
	defer cancel()
	rest, err := g.limiter.admit(bounded, key, time.Now())
	if err != nil && refersam.ErrorCode(err) != refersam.CodeQuotaExceeded {
		return rest, unavailable(ctx, err)
	}
	return rest, err
}

// Enter counts one more request of the key as in flight until leave is called.
// The error is a *refersam.Error with refersam.CodeQuotaExceeded when the key
// has as many requests in flight as it may.
func (g *Gate) Enter(ctx context.Context, key *store.Key) (leave func(), err error) {
	if key.Concurrency == 0 {
		return func() {}, nil
	}
	bounded, cancel := withStateTimeout(ctx)
	defer cancel()
	ok, err := g.limiter.enter(bounded, key, time.Now())
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	if !ok {
		return nil, &refersam.Error{
			Code:       refersam.CodeQuotaExceeded,
			Message:    fmt.Sprintf("The API key allows %d requests at once; wait until one is answered.", key.Concurrency),
			RetryAfter: time.Second,
		}
	}
	return func() { g.limiter.leave(ctx, key) }, nil
}

// RenewInterval is how often Renew must be called.
const RenewInterval = 5 * time.Second

// Renew extends the leases on concurrency that requests in flight hold in the
// database, returns the others, and forgets keys that have long been idle.
func (g *Gate) Renew(ctx context.Context) { g.limiter.renew(ctx, time.Now()) }
