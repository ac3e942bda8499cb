package preprocess

import (
	"math"
	"sync"

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
	return resize(fastKernels, p, width, height)
}

// kernels are the two passes over one row of the result of each.
type kernels struct {
	// across changes the width of one row of RGB pixels.
	across func(dst, src []uint8, f *filter)
	// down mixes rows of len(dst) samples into dst. Row i of the picture is
	// row i % (len(rows) / len(dst)) of rows.
	down func(dst, rows []uint8, first int, weights []int32)
}

func resize(k kernels, p *refersam.Picture, width, height int) []uint8 {
	if width < 1 || height < 1 {
		panic("preprocess: Resize to less than one pixel")
	}
	if width == p.Width && height == p.Height {
		return p.Pix
	}
	out := make([]uint8, 3*width*height)
	resizeInto(k, out, p, width, height)
	return out
}

// resizeInto writes the 3·width·height bytes of out. It holds at most as many
// rows between the passes as make one row of the result, never the whole
// picture in between.
func resizeInto(k kernels, out []uint8, p *refersam.Picture, width, height int) {
	across, down := bilinear(p.Width, width), bilinear(p.Height, height)
	stored := 3 * p.Width
	switch {
	case width == p.Width && height == p.Height:
		copy(out, p.Pix)
	case height == p.Height:
		for y := range height {
			k.across(out[3*width*y:][:3*width], p.Pix[stored*y:][:stored], across)
		}
	case width == p.Width:
		for y := range height {
			first, weights := down.taps(y)
			k.down(out[stored*y:][:stored], p.Pix, first, weights)
		}
	case columnsFirst(p.Width, p.Height, width, height):
		row := make([]uint8, stored)
		for y := range height {
			first, weights := down.taps(y)
			k.down(row, p.Pix, first, weights)
			k.across(out[3*width*y:][:3*width], row, across)
		}
	default:
		// The windows of successive rows only move on, so a ring of the widest
		// holds every row from when it is first read until it is last read.
		ring := make([]uint8, 3*width*down.size)
		done := 0
		for y := range height {
			first, weights := down.taps(y)
			for ; done < first+len(weights); done++ {
				k.across(ring[3*width*(done%down.size):][:3*width], p.Pix[stored*done:][:stored], across)
			}
			k.down(out[3*width*y:][:3*width], ring, first, weights)
		}
	}
}

// columnsFirst is Pillow 13's choice of the axis to begin with, found by trial
// on a thousand shapes. Pillow 12 and older always begin with the rows, which
// moves some samples of tall pictures by one level.
func columnsFirst(width, height, outWidth, outHeight int) bool {
	return outHeight < height && height-outHeight > 2*(width-outWidth)
}

// filter holds the input positions and weights that make each output position.
type filter struct {
	size    int // the most inputs that one output has, a multiple of tapGroup
	firsts  []int32
	counts  []int32
	weights []int32 // size for each output; those beyond its count are 0
}

// tapGroup is how many inputs the fast kernels take at once.
const tapGroup = 4

func (f *filter) taps(i int) (first int, weights []int32) {
	return int(f.firsts[i]), f.weights[i*f.size:][:f.counts[i]]
}

// filters keeps what bilinear made last: cameras have few sizes, models one,
// and a filter for a new size costs as much as a tenth of resizing a picture.
var filters struct {
	sync.Mutex
	made map[[2]int]*filter
}

// maxFilters bounds filters.made; the largest takes some 130 kB with the
// default limits.
const maxFilters = 64

// bilinear returns the filter from in to out positions, which is shared and
// must not be changed.
func bilinear(in, out int) *filter {
	key := [2]int{in, out}
	filters.Lock()
	f := filters.made[key]
	filters.Unlock()
	if f != nil {
		return f
	}
	f = makeFilter(in, out)
	filters.Lock()
	defer filters.Unlock()
	if filters.made == nil {
		filters.made = make(map[[2]int]*filter, maxFilters)
	}
	for old := range filters.made {
		if len(filters.made) < maxFilters {
			break
		}
		delete(filters.made, old)
	}
	filters.made[key] = f
	return f
}

// makeFilter assigns each product before it is used: Go may otherwise fuse it
// with the sum that follows, which rounds differently on some machines.
func makeFilter(in, out int) *filter {
	scale := float64(in) / float64(out)
	support := max(scale, 1)
	inverse := 1 / support
	most := min(2*int(math.Ceil(support))+1, in)
	size := (most + tapGroup - 1) / tapGroup * tapGroup

	f := &filter{
		size:    size,
		firsts:  make([]int32, out),
		counts:  make([]int32, out),
		weights: make([]int32, out*size),
	}
	weights := make([]float64, most)
	for i := range out {
		center := (float64(i) + 0.5) * scale
		first := max(int(center-support+0.5), 0)
		n := min(int(center+support+0.5), in) - first
		sum := 0.0
		for j := range n {
			x := (float64(first+j) - center + 0.5) * inverse
			weights[j] = max(1-math.Abs(x), 0)
			sum += weights[j]
		}
		for j := range n {
			f.weights[i*size+j] = int32(0.5 + weights[j]/sum*(1<<precision))
		}
		f.firsts[i], f.counts[i] = int32(first), int32(n)
	}
	return f
}

// goKernels are the truth that all other kernels equal.
var goKernels = kernels{acrossGo, downGo}

func round(sum int32) uint8 { return uint8(min(sum>>precision, 255)) }

const roundingHalf = 1 << (precision - 1)

func acrossGo(dst, src []uint8, f *filter) {
	for x := range f.firsts {
		first, weights := f.taps(x)
		var r, g, b int32 = roundingHalf, roundingHalf, roundingHalf
		s := src[3*first:][:3*len(weights)]
		for _, w := range weights {
			r += int32(s[0]) * w
			g += int32(s[1]) * w
			b += int32(s[2]) * w
			s = s[3:]
		}
		dst[3*x], dst[3*x+1], dst[3*x+2] = round(r), round(g), round(b)
	}
}

func downGo(dst, rows []uint8, first int, weights []int32) {
	// A strip of sums stays in the first cache however wide the picture is.
	var sums [1024]int32
	capacity := len(rows) / len(dst)
	for from := 0; from < len(dst); from += len(sums) {
		strip := sums[:min(len(sums), len(dst)-from)]
		for i := range strip {
			strip[i] = roundingHalf
		}
		for j, w := range weights {
			src := rows[len(dst)*((first+j)%capacity)+from:][:len(strip)]
			for i, v := range src {
				strip[i] += int32(v) * w
			}
		}
		for i, sum := range strip {
			dst[from+i] = round(sum)
		}
	}
}
