package schedule

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/refersam/refersam"
)

const (
	// minWindow hides the way from one batch's end to the next one's start.
	minWindow = 2

	// maxFaults is how many batches must fail in a row before a replica that
	// still answers is ejected.
	maxFaults = 3

	// A batch that takes longer than stallFactor times the predicted time, and
	// at least minStall, makes its replica suspect of hanging.
	stallFactor = 6
	minStall    = 500 * time.Millisecond

	probeMin     = 200 * time.Millisecond
	probeMax     = 2 * time.Second
	probeTimeout = 20 * time.Second
)

// health is whether a replica is used.
type health uint8

const (
	joining health = iota // it has still to pass a probe
	usable
	ejected // it failed, and has to pass a probe
	gone    // it is no longer in the set
)

// replica is what is known of a Replica.
//
// Only a usable one is sent batches. One goroutine at most, probe, runs while
// it is joining or ejected, and makes it usable.
type replica[R, A any] struct {
	Replica[R, A]
	health   health
	since    time.Time // of health
	window   int       // batches it may have at once
	slow     int       // window while it starts slowly, up to window
	inFlight []*batch[R, A]
	lastDone time.Time // when a batch last ended
	faults   int       // batches that failed in a row
	paces    map[string]*pace
	control  controller
	done     uint64 // rows answered
	failures uint64 // batches failed
}

func (r *replica[R, A]) healthy() bool { return r.health == usable }

func (r *replica[R, A]) pace(model string) *pace {
	p := r.paces[model]
	if p == nil {
		p = &pace{}
		r.paces[model] = p
	}
	return p
}

// free returns when the last batch under way is done; the zero time if none
// is.
func (r *replica[R, A]) free(now time.Time) time.Time {
	n := len(r.inFlight)
	if n == 0 {
		return time.Time{}
	}
	if last := r.inFlight[n-1].finish; last.After(now) {
		return last
	}
	return now
}

// replan predicts anew when the batches under way are done.
func (r *replica[R, A]) replan(now time.Time) {
	last := r.lastDone
	for _, b := range r.inFlight {
		b.finish = r.pace(b.queue.model).finish(b.sent, last, len(b.rows))
		if b.finish.Before(now) {
			b.finish = now
		}
		last = b.finish
	}
}

// room reports whether the replica may be sent one more batch.
func (r *replica[R, A]) room() bool {
	return r.healthy() && len(r.inFlight) < min(r.window, r.slow)
}

// SetReplicas says which replicas there are. One that is new is used once it
// has passed a probe; one that is gone is sent nothing more, and what it is
// doing is left to end.
func (s *Scheduler[R, A]) SetReplicas(replicas []Replica[R, A]) {
	s.mu.Lock()
	defer s.unlock()
	s.replicas = slices.DeleteFunc(s.replicas, func(r *replica[R, A]) bool {
		if slices.ContainsFunc(replicas, func(n Replica[R, A]) bool { return n.Name() == r.Name() }) {
			return false
		}
		r.health, r.since = gone, time.Now()
		s.log.Info("replica left", "replica", r.Name())
		return true
	})
	for _, n := range replicas {
		if s.closed || slices.ContainsFunc(s.replicas, func(r *replica[R, A]) bool { return n.Name() == r.Name() }) {
			continue
		}
		r := &replica[R, A]{
			Replica: n,
			since:   time.Now(),
			window:  min(max(minWindow, s.cfg.StartWindow), s.cfg.MaxWindow),
			paces:   make(map[string]*pace),
		}
		s.replicas = append(s.replicas, r)
		s.run.Go(func() { s.probe(r, 0) })
	}
	s.failLonely()
	s.dispatch()
}

// SetModels says which models there are. For the sake of admission each
// replica is measured with blank rows of a model that is new to it.
func (s *Scheduler[R, A]) SetModels(models map[string]int) {
	s.mu.Lock()
	defer s.unlock()
	s.queues = slices.DeleteFunc(s.queues, func(q *queue[R, A]) bool {
		return models[q.model] == 0 && q.waiting == 0
	})
	for model, maxBatch := range models {
		q := s.queueFor(model, maxBatch)
		for _, r := range s.replicas {
			if r.healthy() && !s.closed && s.settings.Admission && !r.pace(model).alone.known() {
				s.run.Go(func() { _ = s.measure(s.ctx, r, q.model, q.maxBatch) })
			}
		}
	}
}

// Usable reports whether there is a replica that rows can be sent to.
func (s *Scheduler[R, A]) Usable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.anyUsable()
}

func (s *Scheduler[R, A]) anyUsable() bool {
	return slices.ContainsFunc(s.replicas, (*replica[R, A]).healthy)
}

// WaitUsable waits until there is a replica that rows can be sent to.
func (s *Scheduler[R, A]) WaitUsable(ctx context.Context) error {
	for {
		s.mu.Lock()
		usable, joined := s.anyUsable(), s.joined
		s.mu.Unlock()
		if usable {
			return nil
		}
		select {
		case <-ctx.Done():
			return &refersam.Error{Code: refersam.CodeUnavailable, Message: messageNone, Err: ctx.Err()}
		case <-joined:
		}
	}
}

