package postprocess

import (
	"io"
	"math"

	"github.com/refersam/refersam"
)

// EncodeProbability writes the foreground probability of every pixel of a
// width × height picture as a PNG of 16 bits a pixel, 65535 for 1.
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
			// Neighbours differ in the low byte only, mostly. The filter works on
			// bytes, without carry.
			row[2*x] = byte(level>>8) - byte(left>>8)
			row[2*x+1] = byte(level) - byte(left)
			left = level
		}
		p.row(filterSub, row)
	}
	return p.close()
}

// MeanProbability is the mean foreground probability over the foreground of m,
// which has the size of the picture, to six digits; 0 when there is none. It
// panics when the logits are not as refersam.Logits says.
func MeanProbability(l refersam.Logits, m *refersam.Mask) float64 {
	if err := check(l, m.Width, m.Height); err != nil {
		panic(err)
	}
	u := newUpsampler(l, m.Width, m.Height)
	cells := groups(u.ys)
	cellOf := make([]int32, m.Height)
	for i, cell := range cells {
		for y := cell.from; y < cell.to; y++ {
			cellOf[y] = int32(i)
		}
	}
	sum, area := 0.0, 0
	for x, s := range spans(m) {
		area += s.to - s.from
		for i := cellOf[s.from]; s.from < s.to; i++ {
			cell := &cells[i]
			upper, lower := u.along(x, cell.lo), u.along(x, cell.hi)
			end := min(s.to, cell.to)
			sum += sumProbability(upper, lower, u.ys[s.from:end])
			s.from = end
		}
	}
	if area == 0 {
		return 0
	}
	return sum / float64(area)
}

// sumProbability adds up the probabilities of values between upper and lower.
func sumProbability(upper, lower float32, ys []blend) float64 {
	sum := 0.0
	if max(upper, lower) >= sigmoidEnd || min(upper, lower) <= -sigmoidEnd {
		for _, b := range ys {
			sum += float64(probability(upper + (lower-upper)*b.w))
		}
		return sum
	}
	// Nothing to clamp; this halves the time.
	start, rise := (upper+sigmoidEnd)*sigmoidSteps, (lower-upper)*sigmoidSteps
	for _, b := range ys {
		at := start + rise*b.w
		i := int(at)
		low := sigmoids[i]
		sum += float64(low + (sigmoids[i+1]-low)*(at-float32(i)))
	}
	return sum
}

// Stability is how little the mask of l depends on its threshold: the IoU of
// the masks whose thresholds lie delta above and below, as logits. Segment
// Anything takes 1.
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

// The sigmoid is read from a table and a straight line between its entries,
// off by at most 3e-7: an eighth of the time of math.Exp.
const (
	sigmoidEnd   = 16 // beyond it is 0 or 1 but for 1.2e-7
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
