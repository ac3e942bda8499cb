package postprocess

import (
	"fmt"
	"iter"

	"github.com/refersam/refersam"
)

// runWriter joins pieces to runs.
type runWriter struct {
	runs   []uint32
	inside bool
	length int
}

// add appends n pixels.
func (w *runWriter) add(inside bool, n int) {
	if n == 0 {
		return
	}
	if inside != w.inside {
		w.runs = append(w.runs, uint32(w.length))
		w.inside, w.length = inside, 0
	}
	w.length += n
}

// close returns the runs.
func (w *runWriter) close() []uint32 { return append(w.runs, uint32(w.length)) }

// checkMask returns an error if m does not satisfy the contract of refersam.Mask.
func checkMask(m *refersam.Mask) error {
	if err := checkSize(m.Width, m.Height); err != nil {
		return err
	}
	total := 0
	for i, n := range m.Runs {
		if n == 0 && i > 0 {
			return fmt.Errorf("postprocess: run %d of a mask is empty", i)
		}
		total += int(n)
	}
	if total != m.Width*m.Height {
		return fmt.Errorf("postprocess: the runs of a mask of %d×%d pixels have %d", m.Width, m.Height, total)
	}
	return nil
}

// span is foreground in one column: rows from ≤ y < to.
type span struct{ from, to int }

// spans yields the foreground column by column, from top to bottom.
func spans(m *refersam.Mask) iter.Seq2[int, span] {
	return func(yield func(int, span) bool) {
		x, y := 0, 0
		for i, n := range m.Runs {
			left := int(n)
			if i%2 == 0 {
				y += left
				if y >= m.Height {
					x, y = x+y/m.Height, y%m.Height
				}
				continue
			}
			for left > 0 {
				to := min(y+left, m.Height)
				if !yield(x, span{y, to}) {
					return
				}
				left -= to - y
				if y = to; y == m.Height {
					x, y = x+1, 0
				}
			}
		}
	}
}

// Area counts the foreground pixels.
func Area(m *refersam.Mask) int {
	area := 0
	for i := 1; i < len(m.Runs); i += 2 {
		area += int(m.Runs[i])
	}
	return area
}

// Box is the tight box around the foreground, or the zero Box.
func Box(m *refersam.Mask) refersam.Box {
	b := emptyBounds
	for x, s := range spans(m) {
		b.add(x, s)
	}
	return b.box()
}

// bounds is the tight rectangle around the added spans, edges included.
type bounds struct{ left, top, right, bottom int }

var emptyBounds = bounds{left: maxMaskPixels, top: maxMaskPixels, right: -1, bottom: -1}

func (b *bounds) add(x int, s span) {
	b.left, b.right = min(b.left, x), max(b.right, x)
	b.top, b.bottom = min(b.top, s.from), max(b.bottom, s.to-1)
}

func (b *bounds) box() refersam.Box {
	if b.right < 0 {
		return refersam.Box{}
	}
	return refersam.Box{X: b.left, Y: b.top, W: b.right - b.left + 1, H: b.bottom - b.top + 1}
}

// IoU is the intersection of two masks over their union, in [0, 1]; the IoU of two
// empty masks is 1. It also measures how well a coarse and a final mask agree. It
// panics unless both masks have the same size.
func IoU(a, b *refersam.Mask) float64 {
	if a.Width != b.Width || a.Height != b.Height {
		panic(fmt.Sprintf("postprocess: IoU of masks of %d×%d and %d×%d pixels", a.Width, a.Height, b.Width, b.Height))
	}
	both := 0
	// i and j are the numbers of the present runs; endA and endB are their ends.
	var i, j, at, endA, endB int
	for i < len(a.Runs) && j < len(b.Runs) {
		if at == endA {
			endA += int(a.Runs[i])
		}
		if at == endB {
			endB += int(b.Runs[j])
		}
		next := min(endA, endB)
		if i%2 == 1 && j%2 == 1 {
			both += next - at
		}
		if at = next; at == endA {
			i++
		}
		if at == endB {
			j++
		}
	}
	either := Area(a) + Area(b) - both
	if either == 0 {
		return 1
	}
	return float64(both) / float64(either)
}
