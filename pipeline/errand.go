package pipeline

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/triton"
	"go.opentelemetry.io/otel/trace"
)

// errand finds the answers to phrases in one picture: it decodes the picture
// once and queues its rows for the model. It belongs to the requests that wait
// for its flights, not to the request that began it.
type errand struct {
	s       *Segmenter
	v       *variant
	image   []byte
	rows    []triton.Row // without pixels
	flights []*flight    // one per row
	ticket  *schedule.Ticket[Task, refersam.Logits]
	ctx     context.Context // of the decoding
	cancel  context.CancelFunc

	mu    sync.Mutex
	sent  bool
	left  []bool // rows that nobody waits for
	going int    // rows that somebody waits for
}

// classes are the scheduler's names for priorities.
var classes = map[refersam.Priority]schedule.Class{
	refersam.PriorityInteractive: schedule.Interactive,
	refersam.PriorityBatch:       schedule.Batch,
	refersam.PriorityShadow:      schedule.Shadow,
}

// begin starts an errand for flights that p leads, each for one of the rows;
// or settles them, if the scheduler does not admit it.
func (p *Prepared) begin(ctx context.Context, v *variant, deadline time.Time, rows []triton.Row, flights []*flight) {
	s := p.segmenter
	size := 3 * v.contract.ImageSize * v.contract.ImageSize
	ticket, err := s.scheduler.Admit(schedule.Job{
		Model:    v.queue,
		MaxBatch: v.contract.MaxBatch,
		Rows:     len(rows),
		Bytes:    int64(size),
		Class:    classes[p.request.Priority],
		Key:      p.options.Key,
		Deadline: deadline,
		Before:   s.decoding.mean(),
		After:    s.finishing.mean(),
		Spent:    func(i int, took time.Duration) { flights[i].spent = took },
		Span:     trace.SpanFromContext(ctx),
	})
	if err != nil {
		for _, f := range flights {
			s.reuse.settle(f, found{}, err)
		}
		return
	}
	e := &errand{s: s, v: v, image: p.request.Image, rows: rows, flights: flights, ticket: ticket, left: make([]bool, len(rows)), going: len(rows)}
	e.ctx, e.cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	for i, f := range flights {
		f.abandon = func() { e.leave(i) }
	}
	s.errands.Go(e.run)
}

// run decodes the picture and sends the rows.
func (e *errand) run() {
	defer e.cancel()
	begun := time.Now()
	ctx, span := beginSpan(e.ctx, "decode")
	picture, err := e.s.read(ctx, e.image, len(e.rows), &e.v.contract)
	endSpan(span, err)
	if err != nil {
		e.ticket.Close()
		for _, f := range e.flights {
			e.s.reuse.settle(f, found{}, err)
		}
		return
	}
	took := time.Since(begun)
	e.s.decoding.add(took)
	for _, f := range e.flights {
		f.decode = took
	}
	e.image = nil
	tasks := make([]Task, len(e.rows))
	for i, row := range e.rows {
		row.Pixels = picture.pixels
		row.Pixels.Retain() // until the scheduler releases the task
		tasks[i] = Task{&e.v.contract, row}
	}
	picture.pixels.Release()
	e.ticket.Send(tasks, func(i int, l refersam.Logits, err error) {
		e.s.reuse.settle(e.flights[i], found{l, picture.width, picture.height}, err)
	})
	e.mu.Lock()
	e.sent = true
	left := e.left
	e.mu.Unlock()
	for i := range left {
		if left[i] {
			e.ticket.Drop(i)
		}
	}
}

// leave says that nobody waits for a row any more.
func (e *errand) leave(i int) {
	e.mu.Lock()
	sent := e.sent
	if !sent {
		e.left[i] = true
		if e.going--; e.going == 0 {
			e.cancel()
		}
	}
	e.mu.Unlock()
	if sent {
		e.ticket.Drop(i)
	}
}

// duration is the mean of the last durations of something. It fades while
// nothing is added: a bad moment that has every request refused must not be
// believed for longer than it lasts.
type duration struct {
	mu   sync.Mutex
	last time.Duration
	at   time.Time // when something was added last
}

const (
	// durationMemory is how much of the mean each new duration makes up.
	durationMemory = 1.0 / 16
	// durationHalfLife is after what time without a new one half is believed.
	durationHalfLife = time.Second
)

func (d *duration) add(took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last += time.Duration(durationMemory * float64(took-d.last))
	if d.at.IsZero() {
		d.last = took
	}
	d.at = time.Now()
}

func (d *duration) mean() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(float64(d.last) * math.Exp2(-float64(time.Since(d.at))/float64(durationHalfLife)))
}
