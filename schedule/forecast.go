package schedule

import (
	"slices"
	"time"
)

// forecast predicts when rows of one model are done, as if every row that
// waits were of that model and batches were full.
type forecast struct {
	now   time.Time
	batch int // rows of a full batch
	lanes []lane
	late  float64 // how much later than predicted to expect
	open  bool    // a replica has room
	// slack is how much later than predicted a row may be without anything
	// having gone wrong: it may miss a batch, and the batches before it may not
	// be full.
	slack time.Duration
}

// lane is a replica in a forecast.
type lane struct {
	pace *pace
	free time.Time // when its last batch is done; zero if it has none
}

// forecast looks at every replica as it is now.
func (s *Scheduler[R, A]) forecast(q *queue[R, A], now time.Time) *forecast {
	f := &forecast{now: now, batch: s.maxRows(q), late: q.late.percentile(s.settings.Percentile) * (1 + float64(q.caution))}
	for _, r := range s.replicas {
		if r.serving(q.model) {
			p := r.pace(q.model)
			f.lanes = append(f.lanes, lane{p, r.free(now)})
			f.open = f.open || r.room()
			f.slack = max(f.slack, 2*p.spacedFor(f.batch))
		}
	}
	return f
}

// idle returns how long so many rows take if nothing else is done.
func (f *forecast) idle(rows int) time.Duration {
	lanes := slices.Clone(f.lanes)
	for i := range lanes {
		lanes[i].free = time.Time{}
	}
	return f.finish(lanes, rows).Sub(f.now)
}

// done returns when the last of so many rows is done, with everything that is
// under way done before, and what to expect at worst.
func (f *forecast) done(rows int) (expected, worst time.Time) {
	expected = f.finish(slices.Clone(f.lanes), rows)
	return expected, f.now.Add(time.Duration(float64(expected.Add(f.slack).Sub(f.now)) * f.late))
}

// finish places batches one after the other, each where it is done first. It
// changes lanes.
//
// Once every replica is busy each is done with a batch every spaced, so k more
// are done by the moment at which the sum over the replicas of (moment −
// free) / spaced is k. So a forecast takes the same time for a long queue as
// for a short one.
func (f *forecast) finish(lanes []lane, rows int) time.Time {
	full := (rows - 1) / f.batch
	placed := min(full, 2*len(lanes))
	var latest time.Time
	for range placed {
		l, end := f.best(lanes, f.batch)
		l.free = end
		latest = later(latest, end)
	}
	if placed == full {
		_, end := f.best(lanes, rows-full*f.batch)
		return later(latest, end)
	}
	var rate, begun float64
	for _, l := range lanes {
		spaced := max(l.pace.spacedFor(f.batch), time.Microsecond).Seconds()
		rate += 1 / spaced
		begun += l.free.Sub(f.now).Seconds() / spaced
	}
	rest := float64(rows)/float64(f.batch) - float64(placed)
	return f.now.Add(time.Duration((rest + begun) / rate * float64(time.Second)))
}

// best returns the lane that is done first with a batch, and when.
func (f *forecast) best(lanes []lane, n int) (*lane, time.Time) {
	var (
		best *lane
		done time.Time
	)
	for i := range lanes {
		l := &lanes[i]
		if end := l.pace.finish(f.now, l.free, n); best == nil || end.Before(done) {
			best, done = l, end
		}
	}
	return best, done
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// exchange returns how many rows of one model take as long as rows of another.
func (s *Scheduler[R, A]) exchange(rows int, from, to *queue[R, A]) int {
	var theirs, ours time.Duration
	for _, r := range s.replicas {
		theirs += r.pace(from.model).spacedFor(s.maxRows(from)) * time.Duration(s.maxRows(to))
		ours += r.pace(to.model).spacedFor(s.maxRows(to)) * time.Duration(s.maxRows(from))
	}
	if theirs == 0 || ours == 0 {
		return rows
	}
	return int(float64(rows) * float64(theirs) / float64(ours))
}
