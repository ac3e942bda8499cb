package access

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// Quotas divides the limits of a key among several gateways; *store.Store is
// one.
type Quotas interface {
	TakeTokens(ctx context.Context, key string, rate store.Rate, want int64, now time.Time) (store.Tokens, error)
	LeaseSlots(ctx context.Context, key, gateway string, limit, want int64, until, now time.Time) (int64, error)
}

const (
	// tokenTime is how much of a key's rate a gateway borrows at once: the
	// requests that the rate allows in this time, and at least one.
	tokenTime = 100 * time.Millisecond
	// tokenMemory is how long a gateway may use borrowed requests.
	tokenMemory = 10 * time.Second
	// slotLease is how long a gateway that died keeps its part of a key's
	// concurrency. Gateways that live renew their leases every RenewInterval.
	slotLease = 15 * time.Second
	// slotSlack bounds the unused part of a key's concurrency that one gateway
	// may keep until the next renewal: 1/slotSlack of the whole.
	slotSlack = 8
	// slotPause is how long a gateway does not ask the database again after it
	// was refused a slot.
	slotPause = 50 * time.Millisecond
	// allowanceMemory is how long the state of an idle key is kept. It must be
	// longer than the longest window of a rate takes to fill.
	allowanceMemory = 25 * time.Hour
)

// limiter holds each key to its rate and its concurrency. A single gateway
// counts exactly. Several gateways borrow in parts from the database, so that
// most requests need no query.
type limiter struct {
	quotas  Quotas // nil when this gateway is the only one
	gateway string
	log     *slog.Logger

	mu   sync.Mutex
	keys map[string]*allowance
}

// allowance is what one key may still do on this gateway. Its lock is held
// while the database is queried, so requests of one key wait for one another.
// None waits longer than stateTimeout, because that time starts before the
// lock is taken.
type allowance struct {
	mu   sync.Mutex
	used time.Time

	// bucket is the rate that is left. With several gateways it is a copy of the
	// shared bucket as last seen; the gateway may then admit lent requests until
	// lentUntil, and before empty it need not ask for more.
	bucket    store.Bucket
	lent      int64
	lentUntil time.Time
	empty     time.Time

	// inFlight requests run now and slots may run; after a refusal nobody asks
	// for more slots before pause.
	inFlight, slots int64
	pause           time.Time
}

func newLimiter(quotas Quotas, gateway string, log *slog.Logger) *limiter {
	return &limiter{quotas: quotas, gateway: gateway, log: log, keys: make(map[string]*allowance)}
}

// withKey calls f with the allowance of a key while its lock is held.
func (l *limiter) withKey(id string, now time.Time, f func(*allowance)) {
	l.mu.Lock()
	a := l.keys[id]
	if a == nil {
		a = &allowance{bucket: store.FullBucket(now)}
		l.keys[id] = a
	}
	l.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used = now
	f(a)
}

// admit takes one request from the rate of a key. Errors of the database are
// returned as they are.
func (l *limiter) admit(ctx context.Context, key *store.Key, now time.Time) (rest Allowance, err error) {
	l.withKey(key.ID, now, func(a *allowance) {
		var ok bool
		if ok, err = l.take(ctx, a, key, now); err != nil {
			return
		}
		a.bucket.Fill(key.Rate, now)
		rest = Allowance{
			Requests: min(max(0, int64(a.bucket.Tokens))+a.lent, key.Rate.Requests),
			Full:     key.Rate.Time(float64(key.Rate.Requests) - a.bucket.Tokens),
		}
		if !ok {
			err = &refersam.Error{
				Code:       refersam.CodeQuotaExceeded,
				Message:    fmt.Sprintf("The API key allows %s requests; wait as Retry-After says.", key.Rate),
				RetryAfter: max(a.empty.Sub(now), time.Second),
			}
		}
	})
	return rest, err
}

