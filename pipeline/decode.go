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

// decodeJob gets the answers to phrases in one picture: it decodes the picture
// once and queues its rows for the model. It belongs to the requests that wait
// for its flights, not to the request that began it.
type decodeJob struct {
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

// begin starts a decodeJob for flights that p leads, each for one of the rows;
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
			s.reuse.settle(f, modelAnswer{}, err)
		}
		return
	}
	d := &decodeJob{s: s, v: v, image: p.request.Image, rows: rows, flights: flights, ticket: ticket, left: make([]bool, len(rows)), going: len(rows)}
	d.ctx, d.cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	for i, f := range flights {
		f.abandon = func() { d.leave(i) }
	}
	s.decodes.Go(d.run)
}

// run decodes the picture and sends the rows.
func (d *decodeJob) run() {
	defer d.cancel()
	begun := time.Now()
	ctx, span := beginSpan(d.ctx, "decode")
	picture, err := d.s.read(ctx, d.image, len(d.rows), &d.v.contract)
	endSpan(span, err)
	if err != nil {
		d.ticket.Close()
		for _, f := range d.flights {
			d.s.reuse.settle(f, modelAnswer{}, err)
		}
		return
	}
	took := time.Since(begun)
	d.s.decoding.add(took)
	for _, f := range d.flights {
		f.decode = took
	}
	d.image = nil
	tasks := make([]Task, len(d.rows))
	for i, row := range d.rows {
		row.Pixels = picture.pixels
		row.Pixels.Retain() // until the scheduler releases the task
		tasks[i] = Task{&d.v.contract, row}
	}
	picture.pixels.Release()
	d.ticket.Send(tasks, func(i int, l refersam.Logits, err error) {
		d.s.reuse.settle(d.flights[i], modelAnswer{l, picture.width, picture.height}, err)
	})
	d.mu.Lock()
	d.sent = true
	left := d.left
	d.mu.Unlock()
	for i := range left {
		if left[i] {
			d.ticket.Drop(i)
		}
	}
}

// leave says that nobody waits for a row any more.
func (d *decodeJob) leave(i int) {
	d.mu.Lock()
	sent := d.sent
	if !sent {
		d.left[i] = true
		if d.going--; d.going == 0 {
			d.cancel()
		}
	}
	d.mu.Unlock()
	if sent {
		d.ticket.Drop(i)
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
