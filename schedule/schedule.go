// Package schedule decides which row of work runs when and where: it admits
// jobs or refuses them at the door, orders their rows by class, key and
// deadline, forms batches and chooses a replica for each.
//
// It learns how long each replica takes and predicts from that; it never
// guesses from load alone. It knows nothing of pictures or of Triton: a row is
// whatever a Replica runs.
package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/refersam/refersam"
	"go.opentelemetry.io/otel/trace"
)

// Replica runs batches of rows. All of it is safe for concurrent use, and
// every method returns soon after its context has ended.
type Replica[R, A any] interface {
	// Name identifies the replica, in metrics and logs too.
	Name() string
	// Run runs rows of one model as one batch and returns one answer per row, in
	// order. Every error except the end of its context is the replica's fault, not
	// the rows': the rows may be run elsewhere. CodeUnavailable says that the
	// replica cannot run anything now, CodeNotReady that it cannot run this model.
	Run(ctx context.Context, model string, rows []R) ([]A, error)
	// Warm runs n blank rows of a model as one batch.
	Warm(ctx context.Context, model string, n int) error
	// Load returns how long batches of a model have waited and run inside the
	// replica, in all since it started.
	Load(ctx context.Context, model string) (Load, error)
}

// Load sums up what a replica has done for a model.
type Load struct {
	// Batches is how many it has run.
	Batches uint64
	// Waited is how long they waited before its stages, in all.
	Waited time.Duration
}

// Job describes rows before the caller sends them.
type Job struct {
	// Model is what runs the rows. All rows of a batch have the same model.
	Model string
	// MaxBatch is how many rows a batch of the model may have.
	MaxBatch int
	// Rows is how many rows there will be, at least 1.
	Rows int
	// Bytes is how much memory the rows take while they wait.
	Bytes int64
	// Class says which work is done first. Key names the owner of the work. Keys
	// of one class share in proportion to Weight; 0 means 1.
	Class  Class
	Key    string
	Weight float64
	// Deadline is when the caller must have its answer.
	Deadline time.Time
	// Before is how long it takes until the rows are sent, After how long the
	// caller works on an answer.
	Before, After time.Duration
	// Spent, if not nil, is called for each answered row before its answer is
	// returned. took is the row's part of the time that its batch kept a replica
	// busy. The rows of a batch have equal parts. Of two batches under way at
	// once, the later batch begins when the earlier batch is done. Spent may be
	// called for several rows at once.
	Spent func(i int, took time.Duration)
	// Span is the parent of the spans of the rows. nil makes none.
	Span trace.Span
}

func (j *Job) weight() float64 {
	if j.Weight <= 0 {
		return 1
	}
	return j.Weight
}

// Scheduler runs the rows of admitted jobs on replicas. Make one with New, end
// it with Close. It is safe for concurrent use.
//
// One mutex guards all state; nothing that waits is done under it.
type Scheduler[R, A any] struct {
	cfg     Config
	release func(R)
	log     *slog.Logger
	ctx     context.Context // ends with Close
	end     context.CancelFunc
	run     sync.WaitGroup // everything that runs in the background

	mu       sync.Mutex
	settings Settings
	models   map[string]bool // by SetModels
	queues   []*queue[R, A]  // of models, and of removed models with rows that still wait
	replicas []*replica[R, A]
	bytes    int64       // of the rows that wait
	wake     *time.Timer // dispatches held batches
	budget   float64     // rows that may be tried again
	counts   counts
	answers  []func()      // to be called when mu is free
	joined   chan struct{} // closed when a replica has come further
	closed   bool
}

const (
	messageNone      = "No model server is available at the moment; try again soon."
	messageNotServed = "No model server has this model at the moment; try again soon."
	messageStopping  = "The service is stopping."
)

