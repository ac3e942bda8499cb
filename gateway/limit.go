package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// Quotas lends what a key allows to several gateways; *store.Store is one.
type Quotas interface {
	TakeTokens(ctx context.Context, key string, rate store.Rate, want int64, now time.Time) (store.Tokens, error)
	LeaseSlots(ctx context.Context, key, gateway string, limit, want int64, until, now time.Time) (int64, error)
}

const (
	// tokenTime is how much of a key's rate a gateway borrows: what the rate
	// gives in this time, and at least one request.
	tokenTime = 100 * time.Millisecond
	// tokenMemory is how long borrowed requests may be used.
	tokenMemory = 10 * time.Second
	// slotLease is how long a gateway that died keeps its part of a key's
	// concurrency, slotRenewal how often one that lives renews it.
	slotLease   = 15 * time.Second
	slotRenewal = 5 * time.Second
	// slotSlack is the part of a key's concurrency, one in so many, that a
	// gateway may keep for itself without using it, until the next renewal.
	slotSlack = 8
	// slotPause is how long a gateway does not ask again after it got no slot.
	slotPause = 50 * time.Millisecond
	// allowanceMemory is how long the state of a key is kept that is not used.
	allowanceMemory = 25 * time.Hour // longer than the longest window takes to fill
)

// limiter holds every key to its rate and its concurrency. Alone it does so
// exactly. With other gateways it borrows in parts, so that most requests need
// no database.
type limiter struct {
	quotas  Quotas // nil when this gateway is alone
	gateway string
	log     *slog.Logger

	mu   sync.Mutex
	keys map[string]*allowance
}

// allowance is what a key may still do here. Its lock is held while the
// database is asked: requests of one key wait for each other then, none longer
// than stateTimeout, which begins before the lock is waited for.
type allowance struct {
	mu   sync.Mutex
	used time.Time

	// The bucket: full at first, tokens at updated. With other gateways it is
	// what was last seen of theirs, beside lent requests that may be used until
	// lentUntil; before empty there are none to be had.
	tokens    float64
	updated   time.Time
	lent      int64
	lentUntil time.Time
	empty     time.Time

	// Of inFlight requests, slots may be under way here; after a refusal nobody
	// asks for more before pause.
	inFlight, slots int64
	pause           time.Time
}

func newLimiter(quotas Quotas, gateway string, log *slog.Logger) *limiter {
	return &limiter{quotas: quotas, gateway: gateway, log: log, keys: make(map[string]*allowance)}
}

// of returns what a key may do, locked.
func (l *limiter) of(id string, now time.Time) *allowance {
	l.mu.Lock()
	a := l.keys[id]
	if a == nil {
		a = &allowance{tokens: math.Inf(1), updated: now}
		l.keys[id] = a
	}
	l.mu.Unlock()
	a.mu.Lock()
	a.used = now
	return a
}

// admit counts a request against its key's rate, and tells the client in
// RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) what
// is left.
func (l *limiter) admit(c *gin.Context, key *store.Key) error {
	policy(c, key)
	if key.Rate.Requests == 0 {
		return nil
	}
	now := time.Now()
	ctx, cancel := withStateTimeout(c.Request.Context())
	defer cancel()
	a := l.of(key.ID, now)
	defer a.mu.Unlock()
	ok, err := l.take(ctx, a, key, now)
	if err != nil {
		return stateAway(c, err)
	}
	a.fill(key.Rate, now)
	left := max(0, int64(a.tokens)) + a.lent
	c.Header("RateLimit", fmt.Sprintf(`"requests";r=%d;t=%d`, min(left, key.Rate.Requests), seconds(wait(key.Rate, float64(key.Rate.Requests)-a.tokens))))
	if ok {
		return nil
	}
	return &refersam.Error{
		Code:       refersam.CodeQuotaExceeded,
		Message:    fmt.Sprintf("The API key allows %s requests; wait as Retry-After says.", key.Rate),
		RetryAfter: max(a.empty.Sub(now), time.Second),
	}
}

// take takes one request out of a key's bucket.
func (l *limiter) take(ctx context.Context, a *allowance, key *store.Key, now time.Time) (bool, error) {
	if l.quotas == nil {
		a.fill(key.Rate, now)
		if a.tokens < 1 {
			a.empty = now.Add(wait(key.Rate, 1-a.tokens))
			return false, nil
		}
		a.tokens--
		return true, nil
	}
	if !now.Before(a.lentUntil) {
		a.lent = 0
	}
	if a.lent == 0 && !now.Before(a.empty) {
		batch := max(1, int64(float64(key.Rate.Requests)*tokenTime.Seconds()/key.Rate.Window.Seconds()))
		got, err := l.quotas.TakeTokens(ctx, key.ID, key.Rate, batch, now)
		if err != nil {
			return false, err
		}
		a.lent, a.lentUntil = got.Granted, now.Add(tokenMemory)
		a.tokens, a.updated = got.Left, now
		if got.Granted == 0 {
			a.empty = now.Add(wait(key.Rate, 1-got.Left))
		}
	}
	if a.lent == 0 {
		return false, nil
	}
	a.lent--
	return true, nil
}

