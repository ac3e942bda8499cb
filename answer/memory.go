package answer

import (
	"context"
	"sync"

	"github.com/refersam/refersam"
	"golang.org/x/sync/semaphore"
)

// Memory bounds the bytes of bodies and pictures that all requests in flight
// hold together. One client may hold at most three quarters of it, so that a
// client with slow connections cannot block the others.
type Memory struct {
	total *semaphore.Weighted
	size  int64
	quota int64 // of one client

	mu      sync.Mutex
	clients map[string]*clientMemory
}

// clientMemory is what one client may hold. leases counts the leases that refer
// to it.
type clientMemory struct {
	free   *semaphore.Weighted
	leases int
}

// NewMemory makes a Memory of a number of bytes.
func NewMemory(bytes int64) *Memory {
	return &Memory{total: semaphore.NewWeighted(bytes), size: bytes, quota: max(1, bytes/4*3), clients: make(map[string]*clientMemory)}
}

// Lease returns an empty lease of a client. The caller must close it.
func (m *Memory) Lease(client string) *Lease {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.clients[client]
	if c == nil {
		c = &clientMemory{free: semaphore.NewWeighted(m.quota)}
		m.clients[client] = c
	}
	c.leases++
	return &Lease{memory: m, client: client, quota: c}
}

// Lease is one request's share of a Memory. Only a request that holds nothing
// may block for more; otherwise two requests could deadlock. A Lease is not safe
// for concurrent use.
type Lease struct {
	memory *Memory
	client string
	quota  *clientMemory

	held   int64 // bytes of memory.total
	quoted int64 // bytes of quota.free; the quota may be smaller than one request
	noWait bool
}

// NoWait makes Take fail at once when memory is short. The caller must set it if
// its request holds memory in another lease, because waiting could then deadlock.
// That lease has already passed the client's quota.
func (l *Lease) NoWait() { l.noWait = true }

// Empty reports whether the lease holds nothing.
func (l *Lease) Empty() bool { return l.held == 0 }

// Take adds n bytes, or all of the memory if it is smaller. An empty lease waits
// until ctx ends. The error is a *refersam.Error with refersam.CodeOverloaded.
func (l *Lease) Take(ctx context.Context, n int64) error {
	n = min(n, l.memory.size)
	wait := l.held == 0 && !l.noWait
	var quoted int64
	if !l.noWait {
		quoted = min(n, l.memory.quota)
		if err := acquire(ctx, l.quota.free, quoted, wait); err != nil {
			return err
		}
	}
	if err := acquire(ctx, l.memory.total, n, wait); err != nil {
		l.quota.free.Release(quoted)
		return err
	}
	l.held, l.quoted = l.held+n, l.quoted+quoted
	return nil
}

// Release returns what the lease holds. The lease can be used again.
func (l *Lease) Release() {
	l.memory.total.Release(l.held)
	l.quota.free.Release(l.quoted)
	l.held, l.quoted = 0, 0
}

// Close returns what the lease holds and ends it.
func (l *Lease) Close() {
	l.Release()
	l.memory.mu.Lock()
	defer l.memory.mu.Unlock()
	if l.quota.leases--; l.quota.leases == 0 {
		delete(l.memory.clients, l.client)
	}
}

func acquire(ctx context.Context, memory *semaphore.Weighted, n int64, wait bool) error {
	err := context.DeadlineExceeded
	if wait {
		err = memory.Acquire(ctx, n)
	} else if memory.TryAcquire(n) {
		err = nil
	}
	if err != nil {
		return &refersam.Error{Code: refersam.CodeOverloaded, Message: "The service is out of request memory; retry shortly.", Err: err}
	}
	return nil
}