// New makes a Scheduler without replicas: it refuses everything as unavailable
// until SetReplicas has named some. release, if there is one, is called once
// for each row that was sent when nothing uses it any more.
func New[R, A any](cfg Config, release func(R), log *slog.Logger) (*Scheduler[R, A], error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Scheduler[R, A]{cfg: cfg, release: release, log: log, settings: cfg.Settings, models: make(map[string]bool)}
	s.counts.refused = make(map[refersam.Code]uint64)
	s.counts.failed = make(map[refersam.Code]uint64)
	s.budget = cfg.maxBudget()
	s.joined = make(chan struct{})
	// Batches serve several calls, so they belong to no call's context.
	s.ctx, s.end = context.WithCancel(context.Background())
	s.wake = time.AfterFunc(time.Hour, func() {
		s.mu.Lock()
		defer s.unlock()
		s.dispatch()
	})
	s.wake.Stop()
	s.run.Go(s.control)
	return s, nil
}

// Close fails every row that waits, cancels those under way and returns when
// nothing runs any more.
func (s *Scheduler[R, A]) Close() {
	s.mu.Lock()
	s.closed = true
	s.failWaiting(refersam.Errorf(refersam.CodeUnavailable, messageStopping))
	s.wake.Stop()
	s.unlock()
	s.end()
	s.run.Wait()
}

// unlock frees mu and then calls what is owed to callers.
func (s *Scheduler[R, A]) unlock() {
	answers := s.answers
	s.answers = nil
	s.mu.Unlock()
	for _, answer := range answers {
		answer()
	}
}

// Settings returns the settings in force.
func (s *Scheduler[R, A]) Settings() Settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// Update changes the settings; they apply to what is sent from now on.
func (s *Scheduler[R, A]) Update(settings Settings) error {
	if err := settings.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.unlock()
	s.log.Info("batching changed", "from", s.settings, "to", settings)
	s.settings = settings
	s.dispatch()
	return nil
}

// rowState is where a row is.
type rowState uint8

const (
	rowComing  rowState = iota // its ticket was admitted
	rowWaiting                 // in the queue
	rowTaken                   // in one batch or two, or waits to be tried again
	rowSettled                 // answered, failed or dropped
)

// row is one row of a ticket.
type row[R, A any] struct {
	ticket   *Ticket[R, A]
	index    int
	payload  R
	state    rowState
	batches  int            // under way with this row, that were not given up
	running  int            // calls of Run that use payload
	tries    int            // batches that have had it, but for hedges
	failedBy *replica[R, A] // that failed it last
	freed    bool           // payload was given back
	trace    rowTrace
}

// Ticket is a place for a job's rows. Its holder sends the rows or closes it.
type Ticket[R, A any] struct {
	s    *Scheduler[R, A]
	job  Job
	due  time.Time // when the model's answer must be there
	sent time.Time // when the rows came

	admitted, expected time.Time // expected is the latest predicted finish without surprises, zero if there was no prediction
	trial              bool      // it was predicted to miss its deadline; see trials
	queue              *queue[R, A]
	flow               *flow[R, A]
	rows               []row[R, A] // empty until they are sent
	done               func(i int, answer A, err error)

	failed  bool // a row of it
	waiting int  // rows that wait or are to come
	open    int  // rows that are not settled
}

// Admit gives a job a place, or refuses it with a *refersam.Error:
// CodeDeadlineExceeded when its deadline could not even be met by an idle
// replica, CodeUnavailable or CodeNotReady when no replica serves its model, and
// CodeOverloaded, with RetryAfter, when it, or a job of the same key that was
// admitted before, would be late or there is no room.
func (s *Scheduler[R, A]) Admit(job Job) (*Ticket[R, A], error) {
	s.mu.Lock()
	defer s.unlock()
	now := time.Now()
	q := s.queueFor(job.Model, job.MaxBatch)
	t := &Ticket[R, A]{s: s, job: job, due: job.Deadline.Add(-job.After), queue: q, open: job.Rows, admitted: now}
	if err := t.refuse(now); err != nil {
		s.counts.refused[refersam.ErrorCode(err)]++
		return nil, err
	}
	q.add(t)
	s.stopMeasuring()
	s.bytes += job.Bytes
	s.counts.admitted += uint64(job.Rows)
	return t, nil
}

