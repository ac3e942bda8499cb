package pipeline

import (
	"container/heap"
	"context"
	"sync"
)

// cpuSlots run CPU-bound steps, one step per slot.
//
// A waiting step's turn is the work that had been started when it arrived plus
// its own cost. Small steps therefore overtake large steps, but only until the
// later work that has overtaken a step costs as much as the step itself. No
// step starves. Unless there is one slot only, heavy steps never occupy the
// last slot. A small step then waits for other small steps, not for the
// seconds of a huge picture.
//
// Costs are in units of preprocess.Encoded.Cost.
type cpuSlots struct {
	mu      sync.Mutex
	free    int
	heavy   int // more heavy steps that may start
	started int64
	light   waiters // of cost below heavyCost
	large   waiters
	arrived int64
}

// heavyCost is what a step costs that takes a quarter of a second: a PNG or
// WebP of 10 megapixels, a progressive JPEG of 20.
const heavyCost = 64 << 20

func newCPUSlots(n int) *cpuSlots { return &cpuSlots{free: n, heavy: max(n-1, 1)} }

// waiter is a step that waits for a slot.
type waiter struct {
	turn, arrival int64 // the lowest turn is first, then the lowest arrival
	cost          int64
	ready         chan struct{} // closed when the slot is its own
	index         int           // in its heap; -1 when it is in none
}

// acquire waits for a slot and returns a function that gives it back. When ctx
// ends before that, it returns the context's error.
func (s *cpuSlots) acquire(ctx context.Context, cost int64) (release func(), err error) {
	s.mu.Lock()
	w := &waiter{turn: s.started + cost, arrival: s.arrived, cost: cost, ready: make(chan struct{})}
	s.arrived++
	heap.Push(s.queue(w), w)
	s.start()
	s.mu.Unlock()
	release = func() { s.release(w) }

	select {
	case <-w.ready:
	case <-ctx.Done():
		s.mu.Lock()
		if w.index >= 0 {
			heap.Remove(s.queue(w), w.index)
			s.mu.Unlock()
			return nil, ctx.Err()
		}
		s.mu.Unlock()
	}
	if err := ctx.Err(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (s *cpuSlots) queue(w *waiter) *waiters {
	if w.cost >= heavyCost {
		return &s.large
	}
	return &s.light
}

// start gives free slots to waiting steps in turn.
func (s *cpuSlots) start() {
	for s.free > 0 {
		next := &s.light
		if s.heavy > 0 && len(s.large) > 0 && (len(s.light) == 0 || s.large[0].before(s.light[0])) {
			next = &s.large
		}
		if len(*next) == 0 {
			return
		}
		w := heap.Pop(next).(*waiter)
		s.free--
		if w.cost >= heavyCost {
			s.heavy--
		}
		s.started += w.cost
		close(w.ready)
	}
}

func (s *cpuSlots) release(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	if w.cost >= heavyCost {
		s.heavy++
	}
	s.start()
}

func (w *waiter) before(other *waiter) bool {
	if w.turn != other.turn {
		return w.turn < other.turn
	}
	return w.arrival < other.arrival
}

// waiters is a heap.Interface.
type waiters []*waiter

func (q waiters) Len() int           { return len(q) }
func (q waiters) Less(i, j int) bool { return q[i].before(q[j]) }

func (q waiters) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *waiters) Push(x any) {
	w := x.(*waiter)
	w.index = len(*q)
	*q = append(*q, w)
}

func (q *waiters) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.index = -1
	return w
}
