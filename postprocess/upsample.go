package postprocess

import (
	"math"

	"github.com/refersam/refersam"
)

// Upsample stretches logits to width × height values, row by row: bilinear with the
// corner samples on the corners. It equals, bit for bit, the result of torch's
// F.interpolate(mode="bilinear", align_corners=True) for float32 of one channel on
// an x86 CPU with FMA. Mask must agree with it, but computes only the few of these
// values that lie near the threshold.
func Upsample(l refersam.Logits, width, height int) ([]float32, error) {
	if err := check(l, width, height); err != nil {
		return nil, err
	}
	u := newUpsampler(l, width, height)
	out := make([]float32, width*height)
	for y := range height {
		u.row(y, out[y*width:][:width])
	}
	return out, nil
}

// upsampler computes single values of the stretched logits, or rows of them.
type upsampler struct {
	logits refersam.Logits
	xs, ys []blend
	// small selects torch's other kernel, which rounds in another order.
	small bool
	// upper and lower are the rows number upperY and lowerY of the logits,
	// stretched to the width of the picture. They are reused as long as rows of the
	// picture lie between them.
	upper, lower   []float32
	upperY, lowerY int32
}

// blend mixes two neighbouring samples: value[lo]*(1-w) + value[hi]*w.
type blend struct {
	lo, hi int32
	w      float32
}

// smallSize is the width plus height for torch using the kernel that weighs
// the four corners at once.
const smallSize = 128

func newUpsampler(l refersam.Logits, width, height int) *upsampler {
	return &upsampler{
		logits: l,
		xs:     alignCorners(l.Width, width),
		ys:     alignCorners(l.Height, height),
		small:  width+height <= smallSize,
	}
}

// alignCorners maps out positions onto in positions so that the first and the last
// coincide. Positions are float32 because torch's are: at a large index the
// rounding decides the weight's last digits.
func alignCorners(in, out int) []blend {
	var scale float32
	if out > 1 {
		scale = float32(in-1) / float32(out-1)
	}
	all := make([]blend, out)
	for i := range all {
		at := float32(scale * float32(i))
		lo := min(int32(at), int32(in-1))
		all[i] = blend{lo: lo, hi: min(lo+1, int32(in-1)), w: at - float32(lo)}
	}
	return all
}

// row writes row y to dst, which is as wide as the picture. It is fastest when y
// never decreases.
func (u *upsampler) row(y int, dst []float32) {
	if u.small {
		for x := range dst {
			dst[x] = u.at(x, y)
		}
		return
	}
	if u.upper == nil {
		u.upper, u.lower = make([]float32, len(dst)), make([]float32, len(dst))
		u.upperY, u.lowerY = -1, -1
	}
	b := u.ys[y]
	if u.lowerY == b.lo {
		u.upper, u.lower = u.lower, u.upper
		u.upperY, u.lowerY = u.lowerY, u.upperY
	}
	if u.upperY != b.lo {
		u.stretch(b.lo, u.upper)
		u.upperY = b.lo
	}
	if u.lowerY != b.hi {
		u.stretch(b.hi, u.lower)
		u.lowerY = b.hi
	}
	upper, lower := u.upper[:len(dst)], u.lower[:len(dst)]
	for x := range dst {
		dst[x] = mix(upper[x], lower[x], b.w)
	}
}

// stretch writes row r of the logits to dst.
func (u *upsampler) stretch(r int32, dst []float32) {
	for x := range dst {
		dst[x] = u.along(x, r)
	}
}

// at is the value of pixel (x, y).
func (u *upsampler) at(x, y int) float32 {
	by := u.ys[y]
	if !u.small {
		return mix(u.along(x, by.lo), u.along(x, by.hi), by.w)
	}
	bx := u.xs[x]
	upper := u.logits.Values[int(by.lo)*u.logits.Width:]
	lower := u.logits.Values[int(by.hi)*u.logits.Width:]
	x0, y0 := 1-bx.w, 1-by.w
	v := float32(float32(y0*bx.w) * upper[bx.hi])
	v = fma(float32(y0*x0), upper[bx.lo], v)
	v = fma(float32(by.w*x0), lower[bx.lo], v)
	return fma(float32(by.w*bx.w), lower[bx.hi], v)
}

// along is the value of column x in row r of the logits.
func (u *upsampler) along(x int, r int32) float32 {
	b := u.xs[x]
	row := u.logits.Values[int(r)*u.logits.Width:]
	return mix(row[b.lo], row[b.hi], b.w)
}

// mix rounds the second product and fuses the first with the sum, as the
// compiler of torch's kernels does. Here as elsewhere, the conversions to
// float32 keep Go's compiler from fusing on its own.
func mix(a, b, w float32) float32 { return fma(a, 1-w, float32(b*w)) }

// fma is x*y + z, rounded once to float32.
func fma(x, y, z float32) float32 {
	product := float64(x) * float64(y) // exact: 48 bits at most
	sum := product + float64(z)
	// The sum was rounded to 53 bits. Rounding it again to float32 differs from
	// rounding once only if the sum seems to lie midway between two float32, so
	// that its last 28 bits are 0, but does not.
	if bits := math.Float64bits(sum); bits<<36 == 0 {
		return float32(sum + nudge(product, float64(z), sum))
	}
	return float32(sum)
}

// nudge is a step from sum, which is the rounded a+b, towards the exact a+b; 0 if
// sum is exact.
func nudge(a, b, sum float64) float64 {
	part := sum - a
	rest := (a - (sum - part)) + (b - part) // exactly the part that rounding removed
	switch {
	case rest > 0:
		return math.Nextafter(sum, math.Inf(1)) - sum
	case rest < 0:
		return math.Nextafter(sum, math.Inf(-1)) - sum
	}
	return 0
}