// refuse says why a job cannot be admitted, or predicts when it is done.
func (t *Ticket[R, A]) refuse(now time.Time) error {
	s, q, job, due := t.s, t.queue, &t.job, t.due
	if s.closed {
		return refersam.Errorf(refersam.CodeUnavailable, messageStopping)
	}
	if err := s.trouble(q.model); err != nil {
		return err
	}
	if !due.After(now) {
		return refersam.Errorf(refersam.CodeDeadlineExceeded, "The deadline has passed.")
	}
	rows := 0
	for _, other := range s.queues {
		rows += other.waiting
	}
	full := rows > 0 && (rows+job.Rows > s.cfg.MaxQueueRows || s.bytes+job.Bytes > s.cfg.MaxQueueBytes)
	if !full && !s.settings.Admission {
		return nil
	}
	f := q.forecast(now)
	idle := job.Before + f.idle(job.Rows)
	if !full && now.Add(idle).After(due) {
		if !s.working() && q.trials.begin(now, f.idle(job.Rows), due.Sub(now)-job.Before, f.confirmed(job.Rows)) {
			t.trial = true
			return nil
		}
		return refersam.Errorf(refersam.CodeDeadlineExceeded,
			"The deadline cannot be met: such a request takes about %d ms.", (idle+job.After).Milliseconds()+1)
	}
	ahead := q.rowsAhead(job, due)
	expected, worst := f.done(ahead + job.Rows)
	if ahead+job.Rows <= f.batch && f.open {
		// It goes with the next batch. Were that refused for what went wrong
		// before, nothing would be learnt any more.
		worst = expected
	}
	t.expected = later(expected, now.Add(idle)).Add(f.slack(ahead + job.Rows))
	if !full && !later(worst, now.Add(idle)).After(due) && !q.harms(job, due, f, ahead) {
		return nil
	}
	drain := max(worst.Sub(now), time.Millisecond)
	return &refersam.Error{
		Code:       refersam.CodeOverloaded,
		Message:    fmt.Sprintf("There is too much to do to answer in time: what comes before takes about %d ms.", drain.Milliseconds()+1),
		RetryAfter: drain + rand.N(drain/2+1),
	}
}

// rowsAhead returns how many rows, counted in time of q's model, are served before
// the last one of a new job, without itself.
func (q *queue[R, A]) rowsAhead(job *Job, due time.Time) int {
	s := q.scheduler
	rows := q.ahead(job, due)
	for _, other := range s.queues {
		if other == q || other.waiting == 0 {
			continue
		}
		theirs := len(other.again)
		for i := range other.classes {
			switch c := &other.classes[i]; {
			case Class(i) < job.Class:
				theirs += c.rows
			case Class(i) == job.Class:
				for _, f := range c.flows {
					theirs += f.before(due)
				}
			}
		}
		rows += q.exchange(theirs, other)
	}
	return rows
}

// harms reports whether a new job makes one of the same key late that was
// admitted before it and has a later deadline.
func (q *queue[R, A]) harms(job *Job, due time.Time, forecast *forecast, ahead int) bool {
	f := q.classes[job.Class].flows[job.Key]
	if f == nil {
		return false
	}
	later := f.rows - f.before(due)
	if later == 0 {
		return false
	}
	rows := ahead + job.Rows
	for _, t := range f.jobs {
		if !t.due.After(due) {
			continue
		}
		rows += t.waiting
		_, with := forecast.done(rows)
		_, without := forecast.done(rows - job.Rows)
		if with.After(t.due) && !without.After(t.due) {
			return true
		}
	}
	return false
}

// queueFor returns the queue of a model.
func (s *Scheduler[R, A]) queueFor(model string, maxBatch int) *queue[R, A] {
	for _, q := range s.queues {
		if q.model == model {
			return q
		}
	}
	q := newQueue(s, model, maxBatch)
	s.queues = append(s.queues, q)
	return q
}

