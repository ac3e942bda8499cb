package tune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/tokenize"
	"github.com/refersam/refersam/triton"
)

const (
	// A measurement consists of a warm-up, saturation and latency. These are their
	// parts of its time.
	warmShare      = 0.15
	saturatedShare = 0.45
	// patience is how long a row may take before it counts as failed.
	patience = 30 * time.Second
	// pictures is how many different pictures there are.
	pictures = 8
)

// phrases have several lengths, like the phrases that people write.
var phrases = []string{
	"duck",
	"the red cup",
	"the man in the blue shirt on the left",
	"a small dog lying in front of the sofa, partly hidden by the table",
	"second car from the right that has its lights on",
}

// bench measures settings, one after the other. It makes a new scheduler for each
// set of instances. An old scheduler has learnt how many concurrent batches are
// worthwhile with other instances, and would not try others for a minute. A new one
// begins with the maximum of concurrent batches: finding that more are worthwhile
// takes it seconds per batch, and one bad second makes it stop trying for a while.
type bench struct {
	cfg      Config
	servers  *Servers
	log      *slog.Logger
	duration time.Duration // of one measurement

	rows  []triton.Row // without pixels
	bytes [][]uint8    // pictures
	alone *pipeline.Alone
}

func (b *bench) close() {
	if b.alone != nil {
		b.alone.Close()
		b.alone = nil
	}
}

// measure measures a setting. If the servers cannot be made to run it, the result
// says so; an error ends the sweep.
func (b *bench) measure(ctx context.Context, s Setting) (Result, error) {
	r := Result{Setting: s}
	err := b.prepare(ctx, s)
	if err == nil {
		// When ctx has ended, measure does not wait for rows that are under way.
		stop := context.AfterFunc(ctx, b.alone.Close)
		err = b.run(ctx, &r)
		stop()
	}
	if ended := b.servers.ended(); ended != nil {
		err = ended
	}
	var broken *brokenError
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case errors.As(err, &broken):
		return r, err
	}
	r.Err = err
	return r, nil
}

// prepare makes servers and scheduler run a setting.
func (b *bench) prepare(ctx context.Context, s Setting) error {
	if b.rows == nil {
		if err := b.makeRows(); err != nil {
			return err
		}
	}
	if !slices.Equal(s.Instances, b.servers.counts) || !b.servers.runs() {
		b.close()
		if err := b.servers.apply(ctx, s.Instances); err != nil {
			return err
		}
	}
	settings := b.cfg.Schedule.Settings
	settings.Mode, settings.MaxRows, settings.MaxWait = s.Mode, s.MaxRows, s.MaxWait
	settings.Admission, settings.Hedge = false, false
	if b.alone != nil {
		return b.alone.Update(settings)
	}
	cfg := b.cfg.Schedule
	cfg.Settings, cfg.StartWindow = settings, cfg.MaxWindow
	var err error
	if b.alone, err = pipeline.NewAlone(cfg, b.servers.Contract(), b.servers.replicas(), b.log); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return b.alone.WaitUsable(ctx)
}

// makeRows makes random pictures and real phrases.
func (b *bench) makeRows() error {
	c := b.servers.Contract()
	tokenizer, err := tokenize.New(c.Tokenizer, c.MaxTokens)
	if err != nil {
		return err
	}
	for _, phrase := range phrases {
		var encoding tokenize.Encoding
		tokenizer.EncodeInto(&encoding, phrase)
		b.rows = append(b.rows, triton.Row{IDs: encoding.IDs, Mask: encoding.Mask})
	}
	random := rand.NewChaCha8([32]byte{})
	for range pictures {
		picture := make([]uint8, 3*c.ImageSize*c.ImageSize)
		_, _ = random.Read(picture) // it never fails
		b.bytes = append(b.bytes, picture)
	}
	return nil
}

// row makes the i-th row, with its pixels in the memory that the gateway would use.
func (b *bench) row(i int) triton.Row {
	row := b.rows[i%len(b.rows)]
	picture := b.bytes[i%len(b.bytes)]
	row.Pixels = b.servers.fleet.NewPixels(len(picture))
	copy(row.Pixels.Bytes(), picture)
	return row
}

// run fills r with the measured figures.
func (b *bench) run(ctx context.Context, r *Result) error {
	part := func(share float64) time.Duration { return time.Duration(share * float64(b.duration)) }
	if err := b.saturate(ctx, r, part(warmShare), part(saturatedShare)); err != nil {
		return err
	}
	rate := b.cfg.Load * r.Throughput
	latencies, err := b.open(ctx, rate, part(1-warmShare-saturatedShare))
	if err != nil {
		return err
	}
	r.P50, r.P99 = percentile(latencies, 50), percentile(latencies, 99)
	return nil
}

