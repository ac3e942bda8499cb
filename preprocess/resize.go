package preprocess

import (
	"math"

	"github.com/refersam/refersam"
)

// precision is the number of fractional bits of a resampling weight. Sums of
// 8-bit samples then fit in an int32.
const precision = 32 - 8 - 2

// Resize stretches p to width × height pixels and returns them as RGB, row by
// row. Every sample equals that of Pillow 13's resize with BILINEAR: a triangle
// filter that widens when it shrinks (antialiasing), with fixed-point weights,
// along one axis and then the other, rounded to 8 bits in between. The result
// is p.Pix itself when the size stays the same. It panics when width or height
// is below 1.
func Resize(p *refersam.Picture, width, height int) []uint8 {
	if width < 1 || height < 1 {
		panic("preprocess: Resize to less than one pixel")
	}
	pix := p.Pix
	if columnsFirst(p.Width, p.Height, width, height) {
		pix = resizeColumns(pix, 3*p.Width, p.Height, height)
		return resizeRows(pix, p.Width, height, width)
	}
	pix = resizeRows(pix, p.Width, p.Height, width)
	return resizeColumns(pix, 3*width, p.Height, height)
}

// columnsFirst is Pillow 13's choice of the axis to begin with, found by trial
// on a thousand shapes. Pillow 12 and older always begin with the rows, which
// moves some samples of tall pictures by one level.
func columnsFirst(width, height, outWidth, outHeight int) bool {
	return outHeight < height && height-outHeight > 2*(width-outWidth)
}

// taps are the input positions [first, first+len(weights)) that make one
// output position.
type taps struct {
	first   int
	weights []int32
}

// bilinear returns the taps of each of out positions over in.
//
// Each product is assigned before it is used: Go may otherwise fuse it with
// the sum that follows, which rounds differently on some machines.
func bilinear(in, out int) []taps {
	scale := float64(in) / float64(out)
	support := max(scale, 1)
	inverse := 1 / support
	size := 2*int(math.Ceil(support)) + 1

	all := make([]taps, out)
	fixed := make([]int32, out*size)
	weights := make([]float64, size)
	for i := range all {
		center := (float64(i) + 0.5) * scale
		first := max(int(center-support+0.5), 0)
		n := min(int(center+support+0.5), in) - first
		sum := 0.0
		for j := range n {
			x := (float64(first+j) - center + 0.5) * inverse
			weights[j] = max(1-math.Abs(x), 0)
			sum += weights[j]
		}
		t := taps{first, fixed[:n:n]}
		fixed = fixed[n:]
		for j := range n {
			t.weights[j] = int32(0.5 + weights[j]/sum*(1<<precision))
		}
		all[i] = t
	}
	return all
}

func round(sum int32) uint8 { return uint8(min(sum>>precision, 255)) }

const roundingHalf = 1 << (precision - 1)

// resizeRows changes the width of RGB rows. It returns pix if that stays.
func resizeRows(pix []uint8, width, height, outWidth int) []uint8 {
	if width == outWidth {
		return pix
	}
	all := bilinear(width, outWidth)
	out := make([]uint8, 3*outWidth*height)
	for y := range height {
		src := pix[3*width*y:][:3*width]
		dst := out[3*outWidth*y:][:3*outWidth]
		for x, t := range all {
			var r, g, b int32 = roundingHalf, roundingHalf, roundingHalf
			s := src[3*t.first:][:3*len(t.weights)]
			for _, w := range t.weights {
				r += int32(s[0]) * w
				g += int32(s[1]) * w
				b += int32(s[2]) * w
				s = s[3:]
			}
			dst[3*x], dst[3*x+1], dst[3*x+2] = round(r), round(g), round(b)
		}
	}
	return out
}

// resizeColumns changes the height of a picture with stride bytes a row. It
// returns pix if that stays.
func resizeColumns(pix []uint8, stride, height, outHeight int) []uint8 {
	if height == outHeight {
		return pix
	}
	out := make([]uint8, stride*outHeight)
	sums := make([]int32, stride)
	for y, t := range bilinear(height, outHeight) {
		for i := range sums {
			sums[i] = roundingHalf
		}
		for j, w := range t.weights {
			src := pix[stride*(t.first+j):][:len(sums)]
			for i, v := range src {
				sums[i] += int32(v) * w
			}
		}
		dst := out[stride*y:][:len(sums)]
		for i, sum := range sums {
			dst[i] = round(sum)
		}
	}
	return out
}
