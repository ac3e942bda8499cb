package schedule

import (
	"cmp"
	"math"
	"slices"
	"time"
)

const (
	// recent is how many durations of one batch size count.
	recent = 31
	// outlier is how many times the mean a duration may be to count.
	outlier = 3
	// enough is how many real batches of a size make its duration certain: it
	// is then believed whatever other sizes say.
	enough = 3
	// stale is after how many later batches of any size a size is no longer
	// certain.
	stale = 64
	// moved is by what factor every one of the last durations must differ from
	// the mean of those before for the ones before to be forgotten.
	moved = 1.5
	// overturned is by what factor a forecast must change at once for what was
	// learnt about its errors to be forgotten.
	overturned = 2
	// doubt is by what factor a forecast may be wrong that no real batch has
	// confirmed.
	doubt = 32
)

// ring is the last values of something, in no order.
type ring struct {
	values []float64
	next   int // the oldest, once the ring is full
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
	blank  float64   // of blank rows; 0: it was never measured
	values []float64 // of real batches, the oldest first, at most recent
	seen   int       // value of pace.batches at the last real batch
	ended  time.Time // when the last real batch ended; zero if it was given up
}

// add takes in how long a real batch took. Once each of the last turn values
// says that durations have moved, the values before them are forgotten.
func (s *samples) add(seconds float64, turn int) {
	if len(s.values) == recent {
		s.values = slices.Delete(s.values, 0, 1)
	}
	s.values = append(s.values, seconds)
	n := len(s.values) - turn
	if n <= 0 {
		return
	}
	before, last := mean(s.values[:n], math.Inf(1)), s.values[n:]
	if slices.Min(last) > moved*before || slices.Max(last) < before/moved {
		s.values = slices.Delete(s.values, 0, n)
	}
}

