package preprocess

import (
	"math"
	"sync"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess/picture"
)

// precision is the number of fractional bits of a resampling weight. Sums of
// 8-bit samples then fit in an int32.
const precision = 32 - 8 - 2

// Resize stretches p to width × height pixels and returns them as RGB, row by
// row. Every sample equals the sample of Pillow 13's resize with BILINEAR: a triangle
// filter that widens when it shrinks (antialiasing), with fixed-point weights,
// along one axis and then the other, rounded to 8 bits in between. The result
// is p.Pix itself when the size stays the same. It panics when width or height
// is below 1.
func Resize(p *refersam.Picture, width, height int) []uint8 {
	return resize(fastKernels, p, width, height)
}

// kernels are the two passes; each makes one row of its result.
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

// resizeInto writes the 3·width·height bytes of out.
func resizeInto(k kernels, out []uint8, p *refersam.Picture, width, height int) {
	if width == p.Width && height == p.Height {
		copy(out, p.Pix)
		return
	}
	s := newStretcher(k, out, p.Width, p.Height, picture.Upright, width, height)
	for y := range p.Height {
		s.setRow(y, p.Pix[3*p.Width*y:][:3*p.Width])
	}
	s.finish()
}

// stretcher takes the rows of a stored picture one by one from the top, resizes
// them and turns the result upright. It holds at most as many rows as make one
// row of the result, never the whole picture or an upright copy of it.
type stretcher struct {
	kernels      kernels
	result       []uint8
	out          []uint8 // the result before it is turned
	orientation  picture.Orientation
	across, down *filter // of the picture as stored
	columnsFirst bool
	// ring holds the last rows, between the passes or before them. The windows
	// of successive rows of the result only move on.
	ring  []uint8
	width int     // of its rows, in bytes
	mixed []uint8 // a row before it is resized across
	done  int     // rows of out
}

// newStretcher takes a picture of width × height pixels as stored. After finish,
// result holds outWidth × outHeight upright pixels. The passes have the order
// that they have for the upright picture, and an axis that will be mirrored has
// mirrored weights, so the samples equal the samples of the upright picture
// resized.
func newStretcher(k kernels, result []uint8, width, height int, o picture.Orientation, outWidth, outHeight int) *stretcher {
	s := &stretcher{kernels: k, orientation: o, result: result, out: result}
	if o != picture.Upright {
		s.out = make([]uint8, len(result))
	}
	if o.Transposed() {
		outWidth, outHeight = outHeight, outWidth
		s.columnsFirst = !columnsFirst(height, width, outHeight, outWidth)
	} else {
		s.columnsFirst = columnsFirst(width, height, outWidth, outHeight)
	}
	s.across = bilinear(width, outWidth, o == picture.FlipHorizontal || o == picture.Rotate180 || o == picture.Rotate270 || o == picture.Transverse)
	s.down = bilinear(height, outHeight, o == picture.FlipVertical || o == picture.Rotate180 || o == picture.Rotate90 || o == picture.Transverse)
	s.width = 3 * outWidth
	if s.columnsFirst {
		s.width = 3 * width
		s.mixed = make([]uint8, s.width)
	}
	s.ring = make([]uint8, s.width*s.down.size)
	return s
}

// setRow takes row y; with row 0 the picture begins anew.
func (s *stretcher) setRow(y int, rgb []uint8) {
	if y == 0 {
		s.done = 0
	}
	slot := s.ring[y%s.down.size*s.width:][:s.width]
	if s.columnsFirst {
		copy(slot, rgb)
	} else {
		s.kernels.across(slot, rgb, s.across)
	}
	width := 3 * len(s.across.firsts)
	for ; s.done < len(s.down.firsts); s.done++ {
		first, weights := s.down.taps(s.done)
		if first+len(weights) > y+1 {
			return
		}
		row := s.out[s.done*width:][:width]
		if s.columnsFirst {
			s.kernels.down(s.mixed, s.ring, first, weights)
			s.kernels.across(row, s.mixed, s.across)
		} else {
			s.kernels.down(row, s.ring, first, weights)
		}
	}
}

