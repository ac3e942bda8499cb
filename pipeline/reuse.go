package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/refersam/refersam"
	"go.opentelemetry.io/otel/trace"
)

// workID names a piece of work: the answer to one phrase in one picture by one
// set of weights. Equal ids have equal answers.
type workID struct {
	queue   string // names the contract, see served.name
	picture [sha256.Size]byte
	ids     string // token ids and mask
}

// newWorkID makes the id of a phrase with the given token ids and mask.
func newWorkID(queue string, picture [sha256.Size]byte, ids, mask []int32) workID {
	b := make([]byte, 0, 5*len(ids))
	for i := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(ids[i]))
		b = append(b, byte(mask[i]))
	}
	return workID{queue, picture, string(b)}
}

// modelAnswer is the result of a piece of work.
type modelAnswer struct {
	logits        refersam.Logits
	width, height int // of the upright picture
}

// flight is a piece of work under way, which several requests may wait for.
type flight struct {
	id       workID
	priority refersam.Priority
	deadline time.Time
	leader   trace.SpanContext // of the request that began it
	waiters  int               // guarded by reuse.mu
	abandon  func()            // called once, without locks, when the last waiter has left
	done     chan struct{}     // closed once what follows is set
	answer   modelAnswer
	decode   time.Duration // how long decoding the picture took; set before done is closed
	err      error
	spent    time.Duration // what the model took for it
}

// reuse keeps a piece of work from being done twice: at the same time by
// flights, later by a cache.
type reuse struct {
	mu      sync.Mutex
	flights map[workID]*flight
	cache   *otter.Cache[workID, modelAnswer] // nil when there is none
}

// cacheOverhead is what an entry of the cache takes beside its logits, about.
const cacheOverhead = 512

func newReuse(bytes int64, ttl time.Duration) (*reuse, error) {
	r := &reuse{flights: make(map[workID]*flight)}
	if bytes == 0 {
		return r, nil
	}
	var err error
	r.cache, err = otter.New(&otter.Options[workID, modelAnswer]{
		MaximumWeight: uint64(bytes),
		Weigher: func(id workID, a modelAnswer) uint32 {
			return uint32(4*len(a.logits.Values) + len(id.ids) + cacheOverhead)
		},
		ExpiryCalculator: otter.ExpiryWriting[workID, modelAnswer](ttl),
	})
	return r, err
}

// cached returns the cached answer to a piece of work.
func (r *reuse) cached(id workID) (modelAnswer, bool) {
	if r.cache == nil {
		return modelAnswer{}, false
	}
	return r.cache.GetIfPresent(id)
}

// join waits along for a piece of work that is under way and at least as
// urgent, or makes a flight of it that the caller leads: it sees to it that
// settle is called.
func (r *reuse) join(id workID, priority refersam.Priority, deadline time.Time, leader trace.SpanContext) (f *flight, leads bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f = r.flights[id]; f != nil && !priority.Before(f.priority) {
		f.waiters++
		return f, false
	}
	f = &flight{id: id, priority: priority, deadline: deadline, leader: leader, waiters: 1, done: make(chan struct{})}
	r.flights[id] = f
	return f, true
}

// leave ends the wait for a flight. Nobody can join one that the last waiter
// has left.
func (r *reuse) leave(f *flight) {
	r.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last {
		r.forget(f)
	}
	r.mu.Unlock()
	if last && f.abandon != nil {
		f.abandon()
	}
}

// settle ends a flight with its answer or its error.
func (r *reuse) settle(f *flight, answer modelAnswer, err error) {
	if err == nil && r.cache != nil {
		r.cache.Set(f.id, answer)
	}
	r.mu.Lock()
	r.forget(f)
	r.mu.Unlock()
	f.answer, f.err = answer, err
	close(f.done)
}

func (r *reuse) forget(f *flight) {
	if r.flights[f.id] == f {
		delete(r.flights, f.id)
	}
}

func (r *reuse) close() {
	if r.cache != nil {
		r.cache.StopAllGoroutines()
	}
}