// saturate keeps more rows waiting than the servers can process, and measures how
// many are answered after a warm-up.
func (b *bench) saturate(ctx context.Context, r *Result, warm, duration time.Duration) error {
	rows := r.MaxRows
	if r.Mode == schedule.Off {
		rows = 1
	}
	// Two batches per server wait, so that there is always a full one.
	load := newGate(func() int { return (b.windows() + 2*len(b.servers.configs)) * rows })
	defer load.wait()
	var answers tally
	sent := 0
	feed := func(d time.Duration) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		for answers.failure() == nil && load.enter(ctx) {
			b.send(time.Now(), sent, func(err error) {
				answers.add(time.Now(), err)
				load.leave()
			})
			sent++
		}
	}
	feed(warm)
	before, err := b.statistics(ctx)
	if err != nil {
		return err
	}
	earlier, begin := b.alone.Snapshot(), time.Now()
	feed(duration)
	later, end := b.alone.Snapshot(), time.Now()
	after, err := b.statistics(ctx)
	if err = errors.Join(answers.failure(), err); err != nil {
		return err
	}
	if r.Throughput = answers.rate(begin, end); r.Throughput == 0 {
		return fmt.Errorf("fewer than two batches were answered in %v: give a larger budget with --budget", duration.Round(time.Millisecond))
	}
	if n := later.Batches - earlier.Batches; n > 0 {
		r.Batch = float64(later.BatchRows-earlier.BatchRows) / float64(n)
	}
	r.Busy = busy(after.Since(before), r.Instances, end.Sub(begin))
	return nil
}

// windows is how many batches all servers together may have at once.
func (b *bench) windows() int {
	batches := 0
	for _, replica := range b.alone.Snapshot().Replicas {
		batches += replica.Window
	}
	return batches
}

// send schedules the i-th row, which is due at the given time. done is called
// exactly once.
func (b *bench) send(due time.Time, i int, done func(error)) {
	err := b.alone.Send(schedule.Job{Deadline: due.Add(patience)}, b.row(i), func(_ refersam.Logits, err error) { done(err) })
	if err != nil {
		done(err)
	}
}

// statistics returns the statistics of the first server; all servers have the same
// work.
func (b *bench) statistics(ctx context.Context) (triton.Statistics, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return b.servers.fleet.Replicas()[0].Statistics(ctx, b.servers.Contract())
}

// busy returns the part of the time that the instances of each step worked.
func busy(s triton.Statistics, instances []int, elapsed time.Duration) []float64 {
	parts := make([]float64, len(s.Steps))
	for i, step := range s.Steps {
		// Triton adds the time of a batch once for each request in it.
		each := step.Input.Mean() + step.Compute.Mean() + step.Output.Mean()
		parts[i] = each.Seconds() * float64(step.Executions) / elapsed.Seconds() / float64(instances[i])
	}
	return parts
}

// open sends rows at random times, without waiting for earlier rows, and returns
// how long after its time each was answered.
func (b *bench) open(ctx context.Context, rate float64, duration time.Duration) ([]time.Duration, error) {
	var (
		answers   tally
		most      = int(2*rate*duration.Seconds()) + 1000
		latencies = make(chan time.Duration, most)
		load      = newGate(func() int { return most })
		begin     = time.Now()
		due       = begin
	)
	for i := 0; i < most && answers.failure() == nil; i++ {
		due = due.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
		if due.Sub(begin) > duration || !sleepUntil(ctx, due) || !load.enter(ctx) {
			break
		}
		moment := due
		b.send(due, i, func(err error) {
			latencies <- time.Since(moment)
			answers.add(time.Now(), err)
			load.leave()
		})
	}
	load.wait()
	close(latencies)
	var all []time.Duration
	for l := range latencies {
		all = append(all, l)
	}
	if err := answers.failure(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("no row was due while latency was measured: give a larger budget with --budget")
	}
	slices.Sort(all)
	return all, ctx.Err()
}

// sleepUntil reports whether it slept until then.
func sleepUntil(ctx context.Context, then time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Until(then)):
		return ctx.Err() == nil
	}
}

// percentile of sorted durations; there must be at least one.
func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// tally records when rows were answered.
type tally struct {
	mu    sync.Mutex
	times []time.Time
	err   error
}

func (t *tally) add(now time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.err == nil {
		t.err = err
	}
	t.times = append(t.times, now)
}

// failure is the first error.
func (t *tally) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// rate is how many rows per second were answered from begin to end. Answers arrive
// in batches. Therefore it is the slope of their number over time, which depends
// little on whether the last batch arrived in time.
func (t *tally) rate(begin, end time.Time) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n, x, y, xx, xy float64
	for _, at := range t.times {
		if at.Before(begin) || at.After(end) {
			continue
		}
		s := at.Sub(begin).Seconds()
		x, y, xx, xy = x+s, y+n, xx+s*s, xy+s*n
		n++
	}
	spread := n*xx - x*x
	if spread <= 0 {
		return 0
	}
	return (n*xy - x*y) / spread
}

// gate limits how many rows are under way at once. Only one goroutine may call
// enter.
type gate struct {
	limit func() int

	mu    sync.Mutex
	going int
	left  chan struct{} // capacity 1: a row has left
}

func newGate(limit func() int) *gate {
	return &gate{limit: limit, left: make(chan struct{}, 1)}
}

// enter blocks until a row may start, and reports whether that was before ctx
// ended.
func (g *gate) enter(ctx context.Context) bool {
	for ctx.Err() == nil {
		g.mu.Lock()
		if g.going < g.limit() {
			g.going++
			g.mu.Unlock()
			return true
		}
		g.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-g.left:
		}
	}
	return false
}

func (g *gate) leave() {
	g.mu.Lock()
	g.going--
	g.mu.Unlock()
	select {
	case g.left <- struct{}{}:
	default:
	}
}

// wait blocks until no row is under way.
func (g *gate) wait() {
	for {
		g.mu.Lock()
		going := g.going
		g.mu.Unlock()
		if going == 0 {
			return
		}
		<-g.left
	}
}
