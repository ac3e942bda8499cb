package postprocess

import (
	"io"
	"math"

	"github.com/refersam/refersam"
)

// EncodeProbability writes the foreground probability of every pixel of a
// width × height picture as a PNG of 16 bits per pixel, 65535 for 1.
func EncodeProbability(w io.Writer, l refersam.Logits, width, height int) error {
	if err := check(l, width, height); err != nil {
		return err
	}
	u := newUpsampler(l, width, height)
	p := newPNG(w, width, height, 16, colorGray, pictureCompression)
	values := make([]float32, width)
	row := make([]byte, 2*width)
	for y := range height {
		u.row(y, values)
		var left uint16
		for x, v := range values {
			level := uint16(probability(v)*math.MaxUint16 + 0.5)
			// Mostly only the low byte differs between neighbours. The filter works
			// on bytes, without carry.
			row[2*x] = byte(level>>8) - byte(left>>8)
			row[2*x+1] = byte(level) - byte(left)
			left = level
		}
		p.row(filterSub, row)
	}
	return p.close()
}

// MeanProbability is the mean foreground probability over the foreground of m,
// which must have the size of the picture. It has six correct digits, and is 0 if
// the mask is empty. It panics if l does not satisfy the contract of
// refersam.Logits.
func MeanProbability(l refersam.Logits, m *refersam.Mask) float64 {
	if err := check(l, m.Width, m.Height); err != nil {
		panic(err)
	}
	u := newUpsampler(l, m.Width, m.Height)
	cells := groups(u.ys)
	samples := make([]sampling, len(cells))
	cellOf := make([]int32, m.Height)
	for i, cell := range cells {
		samples[i] = newSampling(u.ys[cell.from:cell.to])
		for y := cell.from; y < cell.to; y++ {
			cellOf[y] = int32(i)
		}
	}
	sum, area := 0.0, 0
	for x, s := range spans(m) {
		area += s.to - s.from
		lowerRow := int32(-1) // the row of the logits in lower
		var lower float32
		for i := cellOf[s.from]; s.from < s.to; i++ {
			cell := &cells[i]
			upper := lower
			if lowerRow != cell.lo {
				upper = u.along(x, cell.lo)
			}
			lower, lowerRow = u.along(x, cell.hi), cell.hi
			end := min(s.to, cell.to)
			if end-s.from == samples[i].rows && math.Abs(float64(lower-upper)) <= maxSampledRise {
				sum += samples[i].sum(upper, lower)
			} else {
				for _, b := range u.ys[s.from:end] {
					sum += float64(probability(upper + (lower-upper)*b.w))
				}
			}
			s.from = end
		}
	}
	if area == 0 {
		return 0
	}
	return sum / float64(area)
}

// sampling replaces a sum over the rows of a cell by the values at three places:
// the middle, and one equally far above and below it. Like Gauss's, the rule is
// exact for all polynomials up to degree 5, because it has the same moments as the
// rows.
type sampling struct {
	rows                 int
	above, middle, below float32 // positions as in blend.w
	outer, inner         float64 // weights
}

// maxSampledRise is the largest difference between the ends of a cell, in logits,
// at which a rule of degree 5 still has an error below 2e-7.
const maxSampledRise = 1

func newSampling(ys []blend) sampling {
	n := float64(len(ys))
	mean := 0.0
	for _, b := range ys {
		mean += float64(b.w) / n
	}
	second, fourth := 0.0, 0.0
	for _, b := range ys {
		d2 := (float64(b.w) - mean) * (float64(b.w) - mean)
		second, fourth = second+d2/n, fourth+d2*d2/n
	}
	s := sampling{rows: len(ys), middle: float32(mean), above: float32(mean), below: float32(mean), inner: n}
	if fourth > 0 {
		away := math.Sqrt(fourth / second)
		s.above, s.below = float32(mean-away), float32(mean+away)
		s.outer = n * second * second / fourth / 2
		s.inner = n - 2*s.outer
	}
	return s
}

// sum is the sum of the probabilities of values from upper to lower.
func (s *sampling) sum(upper, lower float32) float64 {
	rise := lower - upper
	return s.inner*float64(probability(upper+rise*s.middle)) +
		s.outer*float64(probability(upper+rise*s.above)+probability(upper+rise*s.below))
}

// Stability is the IoU of two masks of l with thresholds delta above and below, as
// logits: 1 if the mask does not depend on its threshold. Segment Anything uses a
// delta of 1.
func Stability(l refersam.Logits, width, height int, threshold, delta float64) (float64, error) {
	if err := check(l, width, height); err != nil {
		return 0, err
	}
	cut, err := logit(threshold)
	if err != nil {
		return 0, err
	}
	return IoU(cross(l, width, height, cut+math.Abs(delta)), cross(l, width, height, cut-math.Abs(delta))), nil
}

// The sigmoid is read from a table with linear interpolation between its entries.
// The error is at most 3e-7, and it takes an eighth of the time of math.Exp.
const (
	sigmoidEnd   = 16 // beyond it, the sigmoid is 0 or 1 up to 1.2e-7
	sigmoidSteps = 256
)

var sigmoids = func() (table [2*sigmoidEnd*sigmoidSteps + 2]float32) {
	for i := range table {
		table[i] = float32(1 / (1 + math.Exp(sigmoidEnd-float64(i)/sigmoidSteps)))
	}
	return table
}()

// probability is the sigmoid of a logit.
func probability(v float32) float32 {
	at := (min(max(v, -sigmoidEnd), sigmoidEnd) + sigmoidEnd) * sigmoidSteps
	i := int(at)
	low := sigmoids[i]
	return low + (sigmoids[i+1]-low)*(at-float32(i))
}
