package schedule

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// probeTimeout bounds a blank row, and everything that is measured after
	// it. The largest models take many seconds for a row on a CPU.
	probeTimeout = time.Minute

	// measureBudget is how much time blank rows of one model may take on a
	// replica beside the first row.
	measureBudget = 2 * time.Second
	// measureGapped is how many full batches are sent at once to measure how
	// long after one another they are done.
	measureGapped = 3
	// measureSingles is how many single rows there are after the first one, at
	// most.
	measureSingles = 3
	// steady is what part of the shortest duration so far a row must take for
	// the durations to count as still falling.
	steady = 0.9
)

// introduce runs blank rows of a model on a replica. The first row shows that
// the replica runs the model. No more follow while requests are served, without
// admission, or if that row has taken the whole budget. Otherwise more rows pay
// for what the server prepares once, and measure how fast it is.
func (r *replica[R, A]) introduce(q *queue[R, A]) error {
	s := r.scheduler
	ctx, cancel := context.WithTimeout(s.ctx, probeTimeout)
	defer cancel()
	begin := time.Now()
	if err := r.Warm(ctx, q.model, 1); err != nil {
		return err
	}
	first := time.Since(begin)
	m := &measurement[R, A]{s: s, r: r, model: q.model, best: first, end: time.Now().Add(measureBudget - first)}
	s.mu.Lock()
	r.coming = true
	p := r.pace(q.model)
	most := q.maxRows()
	measured := p.alone.sizes[most] != nil
	p.alone.blank(1, first, p.batches)
	if !s.settings.Admission || s.working() {
		s.mu.Unlock()
		return nil
	}
	m.ctx, r.stop = context.WithCancel(ctx)
	s.mu.Unlock()
	err := m.run(most, measured)
	stopped := m.ctx.Err() != nil && ctx.Err() == nil
	s.mu.Lock()
	r.stop()
	r.stop = nil
	s.mu.Unlock()
	if stopped {
		return nil
	}
	return err
}

// working reports whether there are rows that wait, or are under way.
func (s *Scheduler[R, A]) working() bool {
	return slices.ContainsFunc(s.queues, func(q *queue[R, A]) bool { return q.waiting > 0 }) ||
		slices.ContainsFunc(s.replicas, func(r *replica[R, A]) bool { return len(r.inFlight) > 0 })
}

// stopMeasuring ends every measurement under way: there is real work.
func (s *Scheduler[R, A]) stopMeasuring() {
	for _, r := range s.replicas {
		if r.stop != nil {
			r.stop()
		}
	}
}

// measurement measures how fast a replica runs a model, with blank rows.
type measurement[R, A any] struct {
	s     *Scheduler[R, A]
	r     *replica[R, A]
	model string
	ctx   context.Context // ends when there is real work
	end   time.Time       // of the budget
	best  time.Duration   // the shortest that one row took
}

// run measures single rows until they are no longer getting faster, and unless
// larger batches are known, the largest ones that there is time for.
func (m *measurement[R, A]) run(most int, measured bool) error {
	for range measureSingles {
		if !m.affords(m.best) {
			return m.ctx.Err()
		}
		took, err := m.batch(1)
		if err != nil {
			return err
		}
		faster := float64(took) < steady*float64(m.best)
		m.best = min(m.best, took)
		if !faster {
			break
		}
	}
	// A batch takes at most as long as its rows would one by one. The first one
	// of its size prepares it, the second one counts, and as long again is for
	// what follows.
	rows := most
	for rows > 1 && !m.affords(time.Duration(4*rows)*m.best) {
		rows /= 2
	}
	if measured || rows == 1 {
		return m.ctx.Err()
	}
	if _, err := m.batch(rows); err != nil {
		return err
	}
	took, err := m.batch(rows)
	if err != nil {
		return err
	}
	if !m.affords(measureGapped * took) {
		return m.ctx.Err()
	}
	return m.gaps(rows, took)
}

// affords reports whether d fits into the rest of the budget.
func (m *measurement[R, A]) affords(d time.Duration) bool { return time.Now().Add(d).Before(m.end) }

// batch measures how long n rows take alone.
func (m *measurement[R, A]) batch(n int) (time.Duration, error) {
	begin := time.Now()
	if err := m.r.Warm(m.ctx, m.model, n); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	p := m.r.pace(m.model)
	p.alone.blank(n, took, p.batches)
	return took, nil
}

// gaps sends batches of n rows at once and measures how much longer they take
// than alone, what one of them takes. Their ends alone would say too little:
// where the stages of a server share one device, the batches overtake one another
// in turns and end nearly together (measured: gaps of 37 ms between batches of
// 136 ms).
func (m *measurement[R, A]) gaps(n int, alone time.Duration) error {
	ends := make(chan error, measureGapped)
	begin := time.Now()
	for range measureGapped {
		go func() { ends <- m.r.Warm(m.ctx, m.model, n) }()
	}
	var errs []error
	for range measureGapped {
		errs = append(errs, <-ends)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	more := max(time.Since(begin)-alone, 0)
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	p := m.r.pace(m.model)
	p.spaced.blank(n, more/(measureGapped-1), p.batches)
	return nil
}
