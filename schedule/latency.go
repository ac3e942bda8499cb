package schedule

import (
	"math"
	"slices"
	"time"
)

const (
	// recent is how many durations of one batch size count.
	recent = 31
	// outlier is how many times the mean a duration may be to count.
	outlier = 3
	// fade is what a batch size's weight is multiplied with whenever another
	// size is seen, so that what was learnt long ago counts little against
	// what is seen now, and is not forgotten while nothing else is.
	fade = 1 - 1.0/64
)

// line is a duration that grows with the number of rows n: a + b·n, with a and
// b not negative. It is learnt from the last durations of each n but for
// outliers. The zero line is unknown.
type line struct {
	sizes map[int]*samples
	a, b  float64 // seconds
}

// ring is the last values of something, in no order.
type ring struct {
	values []float64
	next   int // the oldest, once there are as many as are kept
}

// add takes a value in and keeps the last most values.
func (r *ring) add(value float64, most int) {
	if len(r.values) < most {
		r.values = append(r.values, value)
		return
	}
	r.values[r.next] = value
	r.next = (r.next + 1) % most
}

// samples are the last durations of batches of one size, in seconds.
type samples struct {
	ring
	weight float64
}

func (s *samples) add(seconds float64) {
	s.ring.add(seconds, recent)
	s.weight = min(s.weight+1, recent)
}

// typical returns the mean of the values but for those that are more than
// outlier times the mean. It is not the median: what many batches take is the
// sum of their means, and where Triton makes one batch of two of ours, every
// other gap between batches is 0.
func (s *samples) typical() float64 {
	most := outlier * mean(s.values, math.Inf(1))
	return mean(s.values, most)
}

// mean returns the mean of the values that are at most most.
func mean(values []float64, most float64) float64 {
	var sum float64
	n := 0
	for _, v := range values {
		if v <= most {
			sum += v
			n++
		}
	}
	return sum / float64(n)
}

// known reports whether anything was observed.
func (l *line) known() bool { return len(l.sizes) > 0 }

// at returns the duration for n rows, 0 if nothing is known.
func (l *line) at(n int) time.Duration {
	return time.Duration((l.a + l.b*float64(n)) * float64(time.Second))
}

// observe learns that n rows took d.
func (l *line) observe(n int, d time.Duration) {
	if l.sizes == nil {
		l.sizes = make(map[int]*samples)
	}
	s := l.sizes[n]
	if s == nil {
		s = &samples{}
		l.sizes[n] = s
	}
	for _, other := range l.sizes {
		other.weight *= fade
	}
	s.add(d.Seconds())
	l.fit()
}

// fit sets a and b by weighted least squares over the sizes.
func (l *line) fit() {
	var w, wn, wd, wnn, wnd float64
	for n, s := range l.sizes {
		n, d := float64(n), s.typical()
		w += s.weight
		wn += s.weight * n
		wd += s.weight * d
		wnn += s.weight * n * n
		wnd += s.weight * n * d
	}
	spread := w*wnn - wn*wn
	if len(l.sizes) == 1 || spread <= 0 {
		// One size says nothing about how much of it is fixed: half, until
		// another size is seen.
		l.a = wd / w / 2
		l.b = l.a / (wn / w)
		return
	}
	l.b = (w*wnd - wn*wd) / spread
	l.a = (wd - l.b*wn) / w
	switch {
	case l.b < 0:
		l.a, l.b = wd/w, 0
	case l.a < 0:
		l.a, l.b = 0, wnd/wnn
	}
}

// pace is what is known of how fast a replica runs a model.
//
// A replica is a pipeline of stages. A batch sent at s to an idle replica is
// finished at s + alone(n); behind another batch that is finished at f, it is
// finished at max(s + alone(n), f + spaced(n)), where spaced is how long the
// slowest stage takes. Gaps between batches that were sent too late to keep the
// slowest stage busy count as well, so without much to do spaced is believed to
// be longer than it is, but no longer than alone.
type pace struct {
	alone, spaced line
	late          ratios
}

func (p *pace) aloneFor(n int) time.Duration { return p.alone.at(n) }

// spacedFor is aloneFor as long as no two batches have overlapped, and no more
// than that for a size that has not: a busy replica is no slower.
func (p *pace) spacedFor(n int) time.Duration {
	switch alone, spaced := p.alone.at(n), p.spaced.at(n); {
	case !p.spaced.known():
		return alone
	case p.spaced.sizes[n] == nil && p.alone.known():
		return min(alone, spaced)
	default:
		return spaced
	}
}

// finish predicts when n rows sent now are done, behind a batch that is done at
// last.
func (p *pace) finish(now, last time.Time, n int) time.Time {
	return later(now.Add(p.aloneFor(n)), last.Add(p.spacedFor(n)))
}

const (
	ratioWindow = 128
	// ratioPeriod is after how many ratios the percentiles are taken anew.
	ratioPeriod = 16
	// maxLateness bounds by how much predictions are stretched. A replica that
	// hung once must not keep everything out for the next 128 batches.
	maxLateness = 4
)

// ratios are how much longer than predicted the last batches took.
type ratios struct {
	ring
	sorted []float64
	fresh  int // values since sorted was made
}

func (r *ratios) add(ratio float64) {
	r.ring.add(ratio, ratioWindow)
	if r.fresh++; r.fresh >= ratioPeriod || len(r.sorted) == 0 {
		r.sorted = slices.Sorted(slices.Values(r.values))
		r.fresh = 0
	}
}

// percentile returns the factor that so many percent of the batches stay
// below, at least 1. The latest batch of all never counts: one hiccup is none.
func (r *ratios) percentile(percent float64) float64 {
	if len(r.sorted) < 2 {
		return 1
	}
	i := min(int(percent/100*float64(len(r.sorted))), len(r.sorted)-2)
	return min(max(r.sorted[i], 1), maxLateness)
}

const (
	cautionStep  = 0.02
	cautionDecay = 0.1 // of what percentile allows to miss their deadline
	maxCaution   = 1
)

// caution is by what part predictions at the door are stretched further than
// past lateness tells. That alone does not learn how late rows would have
// been that were given up. It grows by a step with each batch of which an
// admitted row misses its deadline, and shrinks in proportion with each that is
// in time: so it stands still where as many miss theirs as the percentile
// allows if it is cautionStep/cautionDecay, and forgets a bad moment.
type caution float64

// learn takes in a batch.
func (c *caution) learn(missed bool, percentile float64) {
	if missed {
		*c = min(*c+cautionStep, maxCaution)
		return
	}
	*c -= *c * caution(cautionDecay*(1-percentile/100))
}
