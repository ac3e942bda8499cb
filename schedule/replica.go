package schedule

import (
	"context"
	"errors"
	"maps"
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

	probeMin = 200 * time.Millisecond
	probeMax = 2 * time.Second

	// maxAbandoned is how long a replica is taken to go on with a batch that
	// was given up, at most.
	maxAbandoned = 10 * time.Second
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
// Only a usable one is sent batches, and only of models that it serves: it is
// usable as long as it serves one. One goroutine at most, probe, runs while
// there is a model that it does not serve.
type replica[R, A any] struct {
	Replica[R, A]
	scheduler *Scheduler[R, A]
	health    health
	since     time.Time // of health
	window    int       // batches it may have at once
	slow      int       // window while it starts slowly, up to window
	inFlight  []*batch[R, A]
	lastDone  time.Time        // when a batch last ended
	serves    map[string]bool  // by model: it has passed a probe of it, and not failed since
	causes    map[string]error // by model: why it does not serve it
	faults    map[string]int   // by model: batches that failed in a row
	probing   bool             // probe runs
	// coming says that the replica has run a blank row, and that more blank rows
	// follow before probe is done with every model.
	coming bool
	stop   context.CancelFunc // ends the measurement under way, if there is one
	// abandoned is until when the replica may go on with a batch that was given
	// up.
	abandoned time.Time
	maxWindow int // that window may grow to
	paces     map[string]*pace
	control   controller
	done      uint64 // rows answered
	failures  uint64 // batches failed
}

func (r *replica[R, A]) healthy() bool { return r.health == usable }

// serving reports whether rows of a model may be sent to r.
func (r *replica[R, A]) serving(model string) bool { return r.healthy() && r.serves[model] }

// forget drops what is known of models that are gone, but for how long they
// take: a model that comes back has to pass a probe again.
func (r *replica[R, A]) forget(gone func(model string) bool) {
	maps.DeleteFunc(r.serves, func(model string, _ bool) bool { return gone(model) })
	maps.DeleteFunc(r.causes, func(model string, _ error) bool { return gone(model) })
	maps.DeleteFunc(r.faults, func(model string, _ int) bool { return gone(model) })
}

func (r *replica[R, A]) pace(model string) *pace {
	p := r.paces[model]
	if p == nil {
		p = newPace(r.maxWindow)
		r.paces[model] = p
	}
	return p
}

// idle reports whether the replica has nothing to do.
func (r *replica[R, A]) idle(now time.Time) bool {
	return len(r.inFlight) == 0 && now.After(r.abandoned)
}

// abandon takes in that the replica was asked to give a batch up. A server
// drops such a batch from its queues but ends the step that runs.
func (r *replica[R, A]) abandon(b *batch[R, A], now time.Time) {
	r.abandoned = later(r.abandoned, now.Add(min(b.finish.Sub(now), maxAbandoned)))
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

// hasCapacity reports whether one more batch may be sent to the replica.
func (r *replica[R, A]) hasCapacity() bool {
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
			Replica:   n,
			scheduler: s,
			since:     time.Now(),
			window:    min(max(minWindow, s.cfg.StartWindow), s.cfg.MaxWindow),
			maxWindow: s.cfg.MaxWindow,
			serves:    make(map[string]bool),
			causes:    make(map[string]error),
			faults:    make(map[string]int),
			paces:     make(map[string]*pace),
		}
		s.replicas = append(s.replicas, r)
		r.startProbe(0)
	}
	s.failLonely()
	s.dispatch()
}