// fill adds to the bucket what the time since it was last looked at gives.
func (a *allowance) fill(rate store.Rate, now time.Time) {
	a.tokens += float64(rate.Requests) * now.Sub(a.updated).Seconds() / rate.Window.Seconds()
	a.tokens = min(a.tokens, float64(rate.Requests))
	a.updated = now
}

// wait is how long a rate takes to give so many requests.
func wait(rate store.Rate, requests float64) time.Duration {
	return time.Duration(requests * float64(rate.Window) / float64(rate.Requests))
}

func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// policy tells what a key allows.
func policy(c *gin.Context, key *store.Key) {
	if key.Rate.Requests > 0 {
		c.Writer.Header().Add("RateLimit-Policy", fmt.Sprintf(`"requests";q=%d;w=%d`, key.Rate.Requests, seconds(key.Rate.Window)))
	}
	if key.Concurrency > 0 {
		c.Writer.Header().Add("RateLimit-Policy", `"concurrency";q=`+strconv.FormatInt(key.Concurrency, 10)+`;qu="concurrent-requests"`)
	}
}

// limitConcurrency is middleware that refuses what comes while as many requests
// of its key are under way as the key allows.
func (l *limiter) limitConcurrency(c *gin.Context) {
	key := apiKey(c)
	if key == nil || key.Concurrency == 0 {
		return
	}
	ctx, cancel := withStateTimeout(c.Request.Context())
	ok, err := l.enter(ctx, key, time.Now())
	cancel()
	if err != nil {
		fail(c, stateAway(c, err))
		return
	}
	if !ok {
		fail(c, &refersam.Error{
			Code:       refersam.CodeQuotaExceeded,
			Message:    fmt.Sprintf("The API key allows %d requests at once; wait until one is answered.", key.Concurrency),
			RetryAfter: time.Second,
		})
		return
	}
	defer l.leave(c.Request.Context(), key)
	c.Next()
}

// enter reports whether one more request of a key may be under way, and counts
// it then.
func (l *limiter) enter(ctx context.Context, key *store.Key, now time.Time) (bool, error) {
	a := l.of(key.ID, now)
	defer a.mu.Unlock()
	if l.quotas == nil {
		a.slots = key.Concurrency
	} else if a.inFlight >= a.slots && !now.Before(a.pause) {
		if err := l.lease(ctx, a, key.ID, key.Concurrency, min(key.Concurrency, a.inFlight+max(1, key.Concurrency/slotSlack)), now); err != nil {
			return false, err
		}
		if a.inFlight >= a.slots {
			a.pause = now.Add(slotPause)
		}
	}
	if a.inFlight >= a.slots {
		return false, nil
	}
	a.inFlight++
	return true, nil
}

// leave ends what enter has counted. Slots that the gateway should not keep go
// back before the client has its answer, so that its next request, which may
// come to another gateway, finds them.
func (l *limiter) leave(ctx context.Context, key *store.Key) {
	now := time.Now()
	ctx, cancel := withStateTimeout(context.WithoutCancel(ctx))
	defer cancel()
	a := l.of(key.ID, now)
	defer a.mu.Unlock()
	a.inFlight--
	if l.quotas == nil || a.slots-a.inFlight <= key.Concurrency/slotSlack {
		return
	}
	if err := l.lease(ctx, a, key.ID, key.Concurrency, a.inFlight, now); err != nil {
		l.log.Warn("slots of a key were not given back and end by themselves", "key", key.ID, "cause", err)
	}
}

// lease has the database lend a number of slots.
func (l *limiter) lease(ctx context.Context, a *allowance, key string, limit, want int64, now time.Time) error {
	slots, err := l.quotas.LeaseSlots(ctx, key, l.gateway, limit, want, now.Add(slotLease), now)
	if err != nil {
		return err
	}
	a.slots = slots
	return nil
}

// renew goes on with the leases that are used and gives the others back.
func (l *limiter) renew(ctx context.Context, now time.Time) {
	l.forget(now)
	if l.quotas == nil {
		return
	}
	l.mu.Lock()
	keys := maps.Clone(l.keys)
	l.mu.Unlock()
	for id, a := range keys {
		if ctx.Err() != nil { // the next round is soon
			return
		}
		a.mu.Lock()
		if a.slots > 0 {
			// No limit: these requests are under way, whatever was lent to others
			// since a lease that could not be renewed ended.
			if err := l.lease(ctx, a, id, math.MaxInt64, a.inFlight, now); err != nil {
				l.log.Warn("the lease of a key's slots was not renewed", "key", id, "cause", err)
			}
		}
		a.mu.Unlock()
	}
}

// forget drops the state of keys that have not been used for long.
func (l *limiter) forget(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, a := range l.keys {
		if !a.mu.TryLock() { // it is used
			continue
		}
		if a.inFlight == 0 && now.Sub(a.used) > allowanceMemory {
			delete(l.keys, id)
		}
		a.mu.Unlock()
	}
}
