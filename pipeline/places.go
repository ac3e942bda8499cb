package pipeline

import (
	"container/heap"
	"context"
	"sync"
)

// places are where CPU-bound steps run, one step per place.
//
// A waiting step's turn is the work that had been started when it arrived plus
// its own cost. Small steps therefore overtake large steps, but only until the
// later work that has overtaken a step costs as much as the step itself. No
// step starves. Unless there is one place only, heavy steps never occupy the
// last place. A small step then waits for other small steps, not for the
// seconds of a huge picture.
//
// Costs are in units of preprocess.Encoded.Cost.
type places struct {
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

func newPlaces(n int) *places { return &places{free: n, heavy: max(n-1, 1)} }

// waiter is a step that waits for a place.
type waiter struct {
	turn, arrival int64 // the lowest turn is first, then the lowest arrival
	cost          int64
	ready         chan struct{} // closed when the place is its own
	index         int           // in its heap; -1 when it is in none
}

// acquire waits for a place and returns a function that gives it back. When ctx
// ends before that, it returns the context's error.
func (p *places) acquire(ctx context.Context, cost int64) (release func(), err error) {
	p.mu.Lock()
	w := &waiter{turn: p.started + cost, arrival: p.arrived, cost: cost, ready: make(chan struct{})}
	p.arrived++
	heap.Push(p.queue(w), w)
	p.start()
	p.mu.Unlock()
	release = func() { p.release(w) }

	select {
	case <-w.ready:
	case <-ctx.Done():
		p.mu.Lock()
		if w.index >= 0 {
			heap.Remove(p.queue(w), w.index)
			p.mu.Unlock()
			return nil, ctx.Err()
		}
		p.mu.Unlock()
	}
	if err := ctx.Err(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func (p *places) queue(w *waiter) *waiters {
	if w.cost >= heavyCost {
		return &p.large
	}
	return &p.light
}

// start gives free places to waiting steps in turn.
func (p *places) start() {
	for p.free > 0 {
		next := &p.light
		if p.heavy > 0 && len(p.large) > 0 && (len(p.light) == 0 || p.large[0].before(p.light[0])) {
			next = &p.large
		}
		if len(*next) == 0 {
			return
		}
		w := heap.Pop(next).(*waiter)
		p.free--
		if w.cost >= heavyCost {
			p.heavy--
		}
		p.started += w.cost
		close(w.ready)
	}
}

func (p *places) release(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	if w.cost >= heavyCost {
		p.heavy++
	}
	p.start()
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