// take reports whether the rate of a key allows one more request, and counts it
// if so.
func (l *limiter) take(ctx context.Context, a *allowance, key *store.Key, now time.Time) (bool, error) {
	if l.quotas == nil {
		a.bucket.Fill(key.Rate, now)
		if a.bucket.Take(1) == 0 {
			a.empty = now.Add(key.Rate.Time(1 - a.bucket.Tokens))
			return false, nil
		}
		return true, nil
	}
	if !now.Before(a.lentUntil) {
		a.lent = 0
	}
	if a.lent == 0 && !now.Before(a.empty) {
		want := max(1, int64(float64(key.Rate.Requests)*tokenTime.Seconds()/key.Rate.Window.Seconds()))
		got, err := l.quotas.TakeTokens(ctx, key.ID, key.Rate, want, now)
		if err != nil {
			return false, err
		}
		a.lent, a.lentUntil = got.Granted, now.Add(tokenMemory)
		a.bucket = store.Bucket{Tokens: got.Left, Updated: now}
		if got.Granted == 0 {
			a.empty = now.Add(key.Rate.Time(1 - got.Left))
		}
	}
	if a.lent == 0 {
		return false, nil
	}
	a.lent--
	return true, nil
}

// enter reports whether one more request of a key may be in flight, and counts
// it if so.
func (l *limiter) enter(ctx context.Context, key *store.Key, now time.Time) (ok bool, err error) {
	l.withKey(key.ID, now, func(a *allowance) {
		if l.quotas == nil {
			a.slots = key.Concurrency
		} else if a.inFlight >= a.slots && !now.Before(a.pause) {
			want := min(key.Concurrency, a.inFlight+max(1, key.Concurrency/slotSlack))
			if err = l.lease(ctx, a, key.ID, key.Concurrency, want, now); err != nil {
				return
			}
			if a.inFlight >= a.slots {
				a.pause = now.Add(slotPause)
			}
		}
		if ok = a.inFlight < a.slots; ok {
			a.inFlight++
		}
	})
	return ok, err
}

// leave undoes enter. Slots that this gateway should not keep return to the
// database before the client gets its answer, because the client's next request
// may reach another gateway and needs them there.
func (l *limiter) leave(ctx context.Context, key *store.Key) {
	now := time.Now()
	ctx, cancel := withStateTimeout(context.WithoutCancel(ctx))
	defer cancel()
	l.withKey(key.ID, now, func(a *allowance) {
		a.inFlight--
		if l.quotas == nil || a.slots-a.inFlight <= key.Concurrency/slotSlack {
			return
		}
		if err := l.lease(ctx, a, key.ID, key.Concurrency, a.inFlight, now); err != nil {
			l.log.Warn("could not return the unused slots of a key; the lease expires by itself", "key", key.ID, "cause", err)
		}
	})
}

// lease asks the database for want slots in place of those that the gateway
// holds.
func (l *limiter) lease(ctx context.Context, a *allowance, key string, limit, want int64, now time.Time) error {
	slots, err := l.quotas.LeaseSlots(ctx, key, l.gateway, limit, want, now.Add(slotLease), now)
	if err != nil {
		return err
	}
	a.slots = slots
	return nil
}

// renew extends the leases that are in use and returns the others.
func (l *limiter) renew(ctx context.Context, now time.Time) {
	l.forget(now)
	if l.quotas == nil {
		return
	}
	l.mu.Lock()
	keys := maps.Clone(l.keys)
	l.mu.Unlock()
	for id, a := range keys {
		if ctx.Err() != nil { // the next call goes on
			return
		}
		a.mu.Lock()
		if a.slots > 0 {
			// The limit does not apply: these requests run already, whatever other
			// gateways were lent since a lease expired that could not be renewed.
			if err := l.lease(ctx, a, id, math.MaxInt64, a.inFlight, now); err != nil {
				l.log.Warn("could not renew the lease on the slots of a key", "key", id, "cause", err)
			}
		}
		a.mu.Unlock()
	}
}

// forget drops the state of keys that have been idle for allowanceMemory.
func (l *limiter) forget(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, a := range l.keys {
		if !a.mu.TryLock() { // in use
			continue
		}
		if a.inFlight == 0 && now.Sub(a.used) > allowanceMemory {
			delete(l.keys, id)
		}
		a.mu.Unlock()
	}
}