// measure runs blank rows on a replica, single ones and full batches, and
// learns how long they take. The first batch of a size is not counted: it pays
// for what the replica prepares once.
func (s *Scheduler[R, A]) measure(ctx context.Context, r *replica[R, A], model string, maxBatch int) error {
	for _, n := range []int{1, maxBatch} {
		for round := range 2 {
			begin := time.Now()
			if err := r.Warm(ctx, model, n); err != nil {
				return err
			}
			if round == 0 {
				continue
			}
			s.mu.Lock()
			r.pace(model).alone.observe(n, time.Since(begin))
			s.mu.Unlock()
		}
	}
	return s.measureGaps(ctx, r, model, maxBatch)
}

// measureGaps sends full batches at once and learns how long after one another
// they are done.
func (s *Scheduler[R, A]) measureGaps(ctx context.Context, r *replica[R, A], model string, maxBatch int) error {
	const batches = 3
	type end struct {
		at  time.Time
		err error
	}
	ends := make(chan end, batches)
	for range batches {
		go func() {
			err := r.Warm(ctx, model, maxBatch)
			ends <- end{time.Now(), err}
		}()
	}
	var last time.Time
	var errs []error
	for i := range batches {
		e := <-ends
		errs = append(errs, e.err)
		if i > 0 && e.err == nil {
			s.mu.Lock()
			r.pace(model).spaced.observe(maxBatch, max(e.at.Sub(last), 0))
			s.mu.Unlock()
		}
		last = e.at
	}
	return errors.Join(errs...)
}

// probe makes a replica usable as soon as it runs a batch of every model: one
// that still says it is ready may have lost the process that runs a model.
func (s *Scheduler[R, A]) probe(r *replica[R, A], wait time.Duration) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(wait):
		}
		err := s.probeModels(r)
		s.mu.Lock()
		if s.closed || r.health == gone {
			s.unlock()
			return
		}
		if err == nil {
			s.log.Info("replica is usable", "replica", r.Name(), "after", time.Since(r.since).Round(time.Millisecond))
			r.health, r.since = usable, time.Now()
			r.faults, r.slow = 0, 1
			r.lastDone = time.Now()
			close(s.joined)
			s.joined = make(chan struct{})
			s.dispatch()
			s.unlock()
			return
		}
		s.unlock()
		s.log.Debug("replica failed its probe", "replica", r.Name(), "cause", err)
		wait = min(max(2*wait, probeMin), probeMax)
	}
}

// probeModels runs a blank row of every model on a replica, and measures it
// with those that are new to it.
func (s *Scheduler[R, A]) probeModels(r *replica[R, A]) error {
	ctx, cancel := context.WithTimeout(s.ctx, probeTimeout)
	defer cancel()
	type model struct {
		name     string
		maxBatch int
		known    bool
	}
	var models []model
	s.mu.Lock()
	for _, q := range s.queues {
		known := r.pace(q.model).alone.known() || !s.settings.Admission
		models = append(models, model{q.model, q.maxBatch, known})
	}
	s.mu.Unlock()
	for _, m := range models {
		var err error
		if m.known {
			err = r.Warm(ctx, m.name, 1)
		} else {
			err = s.measure(ctx, r, m.name, m.maxBatch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// eject stops using a replica, and gives the rows that it has to others.
func (s *Scheduler[R, A]) eject(r *replica[R, A], cause error) {
	if !r.healthy() {
		return
	}
	s.log.Warn("replica ejected", "replica", r.Name(), "cause", cause)
	r.health, r.since = ejected, time.Now()
	s.counts.ejections++
	for _, b := range slices.Clone(r.inFlight) {
		s.lost(b, cause)
	}
	s.failLonely()
	s.run.Go(func() { s.probe(r, probeMin) })
}

// fault counts a failed batch against its replica.
func (s *Scheduler[R, A]) fault(r *replica[R, A], err error) {
	r.failures++
	r.faults++
	switch code := refersam.ErrorCode(err); {
	case code == refersam.CodeUnavailable, code == refersam.CodeNotReady, r.faults >= maxFaults:
		s.eject(r, err)
	}
}

// stalled looks at a batch that has not ended in its time. As long as there is
// another replica, it is better to suppose that this one hangs.
func (s *Scheduler[R, A]) stalled(b *batch[R, A]) {
	s.mu.Lock()
	defer s.unlock()
	if !slices.Contains(b.replica.inFlight, b) || !s.others(b.replica) {
		return
	}
	s.eject(b.replica, errors.New("it does not answer"))
	s.dispatch()
}

// others reports whether a replica is not the only one that can be used.
func (s *Scheduler[R, A]) others(r *replica[R, A]) bool {
	return slices.ContainsFunc(s.replicas, func(other *replica[R, A]) bool { return other != r && other.healthy() })
}