// finish completes the result once all rows are in.
func (s *stretcher) finish() {
	if s.orientation == picture.Upright {
		return
	}
	width, height := len(s.across.firsts), len(s.down.firsts)
	turned := newCanvas(s.result, width, height, s.orientation)
	for y := range height {
		turned.setRow(0, y, s.out[3*width*y:][:3*width])
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
	// halves are the weights again as C multiplies them, the bits from lowHalf
	// on (h) and those below (l) apart: of every four [h0 h1 l0 l1 h2 h3 l2 l3].
	halves []int16
}

// lowHalf is LOW in resize.c.
const lowHalf = 11

// tapGroup is how many inputs the fast kernels take at once.
const tapGroup = 4

func (f *filter) taps(i int) (first int, weights []int32) {
	return int(f.firsts[i]), f.weights[i*f.size:][:f.counts[i]]
}

// filters keeps what bilinear made last: cameras have few sizes, models one,
// and a filter for a new size costs as much as a tenth of resizing a picture.
var filters struct {
	sync.Mutex
	made map[filterKey]*filter
}

type filterKey struct {
	in, out  int
	mirrored bool
}

// maxFilters bounds filters.made; the largest takes some 130 kB with the
// default limits.
const maxFilters = 64

// bilinear returns the filter from in to out positions; mirrored counts the
// positions of in from the other end. The filter is shared and must not be
// changed.
func bilinear(in, out int, mirrored bool) *filter {
	key := filterKey{in, out, mirrored}
	filters.Lock()
	f := filters.made[key]
	filters.Unlock()
	if f != nil {
		return f
	}
	f = makeFilter(in, out)
	if mirrored {
		f = f.mirrored(in)
	}
	f.halves = make([]int16, 2*len(f.weights))
	for i, w := range f.weights {
		at := i/2*4 + i%2
		f.halves[at], f.halves[at+2] = int16(w>>lowHalf), int16(w&(1<<lowHalf-1))
	}
	filters.Lock()
	defer filters.Unlock()
	if filters.made == nil {
		filters.made = make(map[filterKey]*filter, maxFilters)
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

// mirrored returns the filter that makes of a reversed row the reverse of what
// f makes of the row. By rounding weights it is not always f.
func (f *filter) mirrored(in int) *filter {
	m := &filter{
		size:    f.size,
		firsts:  make([]int32, len(f.firsts)),
		counts:  make([]int32, len(f.counts)),
		weights: make([]int32, len(f.weights)),
	}
	for i := range f.firsts {
		from := len(f.firsts) - 1 - i
		first, weights := f.taps(from)
		m.firsts[i], m.counts[i] = int32(in-first-len(weights)), f.counts[from]
		for j, w := range weights {
			m.weights[i*m.size+len(weights)-1-j] = w
		}
	}
	return m
}

// goKernels are the truth that all other kernels equal.
var goKernels = kernels{acrossGo, downGo}

func round(sum int32) uint8 { return uint8(min(sum>>precision, 255)) }

const roundingHalf = 1 << (precision - 1)

// acrossGo takes tapGroup pixels at a time, which is three times as fast as one
// by one. Weights beyond the count are 0; only pixels beyond the row do harm.
func acrossGo(dst, src []uint8, f *filter) {
	for x, first := range f.firsts {
		var r, g, b int32 = roundingHalf, roundingHalf, roundingHalf
		s, weights := src[3*first:], f.weights[x*f.size:][:(f.counts[x]+tapGroup-1)/tapGroup*tapGroup]
		for len(weights) >= tapGroup && len(s) >= 3*tapGroup {
			p, w := (*[3 * tapGroup]uint8)(s), (*[tapGroup]int32)(weights)
			r += int32(p[0])*w[0] + int32(p[3])*w[1] + int32(p[6])*w[2] + int32(p[9])*w[3]
			g += int32(p[1])*w[0] + int32(p[4])*w[1] + int32(p[7])*w[2] + int32(p[10])*w[3]
			b += int32(p[2])*w[0] + int32(p[5])*w[1] + int32(p[8])*w[2] + int32(p[11])*w[3]
			s, weights = s[len(p):], weights[len(w):]
		}
		for i := range min(len(weights), len(s)/3) {
			r += int32(s[3*i]) * weights[i]
			g += int32(s[3*i+1]) * weights[i]
			b += int32(s[3*i+2]) * weights[i]
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
