package postprocess

import (
	"cmp"
	"slices"

	"github.com/refersam/refersam"
)

// Component is a part of the foreground that is connected by pixel edges.
type Component struct {
	Area int
	Box  refersam.Box
}

// Components lists the components of the foreground, the largest first.
func Components(m *refersam.Mask) []Component {
	var list []Component
	for _, r := range label(m).regions {
		if r.inside {
			list = append(list, Component{r.area, r.box()})
		}
	}
	slices.SortStableFunc(list, func(a, b Component) int { return cmp.Compare(b.Area, a.Area) })
	return list
}

// Clean fills holes and drops components as o says. If o asks for nothing, it
// returns m itself.
func Clean(m *refersam.Mask, o Options) *refersam.Mask {
	if o.FillHoles > 0 {
		m = label(m).mask(m, func(r *region) bool {
			return r.inside || r.area <= o.FillHoles && !r.onBorder(m)
		})
	}
	if o.MinArea <= 1 && !o.Largest {
		return m
	}
	labels := label(m)
	var largest *region
	for i := range labels.regions {
		r := &labels.regions[i]
		if r.inside && (largest == nil || r.area > largest.area) {
			largest = r
		}
	}
	return labels.mask(m, func(r *region) bool {
		return r.inside && r.area >= o.MinArea && (!o.Largest || r == largest)
	})
}

// labels divides a mask into pieces, each of one value in one column, and joins
// pieces that share an edge to regions. A region is a component of the foreground
// or of the background; a component of the background that does not touch the
// border is a hole.
type labels struct {
	pieces []piece
	// columns holds the number of the first piece of each column, and of the piece
	// after the last one.
	columns []int32
	regions []region
}

// piece is rows from ≤ y < to of one column. The pieces of a column alternate
// in value.
type piece struct {
	from, to int32
	inside   bool
	region   int32
}

type region struct {
	inside bool
	area   int
	bounds
}

func (r *region) onBorder(m *refersam.Mask) bool {
	return r.left == 0 || r.top == 0 || r.right == m.Width-1 || r.bottom == m.Height-1
}

func label(m *refersam.Mask) *labels {
	l := &labels{
		pieces:  make([]piece, 0, len(m.Runs)+m.Width),
		columns: make([]int32, 0, m.Width+1),
	}
	height := int32(m.Height)
	y := int32(0)
	for i, n := range m.Runs {
		for left := int64(n); left > 0; {
			if y == 0 {
				l.columns = append(l.columns, int32(len(l.pieces)))
			}
			to := int32(min(int64(y)+left, int64(height)))
			l.pieces = append(l.pieces, piece{from: y, to: to, inside: i%2 == 1})
			left -= int64(to - y)
			y = to % height
		}
	}
	l.columns = append(l.columns, int32(len(l.pieces)))
	l.join()
	return l
}

// join gives every piece its region.
func (l *labels) join() {
	// parent leads from a piece to another piece of its region, and finally to the
	// region's first piece.
	parent := make([]int32, len(l.pieces))
	for i := range parent {
		parent[i] = int32(i)
	}
	find := func(i int32) int32 {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	for x := 1; x < len(l.columns)-1; x++ {
		for i, j := range l.neighbours(x) {
			if l.pieces[i].inside != l.pieces[j].inside {
				continue
			}
			a, b := find(i), find(j)
			parent[max(a, b)] = min(a, b)
		}
	}
	for x := range len(l.columns) - 1 {
		for i := l.columns[x]; i < l.columns[x+1]; i++ {
			p := &l.pieces[i]
			if root := find(i); root == i {
				p.region = int32(len(l.regions))
				l.regions = append(l.regions, region{inside: p.inside, bounds: emptyBounds})
			} else {
				p.region = l.pieces[root].region
			}
			r := &l.regions[p.region]
			r.area += int(p.to - p.from)
			r.add(x, span{int(p.from), int(p.to)})
		}
	}
}

// neighbours yields the pairs of a piece of column x-1 and one of column x
// that share an edge, from top to bottom.
func (l *labels) neighbours(x int) func(yield func(i, j int32) bool) {
	return func(yield func(i, j int32) bool) {
		i, j := l.columns[x-1], l.columns[x]
		for endI, endJ := l.columns[x], l.columns[x+1]; i < endI && j < endJ; {
			if !yield(i, j) {
				return
			}
			a, b := l.pieces[i].to, l.pieces[j].to
			if a <= b {
				i++
			}
			if b <= a {
				j++
			}
		}
	}
}

// mask returns m with only the regions that keep selects as foreground.
func (l *labels) mask(m *refersam.Mask, keep func(*region) bool) *refersam.Mask {
	kept := make([]bool, len(l.regions))
	for i := range l.regions {
		kept[i] = keep(&l.regions[i])
	}
	var w runWriter
	for i := range l.pieces {
		p := &l.pieces[i]
		w.add(kept[p.region], int(p.to-p.from))
	}
	return &refersam.Mask{Width: m.Width, Height: m.Height, Runs: w.close()}
}
