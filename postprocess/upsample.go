// Package postprocess turns the model's low-resolution logits into masks at
// the size of the picture, and masks into the formats that clients ask for.
package postprocess

import (
	"errors"
	"fmt"
	"math"

	"github.com/refersam/refersam"
)

// Upsample stretches logits to width × height values, row by row: bilinear
// with the corner samples on the corners, equal to torch's
// F.interpolate(mode="bilinear", align_corners=True) up to float32 rounding.
// It panics when width or height is below 1 or l is not as refersam.Logits
// says.
func Upsample(l refersam.Logits, width, height int) []float32 {
	if err := check(l, width, height); err != nil {
		panic(err)
	}
	out := make([]float32, width*height)
	r := newRows(l, width, height)
	for y := range height {
		r.row(y, out[y*width:][:width])
	}
	return out
}

// Segmentation is what one row of logits says about the picture.
type Segmentation struct {
	Mask *refersam.Mask
	// Score is the mean foreground probability over the foreground, in [0, 1];
	// 0 when there is none.
	Score float64
	// Area counts the foreground pixels, Box encloses them tightly.
	Area int
	Box  refersam.Box
}

// Segment marks as foreground the pixels of a width × height picture where the
// sigmoid of the upsampled logit is at least threshold, which lies in (0, 1).
// Besides the mask it needs memory for a few rows only. An error means that
// the arguments are out of range or that a logit is not finite, which is a
// fault of the model.
func Segment(l refersam.Logits, width, height int, threshold float64) (Segmentation, error) {
	if err := check(l, width, height); err != nil {
		return Segmentation{}, err
	}
	if !(threshold > 0 && threshold < 1) {
		return Segmentation{}, fmt.Errorf("postprocess: threshold %v is not between 0 and 1", threshold)
	}
	for i, v := range l.Values {
		if v-v != 0 { // NaN and both infinities
			return Segmentation{}, fmt.Errorf("postprocess: logit %v at (%d, %d)", v, i%l.Width, i/l.Width)
		}
	}

	// Comparing logits instead of probabilities: a sigmoid rounded to float32
	// would reach 0.5 a hair below 0 already.
	cut := math.Log(threshold / (1 - threshold))
	mask := &refersam.Mask{Width: width, Height: height, Pix: make([]uint8, width*height)}
	rows := newRows(l, width, height)
	row := make([]float32, width)
	box := bounds{minX: width, minY: height, maxX: -1, maxY: -1}
	area, sum := 0, 0.0
	for y := range height {
		rows.row(y, row)
		pix := mask.Pix[y*width:][:width]
		first, last := width, -1
		for x, v := range row {
			v := float64(v)
			if v < cut {
				continue
			}
			pix[x] = 1
			area++
			sum += 1 / (1 + math.Exp(-v))
			first, last = min(first, x), x
		}
		box.add(first, last, y)
	}
	s := Segmentation{Mask: mask, Area: area, Box: box.box()}
	if area > 0 {
		s.Score = sum / float64(area)
	}
	return s, nil
}

func check(l refersam.Logits, width, height int) error {
	switch {
	case width < 1 || height < 1:
		return fmt.Errorf("postprocess: picture of %d×%d pixels", width, height)
	case l.Width < 1 || l.Height < 1:
		return errors.New("postprocess: no logits")
	case len(l.Values) != l.Width*l.Height:
		return fmt.Errorf("postprocess: %d logits for %d×%d", len(l.Values), l.Width, l.Height)
	}
	return nil
}

// bounds is the tight rectangle around what was added, edges included.
type bounds struct{ minX, minY, maxX, maxY int }

// add extends b by the pixels first..last of row y; none if last is negative.
func (b *bounds) add(first, last, y int) {
	if last < 0 {
		return
	}
	b.minX, b.maxX = min(b.minX, first), max(b.maxX, last)
	b.minY, b.maxY = min(b.minY, y), y
}

func (b *bounds) box() refersam.Box {
	if b.maxX < 0 {
		return refersam.Box{}
	}
	return refersam.Box{X: b.minX, Y: b.minY, W: b.maxX - b.minX + 1, H: b.maxY - b.minY + 1}
}

// rows upsamples logits row by row. Rows of the logits are stretched once and
// kept as long as output rows lie between them.
type rows struct {
	logits refersam.Logits
	xs, ys []blend
	// upper and lower are the stretched rows number upperY and lowerY.
	upper, lower   []float32
	upperY, lowerY int
}

// blend mixes two neighbouring samples: value[lo]*(1-w) + value[hi]*w.
type blend struct {
	lo, hi int
	w      float32
}

func newRows(l refersam.Logits, width, height int) *rows {
	return &rows{
		logits: l,
		xs:     alignCorners(l.Width, width),
		ys:     alignCorners(l.Height, height),
		upper:  make([]float32, width), upperY: -1,
		lower: make([]float32, width), lowerY: -1,
	}
}

// alignCorners maps out positions onto in ones so that the first and the last
// coincide. Positions are float32 because torch's are: next to a large index
// the rounding is what decides the weight's last digits.
func alignCorners(in, out int) []blend {
	var scale float32
	if out > 1 {
		scale = float32(in-1) / float32(out-1)
	}
	all := make([]blend, out)
	for i := range all {
		at := scale * float32(i)
		lo := min(int(at), in-1)
		all[i] = blend{lo: lo, hi: min(lo+1, in-1), w: at - float32(lo)}
	}
	return all
}

// row writes output row y to dst. It is fastest when y never decreases.
func (r *rows) row(y int, dst []float32) {
	b := r.ys[y]
	if r.lowerY == b.lo {
		r.upper, r.lower = r.lower, r.upper
		r.upperY, r.lowerY = r.lowerY, r.upperY
	}
	if r.upperY != b.lo {
		r.stretch(b.lo, r.upper)
		r.upperY = b.lo
	}
	if r.lowerY != b.hi {
		r.stretch(b.hi, r.lower)
		r.lowerY = b.hi
	}
	upper, lower := r.upper[:len(dst)], r.lower[:len(dst)]
	for x := range dst {
		dst[x] = mix(upper[x], lower[x], b.w)
	}
}

// stretch writes row y of the logits to dst at the width of the picture.
func (r *rows) stretch(y int, dst []float32) {
	values := r.logits.Values[y*r.logits.Width:][:r.logits.Width]
	for x, b := range r.xs {
		dst[x] = mix(values[b.lo], values[b.hi], b.w)
	}
}

// mix rounds each product, so that no machine fuses it with the sum and masks
// are the same everywhere.
func mix(a, b, w float32) float32 {
	return float32(a*(1-w)) + float32(b*w)
}