// SetModels says which models there are. A replica is sent rows of a model that
// is new to it once it has run blank rows of it; see introduce.
func (s *Scheduler[R, A]) SetModels(models map[string]int) {
	s.mu.Lock()
	defer s.unlock()
	s.queues = slices.DeleteFunc(s.queues, func(q *queue[R, A]) bool {
		return models[q.model] == 0 && q.waiting == 0
	})
	clear(s.models)
	for model, maxBatch := range models {
		s.models[model] = true
		s.queueFor(model, maxBatch)
	}
	for _, r := range s.replicas {
		r.forget(func(model string) bool {
			return !slices.ContainsFunc(s.queues, func(q *queue[R, A]) bool { return q.model == model })
		})
	}
	for _, r := range s.replicas {
		r.startProbe(0)
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

// anyServing reports whether there is a replica that rows of a model can be
// sent to.
func (s *Scheduler[R, A]) anyServing(model string) bool {
	return slices.ContainsFunc(s.replicas, func(r *replica[R, A]) bool { return r.serving(model) })
}

// Trouble returns nil if there is a replica that rows of a model can be sent
// to, and else why there is none: the cause of one replica, of several
// replicas one that can be reached.
func (s *Scheduler[R, A]) Trouble(model string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble(model)
}

func (s *Scheduler[R, A]) trouble(model string) error {
	if s.anyServing(model) {
		return nil
	}
	trouble := &refersam.Error{Code: refersam.CodeUnavailable, Message: messageNone}
	for _, r := range s.replicas {
		cause := r.causes[model]
		if cause == nil || trouble.Err != nil && refersam.ErrorCode(cause) == refersam.CodeUnavailable {
			continue
		}
		trouble.Err = cause
		if refersam.ErrorCode(cause) == refersam.CodeNotReady {
			trouble.Code, trouble.Message = refersam.CodeNotReady, messageNotServed
		}
	}
	return trouble
}

// WaitUsable waits until there is a replica that rows can be sent to: of every
// one of the models, if some are named. It also waits for every other replica
// that is about to run its blank rows, so that nothing slows the first requests
// down.
func (s *Scheduler[R, A]) WaitUsable(ctx context.Context, models ...string) error {
	for {
		s.mu.Lock()
		joined := s.joined
		usable := s.anyUsable() && !slices.ContainsFunc(s.replicas, func(r *replica[R, A]) bool { return r.coming })
		for _, model := range models {
			usable = usable && s.anyServing(model)
		}
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

// startProbe has the models probed that a replica does not serve, unless that
// is under way.
func (r *replica[R, A]) startProbe(wait time.Duration) {
	s := r.scheduler
	if s.closed || r.probing || r.health == gone || r.unserved() == nil {
		return
	}
	r.probing = true
	s.run.Go(func() { r.probe(wait) })
}

// unserved returns the queues of models that a replica should serve and does
// not.
func (r *replica[R, A]) unserved() []*queue[R, A] {
	s := r.scheduler
	var queues []*queue[R, A]
	for _, q := range s.queues {
		if s.models[q.model] && !r.serves[q.model] {
			queues = append(queues, q)
		}
	}
	return queues
}

// probe makes a replica serve each model as soon as it runs a batch of it: one
// that still says it is ready may have lost the process that runs a model. It
// ends when the replica serves every model.
func (r *replica[R, A]) probe(wait time.Duration) {
	s := r.scheduler
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(wait):
		}
		s.mu.Lock()
		queues := r.unserved()
		s.mu.Unlock()
		for _, q := range queues {
			err := r.introduce(q)
			s.mu.Lock()
			r.probed(q, err)
			s.unlock()
		}
		s.mu.Lock()
		r.coming = false
		s.announce()
		if s.closed || r.health == gone || r.unserved() == nil {
			r.probing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		wait = min(max(2*wait, probeMin), probeMax)
	}
}

// announce wakes what waits for a replica.
func (s *Scheduler[R, A]) announce() {
	close(s.joined)
	s.joined = make(chan struct{})
}

// probed takes in how a probe of a model ended.
func (r *replica[R, A]) probed(q *queue[R, A], err error) {
	s := r.scheduler
	if s.closed || r.health == gone {
		return
	}
	if err != nil {
		s.log.Debug("replica failed its probe", "replica", r.Name(), "model", q.model, "cause", err)
		r.causes[q.model] = err
		return
	}
	now := time.Now()
	if !r.healthy() {
		s.log.Info("replica is usable", "replica", r.Name(), "after", now.Sub(r.since).Round(time.Millisecond))
		r.health, r.since = usable, now
		r.slow, r.lastDone = 1, now
	}
	s.log.Debug("replica serves a model", "replica", r.Name(), "model", q.model)
	r.serves[q.model], r.faults[q.model] = true, 0
	delete(r.causes, q.model)
	q.trials.restart()
	s.announce()
	s.dispatch()
}

// eject stops using a replica, and gives the rows that it has to others.
func (r *replica[R, A]) eject(cause error) {
	s := r.scheduler
	if !r.healthy() {
		return
	}
	s.log.Warn("replica ejected", "replica", r.Name(), "cause", cause)
	r.health, r.since = ejected, time.Now()
	s.counts.ejections++
	clear(r.serves)
	for _, q := range s.queues {
		r.causes[q.model] = cause
	}
	for _, b := range slices.Clone(r.inFlight) {
		b.lost(cause)
	}
	s.failLonely()
	r.startProbe(probeMin)
}

// stopServing stops sending a replica rows of one model, and gives those that it has
// to others. One that serves no other model is ejected.
func (r *replica[R, A]) stopServing(q *queue[R, A], cause error) {
	s := r.scheduler
	if !r.serving(q.model) {
		return
	}
	if len(r.serves) == 1 {
		r.eject(cause)
		return
	}
	s.log.Warn("replica no longer serves a model", "replica", r.Name(), "model", q.model, "cause", cause)
	delete(r.serves, q.model)
	r.causes[q.model] = cause
	for _, b := range slices.Clone(r.inFlight) {
		if b.queue == q {
			b.lost(cause)
		}
	}
	s.failLonely()
	r.startProbe(probeMin)
}

// fault counts a failed batch against its replica: CodeUnavailable is about all
// that the replica does, anything else about the model.
func (r *replica[R, A]) fault(q *queue[R, A], err error) {
	r.failures++
	r.faults[q.model]++
	switch code := refersam.ErrorCode(err); {
	case code == refersam.CodeUnavailable:
		r.eject(err)
	case code == refersam.CodeNotReady, r.faults[q.model] >= maxFaults:
		r.stopServing(q, err)
	}
}

// stalled looks at a batch that has not ended in its time. As long as there is
// another replica, it is better to suppose that this one hangs.
func (b *batch[R, A]) stalled() {
	s := b.queue.scheduler
	s.mu.Lock()
	defer s.unlock()
	if !slices.Contains(b.replica.inFlight, b) || !b.replica.others(b.queue.model) {
		return
	}
	b.learnAtLeast(time.Now())
	b.replica.eject(errors.New("it does not answer"))
	s.dispatch()
}

// others reports whether a replica is not the only one that serves a model.
func (r *replica[R, A]) others(model string) bool {
	s := r.scheduler
	return slices.ContainsFunc(s.replicas, func(other *replica[R, A]) bool { return other != r && other.serving(model) })
}
