package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// Ledger keeps what was used; *store.Store is one.
type Ledger interface {
	// AddUsage adds a batch once, however often it is called.
	AddUsage(ctx context.Context, gateway string, seq int64, batch map[store.KeyDay]store.Use, now time.Time) error
	Usage(ctx context.Context, key, from, to string) ([]store.Used, error)
}

// flushInterval is how often what was counted is written: a gateway that is
// killed loses the counts of that time.
const flushInterval = time.Second

// counter counts usage and writes it in batches. What could not be written is
// kept and written later.
type counter struct {
	ledger  Ledger
	gateway string

	mu     sync.Mutex
	counts map[store.KeyDay]store.Use // since the last batch

	flushing sync.Mutex // guards what follows
	seq      int64
	batch    map[store.KeyDay]store.Use // the one numbered seq; empty once it is written
}

func newCounter(ledger Ledger, gateway string) *counter {
	return &counter{ledger: ledger, gateway: gateway, counts: make(map[store.KeyDay]store.Use)}
}

// add counts what a key has used.
func (u *counter) add(key string, use store.Use, now time.Time) {
	at := store.KeyDay{Key: key, Day: now.UTC().Format(time.DateOnly)}
	u.mu.Lock()
	defer u.mu.Unlock()
	sum := u.counts[at]
	sum.Add(use)
	u.counts[at] = sum
}

// addRequest counts a request of a key that was answered with masks or a job.
func (u *counter) addRequest(key string) { u.add(key, store.Use{Requests: 1}, time.Now()) }

// flush writes all that was counted before the call. After an error nothing is
// lost and nothing counts twice: the same batch is tried again.
func (u *counter) flush(ctx context.Context) error {
	u.flushing.Lock()
	defer u.flushing.Unlock()
	if err := u.write(ctx); err != nil {
		return err
	}
	u.mu.Lock()
	u.batch, u.counts = u.counts, make(map[store.KeyDay]store.Use)
	u.mu.Unlock()
	if len(u.batch) > 0 {
		u.seq++
	}
	return u.write(ctx)
}

func (u *counter) write(ctx context.Context) error {
	if len(u.batch) == 0 {
		return nil
	}
	if err := u.ledger.AddUsage(ctx, u.gateway, u.seq, u.batch, time.Now()); err != nil {
		return err
	}
	u.batch = nil
	return nil
}

// spent is what a picture has used. Requests are counted by who answers them: one
// may have many pictures, or leave them to a job.
func spent(resp *refersam.Response) store.Use {
	use := store.Use{Pictures: 1}
	for i := range resp.Results {
		use.GPU += resp.Results[i].ModelTime
	}
	return use
}

// usageDays is how many days GET /v1/usage tells of by default, maxUsageDays
// how many at most.
const (
	usageDays    = 30
	maxUsageDays = 366
)

// usageAnswer is what keys have used, by day and key.
type usageAnswer struct {
	From  string     `json:"from"`
	To    string     `json:"to"`
	Usage []usageDay `json:"usage"`
}

type usageDay struct {
	Day      string  `json:"day"`
	Key      string  `json:"key"`
	Requests int64   `json:"requests"`
	Pictures int64   `json:"pictures"`
	GPUMS    float64 `json:"gpu_ms"`
}

// usage answers GET /v1/usage: what the client's key has used or, with the
// scope admin, what one key or all have.
func (g *Gateway) usage(c *gin.Context) error {
	if err := onlyParams(c, "from", "to", "key"); err != nil {
		return err
	}
	from, to, err := usageRange(c, time.Now().UTC())
	if err != nil {
		return err
	}
	wanted, named := c.GetQuery("key")
	if named && wanted == "" {
		return invalid("key", "The id of the key is empty; leave the parameter out for all keys.")
	}
	if key := apiKey(c); key != nil && !key.Has(store.ScopeAdmin) {
		if wanted != "" && wanted != key.ID {
			return forbidden(c, store.ScopeAdmin)
		}
		wanted = key.ID
	}
	ctx := c.Request.Context()
	if err := g.counter.flush(ctx); err != nil {
		return databaseAway(err)
	}
	used, err := g.state.Usage(ctx, wanted, from, to)
	if err != nil {
		return databaseAway(err)
	}
	answer := usageAnswer{From: from, To: to, Usage: []usageDay{}}
	for _, u := range used {
		answer.Usage = append(answer.Usage, usageDay{u.Day, u.Key, u.Requests, u.Pictures, milliseconds(u.GPU)})
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, answer)
}

// usageRange returns the first and the last day that a client asks for.
func usageRange(c *gin.Context, now time.Time) (from, to string, err error) {
	last, err := day(c, "to", now)
	if err != nil {
		return "", "", err
	}
	first, err := day(c, "from", last.AddDate(0, 0, 1-usageDays))
	if err != nil {
		return "", "", err
	}
	if first.After(last) || last.Sub(first) >= maxUsageDays*24*time.Hour {
		return "", "", invalid("from", "Between from and to there may be %d days at most, and from comes first.", maxUsageDays)
	}
	return first.Format(time.DateOnly), last.Format(time.DateOnly), nil
}

func day(c *gin.Context, name string, unless time.Time) (time.Time, error) {
	value, given := c.GetQuery(name)
	if !given {
		return unless, nil
	}
	t, err := time.Parse(time.DateOnly, value)
	if err != nil {
		return t, invalid(name, "A day is written as 2026-11-22, in UTC.")
	}
	return t, nil
}
