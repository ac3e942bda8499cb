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
	open  bool    // a replica has capacity
}

// lane is a replica in a forecast.
type lane struct {
	pace *pace
	free time.Time // when its last batch is done; zero if it has none
}

// forecast looks at every replica as it is now.
func (q *queue[R, A]) forecast(now time.Time) *forecast {
	s := q.scheduler
	f := &forecast{now: now, batch: q.maxRows(), late: q.late.percentile(s.settings.Percentile) * (1 + float64(q.caution))}
	for _, r := range s.replicas {
		if r.serving(q.model) {
			p := r.pace(q.model)
			f.lanes = append(f.lanes, lane{p, r.free(now)})
			f.open = f.open || r.hasCapacity()
		}
	}
	return f
}

// slack is how much later than predicted the last one of rows may be without
// anything having gone wrong: it may miss a batch, and the batches before it may
// not be full. No batch has more rows than wait.
func (f *forecast) slack(rows int) time.Duration {
	var slack time.Duration
	for _, l := range f.lanes {
		slack = max(slack, 2*l.pace.spacedFor(min(f.batch, rows)))
	}
	return slack
}

// idle returns how long the given number of rows takes if nothing else is done.
func (f *forecast) idle(rows int) time.Duration {
	lanes := slices.Clone(f.lanes)
	for i := range lanes {
		lanes[i].free = time.Time{}
	}
	return f.finish(lanes, rows).Sub(f.now)
}

// done returns when the last of the given number of rows is done, after
// everything that is under way. expected is the predicted time and worst the
// latest.
func (f *forecast) done(rows int) (expected, worst time.Time) {
	expected = f.finish(slices.Clone(f.lanes), rows)
	return expected, f.now.Add(time.Duration(float64(expected.Add(f.slack(rows)).Sub(f.now)) * f.late))
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

const (
	// maxTrials is how many trials of a forecast that no batch has confirmed may
	// miss their deadline in a row without a rest.
	maxTrials = 5
	// maxTrialRest is how many times its predicted duration a trial is apart from
	// what speaks against it, at most: so trials in vain take a twentieth of the
	// time of a replica that has nothing else to do.
	maxTrialRest = 20
)

// trials decides whether an idle replica may try what a forecast says is in
// vain.
//
// A forecast that is too long refuses every request, and without requests
// nothing is learnt. Work on an idle replica costs nobody, so the forecast is
// put to the test: a job is admitted although it is predicted to miss its
// deadline. If the job is in time, the forecast has learnt. If it is late, the
// next trial has to wait, and each time twice as long. A forecast that a batch
// has just confirmed is not tried at once.
type trials struct {
	failed int
	last   time.Time // when a trial was last begun
}

// begin reports whether a job may be tried now, by the time that it is predicted
// to take, the time left until its deadline, and when a batch has confirmed the
// forecast, the zero time if none has.
func (t *trials) begin(now time.Time, predicted, left time.Duration, confirmed time.Time) bool {
	if left <= 0 || predicted > doubt*left {
		return false
	}
	late := t.failed
	if confirmed.IsZero() {
		late -= maxTrials
	}
	if late >= 0 {
		rest := predicted * time.Duration(min(1<<min(late, 10), maxTrialRest))
		if now.Sub(later(t.last, confirmed)) < rest {
			return false
		}
	}
	t.failed, t.last = t.failed+1, now
	return true
}

// restart makes the next trials begin at once.
func (t *trials) restart() { t.failed = 0 }

// confirmed returns when a batch has last confirmed how long the rows of a job
// take, the zero time if that is in doubt on a replica.
func (f *forecast) confirmed(rows int) time.Time {
	var last time.Time
	for _, l := range f.lanes {
		at := l.pace.alone.confirmed(min(rows, f.batch))
		if at.IsZero() {
			return at
		}
		last = later(last, at)
	}
	return last
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// exchange returns how many rows of q take as long as rows of another model.
func (q *queue[R, A]) exchange(rows int, other *queue[R, A]) int {
	var theirs, ours time.Duration
	for _, r := range q.scheduler.replicas {
		theirs += r.pace(other.model).spacedFor(other.maxRows()) * time.Duration(q.maxRows())
		ours += r.pace(q.model).spacedFor(q.maxRows()) * time.Duration(other.maxRows())
	}
	if theirs == 0 || ours == 0 {
		return rows
	}
	return int(float64(rows) * float64(theirs) / float64(ours))
}
