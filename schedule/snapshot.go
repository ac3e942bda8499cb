package schedule

import (
	"maps"
	"time"

	"github.com/refersam/refersam"
)

// counts are what happened since the Scheduler was made.
type counts struct {
	admitted  uint64 // rows
	refused   map[refersam.Code]uint64
	failed    map[refersam.Code]uint64 // rows
	dropped   uint64                   // rows
	retries   uint64                   // rows
	hedges    uint64                   // batches
	ejections uint64
	batches   uint64
	rows      uint64 // of batches
}

func (c *counts) batch(rows int) {
	c.batches++
	c.rows += uint64(rows)
}

// Snapshot is the state of a Scheduler at a moment.
type Snapshot struct {
	Settings Settings
	Queues   []QueueSnapshot
	Replicas []ReplicaSnapshot

	// Admitted, Dropped and Retried count rows since the start, Hedged and
	// Batches batches, BatchRows the rows of batches.
	Admitted, Dropped, Retried, Hedged, Batches, BatchRows, Ejections uint64
	// Refused counts jobs that were not admitted, Failed rows that were.
	Refused, Failed map[refersam.Code]uint64
	// QueueBytes is what the pictures of rows take that are not settled.
	QueueBytes int64
}

// QueueSnapshot is the state of a model's queue.
type QueueSnapshot struct {
	Model string
	// Waiting counts rows by class, those included that are still to come.
	Waiting [numClasses]int
	// Late is the factor by which the settings' percentile of the admitted rows
	// is later than predicted at the door, at most.
	Late float64
}

// ReplicaSnapshot is the state of a replica.
type ReplicaSnapshot struct {
	Name     string
	Usable   bool
	InFlight int // batches
	Window   int // batches
	Rows     uint64
	Failures uint64 // batches
	Paces    []PaceSnapshot
}

// PaceSnapshot is what is known of how fast a replica runs a model. Late is the
// factor by which the settings' percentile of the batches is later than
// predicted at most.
type PaceSnapshot struct {
	Model string
	// Serves says that rows of the model go to the replica; else Cause says why
	// not, or is nil if the replica has not been asked yet.
	Serves bool
	Cause  error
	// Sizes are one row, a full batch, and every size between them that was
	// seen; none before the replica has run the model.
	Sizes []SizeSnapshot
	Late  float64
}

// SizeSnapshot is what is known of batches of one size: alone a batch takes
// Alone, and a busy replica finishes one every Spaced. Batches counts the last
// real ones; 0 makes it an estimate from blank rows and from other sizes.
type SizeSnapshot struct {
	Rows          int
	Alone, Spaced time.Duration
	Batches       int
}

// Line returns the line through one row and a full batch: alone n rows take
// about fixed + n·perRow.
func (p *PaceSnapshot) Line() (fixed, perRow time.Duration) {
	return p.line(func(s SizeSnapshot) time.Duration { return s.Alone })
}

// SpacedLine is Line for how often a busy replica finishes a batch.
func (p *PaceSnapshot) SpacedLine() (fixed, perRow time.Duration) {
	return p.line(func(s SizeSnapshot) time.Duration { return s.Spaced })
}

func (p *PaceSnapshot) line(of func(SizeSnapshot) time.Duration) (fixed, perRow time.Duration) {
	if len(p.Sizes) == 0 {
		return 0, 0
	}
	first, last := p.Sizes[0], p.Sizes[len(p.Sizes)-1]
	if first.Rows == last.Rows {
		return 0, of(first) / time.Duration(first.Rows)
	}
	perRow = (of(last) - of(first)) / time.Duration(last.Rows-first.Rows)
	return of(first) - perRow*time.Duration(first.Rows), perRow
}

// Snapshot returns the state of the Scheduler.
func (s *Scheduler[R, A]) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := Snapshot{
		Settings:   s.settings,
		Admitted:   s.counts.admitted,
		Dropped:    s.counts.dropped,
		Retried:    s.counts.retries,
		Hedged:     s.counts.hedges,
		Batches:    s.counts.batches,
		BatchRows:  s.counts.rows,
		Ejections:  s.counts.ejections,
		Refused:    maps.Clone(s.counts.refused),
		Failed:     maps.Clone(s.counts.failed),
		QueueBytes: s.bytes,
	}
	for _, q := range s.queues {
		one := QueueSnapshot{Model: q.model, Late: q.late.percentile(s.settings.Percentile) * (1 + float64(q.caution))}
		for i := range q.classes {
			one.Waiting[i] = q.classes[i].rows
		}
		one.Waiting[Interactive] += len(q.again)
		snap.Queues = append(snap.Queues, one)
	}
	for _, r := range s.replicas {
		snap.Replicas = append(snap.Replicas, r.replicaSnapshot())
	}
	return snap
}

func (r *replica[R, A]) replicaSnapshot() ReplicaSnapshot {
	s := r.scheduler
	one := ReplicaSnapshot{
		Name:     r.Name(),
		Usable:   r.healthy(),
		InFlight: len(r.inFlight),
		Window:   min(r.window, max(r.slow, 1)),
		Rows:     r.done,
		Failures: r.failures,
	}
	for _, q := range s.queues {
		p := r.pace(q.model)
		one.Paces = append(one.Paces, PaceSnapshot{
			Model:  q.model,
			Serves: r.serving(q.model),
			Cause:  r.causes[q.model],
			Sizes:  p.sizes(q.maxRows()),
			Late:   p.late.percentile(s.settings.Percentile),
		})
	}
	return one
}

// sizes sums up what is known of batches of up to most rows.
func (p *pace) sizes(most int) []SizeSnapshot {
	var sizes []SizeSnapshot
	for n := 1; n <= most && (p.alone.measured() || p.spaced.measured()); n++ {
		one := SizeSnapshot{Rows: n, Alone: p.aloneFor(n), Spaced: p.spacedFor(n)}
		for _, c := range []*curve{&p.alone, &p.spaced} {
			if s := c.sizes[n]; s != nil {
				one.Batches += len(s.values)
			}
		}
		if n == 1 || n == most || one.Batches > 0 {
			sizes = append(sizes, one)
		}
	}
	return sizes
}
