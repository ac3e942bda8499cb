package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/refersam/refersam"
)

// sendEarly is a fraction of the time between two batches of a busy replica. The
// later batch is sent this fraction of the time before the last moment that
// does not delay it. Sending early shows whether the time between batches is
// shorter than believed.
const sendEarly = 0.15

// hedgePercentile is how many percent of the batches are done when a hedge is
// sent.
const hedgePercentile = 95

// batch is rows under way on a replica.
type batch[R, A any] struct {
	queue   *queue[R, A]
	replica *replica[R, A]
	rows    []*row[R, A]
	sent    time.Time
	idle    bool      // the replica had nothing else to do
	finish  time.Time // predicted, see replica.replan
	first   time.Time // the prediction when it was sent
	hedge   bool      // its rows are under way elsewhere too
	cancel  context.CancelFunc
	timers  []*time.Timer
}

// maxRows returns how many rows of a queue make a full batch.
func (q *queue[R, A]) maxRows() int {
	s := q.scheduler
	if s.settings.MaxRows == 0 {
		return q.maxBatch
	}
	return min(s.settings.MaxRows, q.maxBatch)
}

// dispatch sends every batch that is due, and sets a timer that calls dispatch
// again when the first held batch is due. It is called whenever a row, a
// replica or a setting has changed.
func (s *Scheduler[R, A]) dispatch() {
	if s.closed {
		return
	}
	for s.sendOne() {
	}
}

