package access

import (
	"context"
	"sync"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// Ledger stores usage; *store.Store is one.
type Ledger interface {
	// AddUsage adds the batch numbered seq of a gateway. A second call with the
	// same gateway and seq changes nothing.
	AddUsage(ctx context.Context, gateway string, seq int64, batch map[store.KeyDay]store.Use, now time.Time) error
	Usage(ctx context.Context, key, from, to string) ([]store.Used, error)
}

// FlushInterval is how often Flush must be called. A process that is killed
// loses the counts since the last call.
const FlushInterval = time.Second

// Meter counts what each key uses and stores the counts in batches. Counts that
// could not be stored are kept and stored by a later call.
type Meter struct {
	ledger  Ledger
	gateway string

	mu     sync.Mutex
	counts map[store.KeyDay]store.Use // since the last batch

	flushing sync.Mutex // guards seq and batch
	seq      int64
	batch    map[store.KeyDay]store.Use // the batch numbered seq; empty once it is stored
}

func newMeter(ledger Ledger, gateway string) *Meter {
	return &Meter{ledger: ledger, gateway: gateway, counts: make(map[store.KeyDay]store.Use)}
}

// CountRequest counts one request of a key that was answered with masks or with
// a job.
func (m *Meter) CountRequest(key string) { m.add(key, store.Use{Requests: 1}, time.Now()) }

// CountPicture counts one picture and the model time that its phrases took.
// Requests are counted separately, because one request may hold many pictures
// or leave them to a job.
func (m *Meter) CountPicture(key string, resp *refersam.Response) {
	use := store.Use{Pictures: 1}
	for i := range resp.Results {
		use.GPU += resp.Results[i].ModelTime
	}
	m.add(key, use, time.Now())
}

func (m *Meter) add(key string, use store.Use, now time.Time) {
	at := store.KeyDay{Key: key, Day: now.UTC().Format(time.DateOnly)}
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := m.counts[at]
	sum.Add(use)
	m.counts[at] = sum
}

// Usage returns what one key, or every key if key is "", used between two days,
// inclusive, in the form of time.DateOnly. It includes everything counted before
// the call.
func (m *Meter) Usage(ctx context.Context, key, from, to string) ([]store.Used, error) {
	if err := m.Flush(ctx); err != nil {
		return nil, store.Unavailable(err)
	}
	used, err := m.ledger.Usage(ctx, key, from, to)
	if err != nil {
		return nil, store.Unavailable(err)
	}
	return used, nil
}

// Flush stores everything that was counted before the call. After an error
// nothing is lost and nothing counts twice, because the next call sends the same
// batch under the same number.
func (m *Meter) Flush(ctx context.Context) error {
	m.flushing.Lock()
	defer m.flushing.Unlock()
	if err := m.write(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	m.batch, m.counts = m.counts, make(map[store.KeyDay]store.Use)
	m.mu.Unlock()
	if len(m.batch) > 0 {
		m.seq++
	}
	return m.write(ctx)
}

func (m *Meter) write(ctx context.Context) error {
	if len(m.batch) == 0 {
		return nil
	}
	if err := m.ledger.AddUsage(ctx, m.gateway, m.seq, m.batch, time.Now()); err != nil {
		return err
	}
	m.batch = nil
	return nil
}