// Send queues the job's rows. There must be exactly Job.Rows of them. done is
// called once for each row that is not dropped, with its answer or with a
// *refersam.Error that says why there is none: CodeUnavailable, CodeNotReady,
// CodeDeadlineExceeded, CodeInternal. It may be called for several rows at once
// and before Send returns, and must return soon.
func (t *Ticket[R, A]) Send(rows []R, done func(i int, answer A, err error)) {
	if len(rows) != t.job.Rows {
		panic(fmt.Sprintf("schedule: %d rows sent, %d admitted", len(rows), t.job.Rows))
	}
	traces := t.job.traces()
	t.s.mu.Lock()
	defer t.s.unlock()
	t.done, t.sent = done, time.Now()
	t.rows = make([]row[R, A], len(rows))
	for i := range rows {
		t.rows[i] = row[R, A]{ticket: t, index: i, payload: rows[i], state: rowWaiting}
		if traces != nil {
			t.rows[i].trace = traces[i]
		}
	}
	t.queue.countSent(t, len(rows))
	if t.s.closed {
		t.s.failWaiting(refersam.Errorf(refersam.CodeUnavailable, messageStopping))
		return
	}
	t.s.failLonely()
	t.s.dispatch()
}

// Drop says that nobody waits for a row any more: it leaves the queue, and a
// batch of dropped rows only is cancelled.
func (t *Ticket[R, A]) Drop(i int) {
	t.s.mu.Lock()
	defer t.s.unlock()
	if row := &t.rows[i]; row.state != rowSettled {
		t.queue.leave(row)
		row.settle()
		row.trace.end(true, nil)
		t.s.counts.dropped++
		t.s.cancelIdle()
	}
}

// Close gives the places of rows up that were not sent, and drops those that
// were. It may be called again.
func (t *Ticket[R, A]) Close() {
	if t.rows == nil {
		t.s.mu.Lock()
		defer t.s.unlock()
		if t.open > 0 {
			t.queue.count(t, -t.waiting)
			t.s.bytes -= t.job.Bytes
			t.open = 0
		}
		return
	}
	for i := range t.rows {
		t.Drop(i)
	}
}

// settle ends a row.
func (row *row[R, A]) settle() {
	s := row.ticket.s
	row.state = rowSettled
	row.free()
	t := row.ticket
	if t.open--; t.open == 0 {
		s.bytes -= t.job.Bytes
	}
}

// free gives a row's payload back once nothing uses it any more.
func (row *row[R, A]) free() {
	s := row.ticket.s
	if row.state != rowSettled || row.running > 0 || row.freed {
		return
	}
	row.freed = true
	if payload := row.payload; s.release != nil {
		s.answers = append(s.answers, func() { s.release(payload) })
	}
	var none R
	row.payload = none
}

// answer settles a row and owes its caller the answer.
func (row *row[R, A]) answer(answer A, err error) {
	s := row.ticket.s
	row.settle()
	t, i := row.ticket, row.index
	s.answers = append(s.answers, func() {
		row.trace.end(false, err)
		t.done(i, answer, err)
	})
}

// fail settles a row that waits with an error.
func (row *row[R, A]) fail(err error) {
	s := row.ticket.s
	var none A
	row.ticket.queue.leave(row)
	row.ticket.failed = true
	row.answer(none, err)
	s.counts.failed[refersam.ErrorCode(err)]++
}

// failWaiting fails every row that waits.
func (s *Scheduler[R, A]) failWaiting(err error) {
	for _, q := range s.queues {
		q.failQueue(err)
	}
}

// failQueue fails every row that waits in a queue.
func (q *queue[R, A]) failQueue(err error) {
	for _, row := range slices.Clone(q.again) {
		row.fail(err)
	}
	for i := range q.classes {
		for _, f := range q.classes[i].flows {
			for row := f.first(); row != nil; row = f.first() {
				row.fail(err)
			}
		}
	}
}

// failLonely fails every row that waits for a model which no replica serves.
func (s *Scheduler[R, A]) failLonely() {
	for _, q := range s.queues {
		if q.waiting == 0 {
			continue
		}
		if err := s.trouble(q.model); err != nil {
			q.failQueue(err)
		}
	}
}
