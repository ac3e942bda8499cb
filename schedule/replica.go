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
// Only a usable one is sent batches, and only of models that it serves: it is
// usable as long as it serves one. One goroutine at most, probe, runs while
// there is a model that it does not serve.
type replica[R, A any] struct {
	Replica[R, A]
	health   health
	since    time.Time // of health
	window   int       // batches it may have at once
	slow     int       // window while it starts slowly, up to window
	inFlight []*batch[R, A]
	lastDone time.Time        // when a batch last ended
	serves   map[string]bool  // by model: it has passed a probe of it, and not failed since
	causes   map[string]error // by model: why it does not serve it
	faults   map[string]int   // by model: batches that failed in a row
	probing  bool             // probe runs
	paces    map[string]*pace
	control  controller
	done     uint64 // rows answered
	failures uint64 // batches failed
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
			serves:  make(map[string]bool),
			causes:  make(map[string]error),
			faults:  make(map[string]int),
			paces:   make(map[string]*pace),
		}
		s.replicas = append(s.replicas, r)
		s.startProbe(r, 0)
	}
	s.failLonely()
	s.dispatch()
}

// SetModels says which models there are. A replica is sent rows of a model that
// is new to it once it has run a blank row of it, and for the sake of admission
// it is measured with blank rows first.
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
		s.startProbe(r, 0)
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
// one of the models, if some are named.
func (s *Scheduler[R, A]) WaitUsable(ctx context.Context, models ...string) error {
	for {
		s.mu.Lock()
		joined := s.joined
		usable := s.anyUsable()
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

// startProbe has the models probed that a replica does not serve, unless that
// is under way.
func (s *Scheduler[R, A]) startProbe(r *replica[R, A], wait time.Duration) {
	if s.closed || r.probing || r.health == gone || s.unserved(r) == nil {
		return
	}
	r.probing = true
	s.run.Go(func() { s.probe(r, wait) })
}

// unserved returns the queues of models that a replica should serve and does
// not.
func (s *Scheduler[R, A]) unserved(r *replica[R, A]) []*queue[R, A] {
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
func (s *Scheduler[R, A]) probe(r *replica[R, A], wait time.Duration) {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(wait):
		}
		s.mu.Lock()
		queues := s.unserved(r)
		s.mu.Unlock()
		for _, q := range queues {
			err := s.probeModel(r, q)
			s.mu.Lock()
			s.probed(r, q, err)
			s.unlock()
		}
		s.mu.Lock()
		if s.closed || r.health == gone || s.unserved(r) == nil {
			r.probing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		wait = min(max(2*wait, probeMin), probeMax)
	}
}

// probeModel runs a blank row of a model on a replica, or measures the replica
// with the model if it is new to it.
func (s *Scheduler[R, A]) probeModel(r *replica[R, A], q *queue[R, A]) error {
	ctx, cancel := context.WithTimeout(s.ctx, probeTimeout)
	defer cancel()
	s.mu.Lock()
	known := r.pace(q.model).alone.known() || !s.settings.Admission
	s.mu.Unlock()
	if known {
		return r.Warm(ctx, q.model, 1)
	}
	return s.measure(ctx, r, q.model, q.maxBatch)
}

// probed takes in how a probe of a model ended.
func (s *Scheduler[R, A]) probed(r *replica[R, A], q *queue[R, A], err error) {
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
	close(s.joined)
	s.joined = make(chan struct{})
	s.dispatch()
}

// eject stops using a replica, and gives the rows that it has to others.
func (s *Scheduler[R, A]) eject(r *replica[R, A], cause error) {
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
		s.lost(b, cause)
	}
	s.failLonely()
	s.startProbe(r, probeMin)
}

// lose stops sending a replica rows of one model, and gives those that it has
// to others. One that serves no other model is ejected.
func (s *Scheduler[R, A]) lose(r *replica[R, A], q *queue[R, A], cause error) {
	if !r.serving(q.model) {
		return
	}
	if len(r.serves) == 1 {
		s.eject(r, cause)
		return
	}
	s.log.Warn("replica no longer serves a model", "replica", r.Name(), "model", q.model, "cause", cause)
	delete(r.serves, q.model)
	r.causes[q.model] = cause
	for _, b := range slices.Clone(r.inFlight) {
		if b.queue == q {
			s.lost(b, cause)
		}
	}
	s.failLonely()
	s.startProbe(r, probeMin)
}

// fault counts a failed batch against its replica: CodeUnavailable is about all
// that the replica does, anything else about the model.
func (s *Scheduler[R, A]) fault(r *replica[R, A], q *queue[R, A], err error) {
	r.failures++
	r.faults[q.model]++
	switch code := refersam.ErrorCode(err); {
	case code == refersam.CodeUnavailable:
		s.eject(r, err)
	case code == refersam.CodeNotReady, r.faults[q.model] >= maxFaults:
		s.lose(r, q, err)
	}
}

// stalled looks at a batch that has not ended in its time. As long as there is
// another replica, it is better to suppose that this one hangs.
func (s *Scheduler[R, A]) stalled(b *batch[R, A]) {
	s.mu.Lock()
	defer s.unlock()
	if !slices.Contains(b.replica.inFlight, b) || !s.others(b.replica, b.queue.model) {
		return
	}
	s.eject(b.replica, errors.New("it does not answer"))
	s.dispatch()
}

// others reports whether a replica is not the only one that serves a model.
func (s *Scheduler[R, A]) others(r *replica[R, A], model string) bool {
	return slices.ContainsFunc(s.replicas, func(other *replica[R, A]) bool { return other != r && other.serving(model) })
}