// sendOne sends the most urgent batch that is due.
func (s *Scheduler[R, A]) sendOne() bool {
	now := time.Now()
	var next time.Time // when the first batch that is held is due
	for _, q := range s.byUrgency() {
		r, at := q.choose(now)
		switch {
		case r == nil:
		case !at.After(now):
			if rows := q.form(r, now); len(rows) > 0 {
				q.send(r, rows, now, false)
			}
			return true
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	s.wake.Stop()
	if !next.IsZero() {
		s.wake.Reset(next.Sub(now))
	}
	return false
}

// byUrgency returns the queues with rows that can be sent, most urgent first.
func (s *Scheduler[R, A]) byUrgency() []*queue[R, A] {
	ready := slices.DeleteFunc(slices.Clone(s.queues), func(q *queue[R, A]) bool { return q.sent() == 0 })
	slices.SortStableFunc(ready, func(a, b *queue[R, A]) int {
		aClass, aDue, _ := a.urgency()
		bClass, bDue, _ := b.urgency()
		return cmp.Or(cmp.Compare(aClass, bClass), aDue.Compare(bDue))
	})
	return ready
}

// choose returns the replica for the next batch of a queue and when to send
// it, or nil if none has capacity.
func (q *queue[R, A]) choose(now time.Time) (*replica[R, A], time.Time) {
	s := q.scheduler
	full := q.sent() >= q.maxRows()
	var (
		open  []*replica[R, A] // that can be sent the batch now
		later *replica[R, A]   // the first of those that cannot
		at    time.Time
	)
	for _, r := range s.replicas {
		if !r.serves[q.model] {
			continue
		}
		if !r.hasCapacity() {
			if full && r.healthy() && r.slow >= r.window {
				r.control.limited = true
			}
			continue
		}
		row := q.next(r, !r.others(q.model))
		if row == nil {
			continue
		}
		switch due := q.holdUntil(r, row, now); {
		case !due.After(now):
			open = append(open, r)
		case later == nil || due.Before(at):
			later, at = r, due
		}
	}
	if len(open) == 0 {
		return later, at
	}
	return q.better(open, now), now
}

// better returns the one of two replicas, drawn by lot, that is predicted to
// be done first: several gateways that all chose the best would choose the
// same.
func (q *queue[R, A]) better(open []*replica[R, A], now time.Time) *replica[R, A] {
	if len(open) == 1 {
		return open[0]
	}
	i := rand.IntN(len(open))
	j := rand.IntN(len(open) - 1)
	if j >= i {
		j++
	}
	n := min(q.sent(), q.maxRows())
	a, b := open[i], open[j]
	if b.pace(q.model).finish(now, b.free(now), n).Before(a.pace(q.model).finish(now, a.free(now), n)) {
		return b
	}
	return a
}

// holdUntil returns when to send the next batch of a queue to a replica that
// can take it. first is the first row of the batch.
//
// A replica is never kept idle. If the replica is busy, a batch that is not
// full may wait for more rows as long as waiting does not delay it. Behind a
// batch that is done at f, a batch of n rows that takes alone(n) is done at
// f + spaced(n) whenever it is sent before f + spaced(n) − alone(n).
func (q *queue[R, A]) holdUntil(r *replica[R, A], first *row[R, A], now time.Time) time.Time {
	s := q.scheduler
	n := q.sent()
	if n >= q.maxRows() || first.tries > 0 || s.settings.Mode == Off {
		return now
	}
	company := first.ticket.sent.Add(s.settings.MaxWait)
	if s.settings.Mode == Fixed {
		return company
	}
	if len(r.inFlight) == 0 {
		return now
	}
	p := r.pace(q.model)
	spaced := p.spacedFor(n)
	hold := r.free(now).Add(spaced - p.aloneFor(n) - time.Duration(sendEarly*float64(spaced)))
	if s.settings.MaxWait > 0 && company.Before(hold) {
		return company
	}
	return hold
}

// form takes the rows of the next batch for a replica out of a queue. Rows
// that can no longer be answered in time fail.
func (q *queue[R, A]) form(r *replica[R, A], now time.Time) []*row[R, A] {
	s := q.scheduler
	var (
		p     = r.pace(q.model)
		alone = !r.others(q.model)
		free  = r.free(now)
		most  = q.maxRows()
		rows  []*row[R, A]
		due   time.Time // the earliest

		hopeless *row[R, A] // the first that failed
	)
	for len(rows) < most {
		first := q.next(r, alone)
		if first == nil || s.settings.Mode == Off && len(rows) > 0 && first.ticket != rows[0].ticket {
			break
		}
		if done := p.finish(now, free, 1); s.settings.Admission && done.After(first.ticket.due) && !first.ticket.trial {
			if hopeless == nil {
				hopeless = first
				q.predicted([]*row[R, A]{first}, done, s.settings.Percentile)
			}
			first.fail(refersam.Late(nil))
			continue
		}
		if len(rows) == 0 || first.ticket.due.Before(due) {
			due = first.ticket.due
		}
		if s.settings.Admission && !first.ticket.trial && len(rows) > 0 && p.finish(now, free, len(rows)+1).After(due) && p.worthStopping(len(rows), most) {
			break
		}
		q.take(first)
		rows = append(rows, first)
	}
	return rows
}

// worthStopping reports whether a batch that is cut off at n rows of most, so
// that its most urgent row is in time, costs less than one row: what the
// replica could have done in the time that it takes.
func (p *pace) worthStopping(n, most int) bool {
	full := p.spacedFor(most)
	return full > 0 && float64(p.spacedFor(n))/float64(full)*float64(most)-float64(n) < 1
}

// send runs rows on a replica.
func (q *queue[R, A]) send(r *replica[R, A], rows []*row[R, A], now time.Time, hedge bool) {
	s := q.scheduler
	b := &batch[R, A]{queue: q, replica: r, rows: rows, sent: now, idle: r.idle(now), hedge: hedge}
	b.finish = r.pace(q.model).finish(now, r.free(now), len(rows))
	b.first = b.finish
	last := rows[0].ticket.job.Deadline
	payloads := make([]R, len(rows))
	for i, row := range rows {
		row.batches++
		row.running++
		if !hedge {
			row.tries++
		}
		payloads[i] = row.payload
		if row.ticket.job.Deadline.After(last) {
			last = row.ticket.job.Deadline
		}
	}
	r.inFlight = append(r.inFlight, b)
	s.counts.batch(len(rows))
	ctx, cancel := context.WithDeadline(s.ctx, last)
	b.cancel = cancel
	b.watch()
	s.run.Go(func() {
		defer cancel()
		traced, span := b.trace(ctx)
		answers, err := r.Run(traced, q.model, payloads)
		if err == nil && len(answers) != len(rows) {
			err = fmt.Errorf("replica %s answered %d of %d rows", r.Name(), len(answers), len(rows))
		}
		setError(span, err)
		span.End()
		b.ended(answers, err, ctx.Err() != nil)
	})
}

// watch starts the timers of a batch.
func (b *batch[R, A]) watch() {
	s := b.queue.scheduler
	expected := b.finish.Sub(b.sent)
	late := func(percent float64) time.Duration {
		return time.Duration(float64(expected) * b.replica.pace(b.queue.model).late.percentile(percent))
	}
	if expected > 0 {
		stall := max(time.Duration(b.replica.pace(b.queue.model).stall()*float64(late(s.settings.Percentile))), minStall)
		b.timers = append(b.timers, time.AfterFunc(stall, func() { b.stalled() }))
	}
	if s.settings.Hedge && !b.hedge && expected > 0 {
		b.timers = append(b.timers, time.AfterFunc(late(hedgePercentile), func() { b.sendHedge() }))
	}
}

// sendHedge sends a batch that is late to another replica too, if one is idle. It
// is done for interactive work alone, and counts as a retry.
func (b *batch[R, A]) sendHedge() {
	s := b.queue.scheduler
	s.mu.Lock()
	defer s.unlock()
	if s.closed || !slices.Contains(b.replica.inFlight, b) || float64(len(b.rows)) > s.budget {
		return
	}
	for _, r := range s.replicas {
		if r == b.replica || !r.hasCapacity() || !r.serving(b.queue.model) || len(r.inFlight) > 0 {
			continue
		}
		rows := slices.DeleteFunc(slices.Clone(b.rows), func(row *row[R, A]) bool {
			return row.state == rowSettled || row.ticket.job.Class != Interactive
		})
		if len(rows) > 0 {
			s.budget -= float64(len(rows))
			s.counts.hedges++
			b.queue.send(r, rows, time.Now(), true)
		}
		return
	}
}

// ended takes in how a batch ended. cancelled says that its context had ended,
// so that an error is not the replica's fault.
func (b *batch[R, A]) ended(answers []A, err error, cancelled bool) {
	s := b.queue.scheduler
	s.mu.Lock()
	defer s.unlock()
	defer b.unload()
	r := b.replica
	i := slices.Index(r.inFlight, b)
	if i < 0 {
		return // it was given up
	}
	r.inFlight = slices.Delete(r.inFlight, i, i+1)
	b.stopTimers()
	now := time.Now()
	if err == nil {
		b.succeeded(answers, now)
	} else {
		cancelled = cancelled || refersam.ErrorCode(err) == refersam.CodeDeadlineExceeded
		if !cancelled {
			s.log.Warn("batch failed", "replica", r.Name(), "model", b.queue.model, "rows", len(b.rows), "cause", err)
			r.fault(b.queue, err)
		} else {
			b.learnAtLeast(now)
		}
		b.giveBack(err, !cancelled)
	}
	r.lastDone = now
	r.replan(now)
	s.failLonely()
	s.dispatch()
}

// succeeded answers the rows of a batch.
func (b *batch[R, A]) succeeded(answers []A, now time.Time) {
	s := b.queue.scheduler
	took := b.busy(now) / time.Duration(len(b.rows))
	b.learn(now)
	b.queue.predicted(b.rows, now, s.settings.Percentile)
	for i, row := range b.rows {
		row.batches--
		if row.state != rowSettled {
			row.spent(took)
			row.answer(answers[i], nil)
			if t := row.ticket; t.trial && t.open == 0 && !t.failed && !now.After(t.due) {
				b.queue.trials.restart()
			}
			s.budget = min(s.budget+s.cfg.RetryBudget, s.cfg.maxBudget())
		}
	}
	b.replica.done += uint64(len(b.rows))
	s.cancelIdle()
}

// busy returns how long a batch that is done kept its replica busy.
func (b *batch[R, A]) busy(now time.Time) time.Duration {
	if b.replica.lastDone.After(b.sent) {
		return now.Sub(b.replica.lastDone)
	}
	return now.Sub(b.sent)
}

// spent reports the time that a row has taken to the row's caller.
func (row *row[R, A]) spent(took time.Duration) {
	s := row.ticket.s
	if spent := row.ticket.job.Spent; spent != nil {
		s.answers = append(s.answers, func() { spent(row.index, took) })
	}
}

// unload says that a batch no longer uses its rows.
func (b *batch[R, A]) unload() {
	for _, row := range b.rows {
		row.running--
		row.free()
	}
}

// learn takes in how long a batch took.
func (b *batch[R, A]) learn(now time.Time) {
	s := b.queue.scheduler
	r, n := b.replica, len(b.rows)
	p := r.pace(b.queue.model)
	took := now.Sub(b.sent)
	if expected := b.first.Sub(b.sent); expected > 0 && b.sent.After(p.since) {
		p.late.add(float64(took) / float64(expected))
	}
	believed, overturned := p.aloneFor(n), false
	if !b.idle && r.lastDone.After(b.sent) {
		overturned = p.observe(&p.spaced, n, now.Sub(r.lastDone), now, now)
	}
	if b.idle || took < believed/2 { // behind others it cannot be done sooner than alone
		overturned = p.observe(&p.alone, n, took, now, now) || overturned
	}
	if overturned {
		b.queue.overturn(now)
	}
	if differs(believed, p.aloneFor(n)) && p.aloneFor(n) < believed {
		b.queue.trials.restart()
	}
	r.faults[b.queue.model] = 0
	r.abandoned = time.Time{}
	r.slow = min(r.slow+1, s.cfg.MaxWindow)
	r.control.count(n)
}

// learnAtLeast takes in that a batch was given up. If it had already taken
// longer than predicted, the forecast is too short, and would have one batch
// after the other given up without ever learning from one that ends. How much
// longer the batch would have taken is not known: twice the time is assumed.
func (b *batch[R, A]) learnAtLeast(now time.Time) {
	r, n := b.replica, len(b.rows)
	p := r.pace(b.queue.model)
	overturned := false
	if took := now.Sub(b.sent); b.idle && took >= p.aloneFor(n) {
		overturned = p.observe(&p.alone, n, 2*took, now, time.Time{})
	} else if gap := b.busy(now); !b.idle && gap >= p.spacedFor(n) {
		overturned = p.observe(&p.spaced, n, 2*gap, now, time.Time{})
	}
	if overturned {
		b.queue.overturn(now)
	}
	r.abandon(b, now)
}

// lost gives up a batch of a replica that is no longer used.
func (b *batch[R, A]) lost(cause error) {
	r := b.replica
	i := slices.Index(r.inFlight, b)
	r.inFlight = slices.Delete(r.inFlight, i, i+1)
	b.stopTimers()
	b.cancel()
	b.giveBack(cause, true)
}

// giveBack gives the rows of a failed batch to others, or fails them: a row is
// tried twice at most, so that one that brings replicas down cannot take
// every one with it.
func (b *batch[R, A]) giveBack(err error, retry bool) {
	s := b.queue.scheduler
	for _, row := range b.rows {
		row.batches--
		if row.state == rowSettled || row.batches > 0 {
			continue
		}
		row.failedBy = b.replica
		if retry && row.tries < 2 && s.budget >= 1 && b.replica.others(b.queue.model) && row.ticket.due.After(time.Now()) {
			s.budget--
			s.counts.retries++
			b.queue.retry(row)
			continue
		}
		row.fail(asDomainError(err))
	}
}

// asDomainError returns an error with a code that callers handle: err itself, or an
// error that wraps it.
func asDomainError(err error) error {
	switch {
	case refersam.ErrorCode(err) != refersam.CodeInternal:
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return refersam.Late(err)
	}
	return &refersam.Error{Code: refersam.CodeUpstream, Message: "The model server failed; try again.", Err: err}
}

// cancelIdle cancels batches that nobody waits for any more.
func (s *Scheduler[R, A]) cancelIdle() {
	for _, r := range s.replicas {
		for _, b := range r.inFlight {
			if !slices.ContainsFunc(b.rows, func(row *row[R, A]) bool { return row.state != rowSettled }) {
				b.cancel()
			}
		}
	}
}

func (b *batch[R, A]) stopTimers() {
	for _, timer := range b.timers {
		timer.Stop()
	}
}

// maxBudget is how many rows may be tried again at once, whatever happened
// before. It covers the rows of a busy replica that dies.
func (c *Config) maxBudget() float64 {
	if c.RetryBudget == 0 {
		return 0
	}
	return 128
}