// typical returns the mean of the values but for those that are more than
// outlier times the mean. It is not the median: the time that many batches take
// is the sum of their means, and where Triton makes one batch of two of ours,
// every other gap between batches is 0. The duration of blank rows counts as a
// value until there are trust real ones.
func (s *samples) typical(trust int) float64 {
	values := s.values
	if len(values) < trust && s.blank > 0 {
		values = append(slices.Clone(values), s.blank)
	}
	return mean(values, outlier*mean(values, math.Inf(1)))
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

// curve is a duration that grows with the number of rows n of a batch, but no
// faster than n. It is learnt from the last durations of each n.
//
// The duration of a size with enough recent batches is believed as it is. Any
// other size is believed within the bounds that the sizes with later batches
// set: more rows do not take less time, and a row of a larger batch does not
// take more. So a size that was measured at a bad moment, or long ago, says
// nothing about a size that has just been seen, and cannot contradict it.
type curve struct {
	// trust is how many real batches of a size it takes for its blank rows no
	// longer to count, turn how many are believed when they say that durations
	// have moved.
	trust, turn int
	// most says that every duration may be longer than it had to be, so that
	// of sizes that contradict one another the shorter duration is right.
	most   bool
	sizes  map[int]*samples
	points []point // what is believed of each size, by rows
	last   int     // value of pace.batches at the last real batch
}

// point says how long a batch takes.
type point struct {
	rows    int
	seconds float64
}

// measured reports whether anything was observed.
func (c *curve) measured() bool { return len(c.points) > 0 }

// size returns what is known of batches of n rows.
func (c *curve) size(n int) *samples {
	if c.sizes == nil {
		c.sizes = make(map[int]*samples)
	}
	if c.sizes[n] == nil {
		c.sizes[n] = &samples{}
	}
	return c.sizes[n]
}

// observe learns that a real batch of n rows took d, as the batches-th batch. It
// ended at a moment, which is zero if it was given up.
func (c *curve) observe(n int, d time.Duration, batches int, ended time.Time) {
	s := c.size(n)
	s.add(d.Seconds(), c.turn)
	s.seen, s.ended, c.last = batches, ended, batches
	c.fit(batches)
}

// confirmed returns when the last batch of n rows ended, if it took about as
// long as batches of that size are believed to take; else the zero time.
func (c *curve) confirmed(n int) time.Time {
	s := c.sizes[n]
	if s == nil || len(s.values) == 0 || s.values[len(s.values)-1] < c.seconds(n)/moved {
		return time.Time{}
	}
	return s.ended
}

// blank learns that n blank rows took d. Of several durations the shortest
// counts: a busy machine makes them longer, nothing makes them shorter.
func (c *curve) blank(n int, d time.Duration, batches int) {
	s := c.size(n)
	if seconds := d.Seconds(); s.blank == 0 || seconds < s.blank {
		s.blank = max(seconds, 1e-9)
	}
	c.fit(batches)
}

// certain reports whether batches of a size are believed whatever others say.
func (s *samples) certain(batches int) bool {
	return len(s.values) >= enough && batches-s.seen < stale
}

// fit decides what is believed of each size.
func (c *curve) fit(batches int) {
	rows := make([]int, 0, len(c.sizes))
	for n := range c.sizes {
		rows = append(rows, n)
	}
	slices.SortFunc(rows, func(a, b int) int {
		x, y := c.sizes[a], c.sizes[b]
		if x.certain(batches) != y.certain(batches) {
			if x.certain(batches) {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(y.seen, x.seen), cmp.Compare(a, b))
	})
	c.points = c.points[:0]
	for _, n := range rows {
		s := c.sizes[n]
		p := point{n, s.typical(c.trust)}
		if !s.certain(batches) {
			least, most := c.bounds(n)
			p.seconds = min(max(p.seconds, least), most)
		}
		i, _ := slices.BinarySearchFunc(c.points, n, func(p point, n int) int { return cmp.Compare(p.rows, n) })
		c.points = slices.Insert(c.points, i, p)
	}
	if !c.most {
		return
	}
	for i := len(c.points) - 2; i >= 0; i-- {
		c.points[i].seconds = min(c.points[i].seconds, c.points[i+1].seconds)
	}
	for i := 1; i < len(c.points); i++ {
		below := c.points[i-1]
		c.points[i].seconds = min(c.points[i].seconds, below.seconds*float64(c.points[i].rows)/float64(below.rows))
	}
}

// bounds returns the least and the most that n rows can take according to the
// points. The points may contradict one another; the nearest ones count.
func (c *curve) bounds(n int) (least, most float64) {
	most = math.Inf(1)
	i, _ := slices.BinarySearchFunc(c.points, n, func(p point, n int) int { return cmp.Compare(p.rows, n) })
	if i > 0 {
		below := c.points[i-1]
		least, most = below.seconds, below.seconds*float64(n)/float64(below.rows)
	}
	if i < len(c.points) {
		above := c.points[i]
		least, most = max(least, above.seconds*float64(n)/float64(above.rows)), min(most, above.seconds)
	}
	return least, max(least, most)
}

// at returns the duration for n rows, 0 if nothing is known.
func (c *curve) at(n int) time.Duration {
	return time.Duration(c.seconds(n) * float64(time.Second))
}

func (c *curve) seconds(n int) float64 {
	if !c.measured() {
		return 0
	}
	i, exact := slices.BinarySearchFunc(c.points, n, func(p point, n int) int { return cmp.Compare(p.rows, n) })
	first, last := c.points[0], c.points[len(c.points)-1]
	switch {
	case exact:
		return c.points[i].seconds
	case i == 0:
		return half(first, n)
	case i < len(c.points):
		a, b := c.points[i-1], c.points[i]
		return a.seconds + (b.seconds-a.seconds)*float64(n-a.rows)/float64(b.rows-a.rows)
	case len(c.points) == 1:
		return half(last, n)
	default:
		row := (last.seconds - first.seconds) / float64(last.rows-first.rows)
		row = min(max(row, 0), last.seconds/float64(last.rows))
		return last.seconds + row*float64(n-last.rows)
	}
}

// half returns how long n rows take if half of a point's duration is for its
// rows: one size does not say which part is.
func half(p point, n int) float64 {
	return p.seconds/2 + p.seconds/2*float64(n)/float64(p.rows)
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
	alone, spaced curve
	batches       int // that were observed
	// depth is how many batches the replica may have at once. With d batches
	// under way, one ends every alone/d on average at most (Little's law).
	depth int
	late  ratios
	since time.Time // batches sent before it say nothing about late
}

func newPace(depth int) *pace {
	return &pace{
		alone:  curve{trust: 1, turn: 4},
		spaced: curve{trust: 4, turn: 8, most: true}, // up to 7 gaps in a row are 0 where Triton merges 8 batches
		depth:  depth,
	}
}

func (p *pace) aloneFor(n int) time.Duration { return p.alone.at(n) }

// spacedFor is aloneFor as long as no two batches have overlapped. It is no
// more than that unless later batches of that size have shown otherwise.
func (p *pace) spacedFor(n int) time.Duration {
	alone := p.alone.at(n)
	if !p.spaced.measured() {
		return alone
	}
	spaced := p.spaced.at(n)
	if s := p.spaced.sizes[n]; p.alone.measured() && (s == nil || s.seen <= p.alone.last) {
		spaced = min(spaced, alone)
	}
	return max(spaced, alone/time.Duration(p.depth))
}

// observe learns a duration of n rows, alone or spaced, and reports whether that
// overturned the forecast for batches of that size. ended is zero if the batch
// was given up.
func (p *pace) observe(c *curve, n int, d time.Duration, now, ended time.Time) bool {
	alone, spaced := p.aloneFor(n), p.spacedFor(n)
	p.batches++
	c.observe(n, d, p.batches, ended)
	if !differs(alone, p.aloneFor(n)) && !differs(spaced, p.spacedFor(n)) {
		return false
	}
	p.late, p.since = ratios{}, now
	return true
}

// differs reports whether one forecast overturns another.
func differs(before, after time.Duration) bool {
	a, b := float64(before), float64(after)
	return a > 0 && (b > overturned*a || b < a/overturned)
}

// finish predicts when n rows sent now are done, behind a batch that is done at
// last.
func (p *pace) finish(now, last time.Time, n int) time.Time {
	return later(now.Add(p.aloneFor(n)), last.Add(p.spacedFor(n)))
}

// stall returns how many times the predicted duration a batch may take before
// its replica is suspected of hanging.
func (p *pace) stall() float64 {
	if p.batches < enough {
		return doubt
	}
	return stallFactor
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

// percentile returns the factor that the given percentage of the batches stays
// below, at least 1. The latest batch of all never counts, because one hiccup
// is no pattern.
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

// caution is the fraction by which predictions at admission are stretched
// beyond past lateness. Past lateness alone is not enough, because it does not
// include how late abandoned rows would have been. caution grows by cautionStep
// with each batch that has an admitted row past its deadline. It shrinks in
// proportion with each batch that is in time. It is therefore stable at
// cautionStep/cautionDecay when the percentage of late batches is what the
// percentile allows, and it forgets a bad moment.
type caution float64

// learn takes in a batch.
func (c *caution) learn(missed bool, percentile float64) {
	if missed {
		*c = min(*c+cautionStep, maxCaution)
		return
	}
	*c -= *c * caution(cautionDecay*(1-percentile/100))
}
