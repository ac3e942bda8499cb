package postprocess

import (
	"cmp"
	"math"
	"slices"

	"github.com/refersam/refersam"
)

// simplified is Polygons with a tolerance above 0.
//
// Simplifying ring by ring, as Douglas and Peucker do, lets rings cross themselves
// and each other. This function removes points one by one, from all rings together.
// The point v between u and w may go only if the triangle u, v, w, its border
// included, contains no point of any ring except u and w. While the line from u to
// w replaces the lines over v, it then sweeps over no other point, so no edge
// crosses another and no point changes sides. Points are whole numbers, so this
// test is exact.
func simplified(t *tracer, tolerance float64) []refersam.Polygon {
	s := &simplifier{tolerance: tolerance}
	s.collect(t)
	s.link()
	// Small detail goes first. Otherwise the first points of a long gentle curve
	// would use up the tolerance that its other points need.
	for _, part := range []float64{0.25, 0.5, 1} {
		s.sweep(part * tolerance)
	}
	return s.polygons()
}

// simplifier holds the points of all rings in one slice. A ring is a part of the
// slice. Each remaining point of it leads to its neighbours.
type simplifier struct {
	tolerance float64
	points    []corner
	rings     []simpleRing
	// next and previous lead from a point to its neighbours. next is -1 for a point
	// that is left out.
	next, previous []int32
	// off is an upper bound: the points that were left out between a point and its
	// next are at most this far from the line between the two.
	off []float32
	// twin is the point of another ring at the same place, -1 if there is none.
	// Three rings never share a point.
	twin []int32
	// tested says that a point cannot go as long as its neighbours stay.
	tested []bool
	grid   pointGrid
}

type corner struct{ x, y int32 }

// simpleRing is points[first:end].
type simpleRing struct {
	first, end int32
	region     int32
	hole       bool
	// some is one of the points that are left. left is their number.
	some, left int32
}

// collect takes the rings that stay, in the order of the tracer.
func (s *simplifier) collect(t *tracer) {
	l := t.labels
	flat := make([]bool, len(l.regions))    // components without their outline
	covered := make([]bool, len(l.regions)) // holes that are filled, and everything in them
	filled := false
	t.rings(func(loop refersam.Ring, region int32) {
		hole := loopArea(loop) < 0
		if isFlat(loop, s.tolerance) {
			if hole {
				filled = true
				l.mark(covered, loop)
			} else {
				flat[region] = true
			}
			return
		}
		first := int32(len(s.points))
		for _, p := range loop {
			s.points = append(s.points, corner{int32(p[0]), int32(p[1])})
		}
		end := int32(len(s.points))
		s.rings = append(s.rings, simpleRing{first: first, end: end, region: region, hole: hole, some: first, left: end - first})
	})
	if filled {
		for region, parent := range l.parents() {
			covered[region] = covered[region] || parent >= 0 && covered[parent]
		}
	}
	s.rings = slices.DeleteFunc(s.rings, func(r simpleRing) bool { return flat[r.region] || covered[r.region] })
}

// mark marks the regions of the background along a hole's border that have the
// component at their left.
func (l *labels) mark(regions []bool, hole refersam.Ring) {
	for i, p := range hole {
		q := hole[(i+1)%len(hole)]
		if p[0] != q[0] || p[1] > q[1] {
			continue // not vertical, or with the component at its right
		}
		x, y := int(p[0]), int32(p[1])
		column := l.pieces[l.columns[x]:l.columns[x+1]]
		at, _ := slices.BinarySearchFunc(column, y, func(p piece, y int32) int { return cmp.Compare(p.to, y+1) })
		regions[column[at].region] = true
	}
}

// parents returns, for each region, the region at the left of its first pixel,
// which is the highest pixel at its left end; -1 is the outside. A parent has a
// smaller number than its child. From a region in a hole of a component, parents
// lead to a region that has the component at its left, and then to the component.
func (l *labels) parents() []int32 {
	parents := make([]int32, len(l.regions))
	for i := range parents {
		parents[i] = -1
	}
	next := int32(0) // a lower number has its first pixel in an earlier column
	for i := range l.pieces[:l.columns[1]] {
		next = max(next, l.pieces[i].region+1)
	}
	for x := 1; x < len(l.columns)-1; x++ {
		for i, j := range l.neighbours(x) {
			if region := l.pieces[j].region; region >= next {
				next = region + 1
				parents[region] = l.pieces[i].region
			}
		}
	}
	return parents
}

// isFlat reports whether a ring is no farther than tolerance from the line between
// its first point and the point farthest from the first.
func isFlat(loop refersam.Ring, tolerance float64) bool {
	far, most := loop[0], 0.0
	for _, p := range loop {
		if d := distance2(p, loop[0], loop[0]); d > most {
			far, most = p, d
		}
	}
	for _, p := range loop {
		if distance2(p, loop[0], far) > tolerance*tolerance {
			return false
		}
	}
	return true
}

// loopArea is signedArea of a ring without its first point again.
func loopArea(loop refersam.Ring) float64 {
	sum := 0.0
	last := loop[len(loop)-1]
	for _, p := range loop {
		sum += last[0]*p[1] - p[0]*last[1]
		last = p
	}
	return sum / 2
}

// link joins the points of each ring and finds twins.
func (s *simplifier) link() {
	n := len(s.points)
	s.next, s.previous, s.twin = make([]int32, n), make([]int32, n), make([]int32, n)
	s.off, s.tested = make([]float32, n), make([]bool, n)
	for i := range n {
		s.next[i], s.twin[i] = -1, -1
	}
	total := 0
	box := [4]int32{math.MaxInt32, math.MaxInt32, 0, 0}
	for _, r := range s.rings {
		total += int(r.left)
		for i := r.first; i < r.end; i++ {
			s.next[i], s.previous[i] = i+1, i-1
			p := s.points[i]
			box = [4]int32{min(box[0], p.x), min(box[1], p.y), max(box[2], p.x), max(box[3], p.y)}
		}
		s.next[r.end-1], s.previous[r.first] = r.first, r.end-1
	}
	if total == 0 {
		return
	}
	s.grid = newPointGrid(box, total, n)
	for _, r := range s.rings {
		for i := r.first; i < r.end; i++ {
			cell := s.grid.cell(s.points[i])
			for other := s.grid.heads[cell]; other >= 0; other = s.grid.after[other] {
				if s.points[other] == s.points[i] {
					s.twin[i], s.twin[other] = other, i
				}
			}
			s.grid.after[i] = s.grid.heads[cell]
			s.grid.heads[cell] = i
		}
	}
}

// sweep leaves out points that are no farther than limit from the line without
// them, until no more can go. In one pass only every second of neighbouring points
// goes, so that lines grow evenly.
func (s *simplifier) sweep(limit float64) {
	clear(s.tested)
	const passes = 64 // more than enough for lines that grow by half or more in each
	for range passes {
		gone := false
		for i := range s.rings {
			gone = s.pass(&s.rings[i], limit) || gone
		}
		if !gone {
			return
		}
	}
}

func (s *simplifier) pass(r *simpleRing, limit float64) (gone bool) {
	const triangle = 3
	v := r.some
	for count := r.left; count > 0 && r.left > triangle; count-- {
		w := s.next[v]
		if s.tested[v] {
			v = w
			continue
		}
		if !s.leaveOut(r, v, limit) {
			s.tested[v] = true
			v = w
			continue
		}
		gone = true
		r.left--
		r.some = w
		v = s.next[w]
		count--
	}
	return gone
}

// leaveOut removes a point from its ring, if it may go.
func (s *simplifier) leaveOut(r *simpleRing, v int32, limit float64) bool {
	if s.twin[v] >= 0 {
		return false // rings that touch must continue to touch
	}
	u, w := s.previous[v], s.next[v]
	off, ok := s.offWithout(r, u, v, w, limit)
	if !ok || s.doubles(u, w) || s.sweepsOver(u, v, w) {
		return false
	}
	s.next[u], s.previous[w] = w, u
	s.next[v] = -1
	s.off[u] = off
	s.tested[u], s.tested[w] = false, false
	return true
}

// offWithout returns an upper bound for the distance of all points left out between
// u and w from the line between them if v goes. It returns false if v is farther
// than limit, or another point farther than the tolerance.
func (s *simplifier) offWithout(r *simpleRing, u, v, w int32, limit float64) (off float32, ok bool) {
	a, b := s.point(u), s.point(w)
	here := distance2(s.point(v), a, b)
	if here > limit*limit {
		return 0, false
	}
	// If a line moves by d, a point beside it becomes at most d farther away.
	const rounding = 1e-6
	bound := float64(max(s.off[u], s.off[v])) + math.Sqrt(here)
	if bound += bound * rounding; bound <= s.tolerance {
		return float32(bound), true
	}
	// Most often it is less.
	const most = 1 << 12 // points; more would take too long for a hostile mask
	count := 0
	farthest := here
	for i := u; ; {
		if i++; i == r.end {
			i = r.first
		}
		if i == w {
			break
		}
		d := distance2(s.point(i), a, b)
		if count++; d > s.tolerance*s.tolerance || count > most {
			return 0, false
		}
		farthest = max(farthest, d)
	}
	return float32(math.Sqrt(farthest) * (1 + rounding)), true
}

// doubles reports whether a line from u to w would run along a line of another
// ring, between the twins of u and w.
func (s *simplifier) doubles(u, w int32) bool {
	t := s.twin[u]
	if t < 0 {
		return false
	}
	return s.points[s.next[t]] == s.points[w] || s.points[s.previous[t]] == s.points[w]
}

// sweepsOver reports whether the triangle u, v, w, its border included, contains a
// remaining point other than u, v and w.
func (s *simplifier) sweepsOver(u, v, w int32) bool {
	a, b, c := s.points[u], s.points[v], s.points[w]
	turn := twiceArea(a, b, c)
	if turn == 0 {
		return false // v is on the line
	}
	if turn < 0 {
		a, c = c, a
	}
	g := &s.grid
	top, bottom := min(a.y, b.y, c.y), max(a.y, b.y, c.y)
	for row := g.row(top); row <= g.row(bottom); row++ {
		from, to := g.span(row, a, b, c)
		for column := from; column <= to; column++ {
			before := int32(-1)
			cell := row*g.columns + column
			for i := g.heads[cell]; i >= 0; i = g.after[i] {
				if s.next[i] < 0 {
					g.unlink(cell, before, i)
					continue
				}
				before = i
				p := s.points[i]
				if i != v && p != a && p != c && twiceArea(a, b, p) >= 0 && twiceArea(b, c, p) >= 0 && twiceArea(c, a, p) >= 0 {
					return true
				}
			}
		}
	}
	return false
}

// twiceArea is twice the area of the triangle, positive if a, b, c is clockwise on
// the screen.
func twiceArea(a, b, c corner) int64 {
	return int64(b.x-a.x)*int64(c.y-a.y) - int64(b.y-a.y)*int64(c.x-a.x)
}

func (s *simplifier) point(i int32) refersam.Point {
	return refersam.Point{float64(s.points[i].x), float64(s.points[i].y)}
}

// polygons returns the remaining rings.
func (s *simplifier) polygons() []refersam.Polygon {
	rings := make([]tracedRing, 0, len(s.rings))
	for _, r := range s.rings {
		// A ring begins at its old first point, or at the next point that is left.
		first := r.first
		for s.next[first] < 0 {
			first++
		}
		ring := make(refersam.Ring, 0, r.left+1)
		for range r.left {
			ring = append(ring, s.point(first))
			first = s.next[first]
		}
		rings = append(rings, tracedRing{append(ring, ring[0]), r.region, r.hole})
	}
	return assemble(rings)
}

// pointGrid finds points by position: the points of one square cell are in a list.
type pointGrid struct {
	left, top     int32
	shift         uint // a cell's side is 1<<shift
	columns, rows int32
	heads, after  []int32
}

// newPointGrid makes a grid over the box with about as many cells as there are
// points. after has space for n points.
func newPointGrid(box [4]int32, points, n int) pointGrid {
	const leastShift, leastCells = 2, 256
	g := pointGrid{left: box[0], top: box[1], shift: leastShift}
	for {
		g.columns, g.rows = (box[2]-box[0])>>g.shift+1, (box[3]-box[1])>>g.shift+1
		if int(g.columns)*int(g.rows) <= max(leastCells, points) {
			break
		}
		g.shift++
	}
	g.heads, g.after = make([]int32, g.columns*g.rows), make([]int32, n)
	for i := range g.heads {
		g.heads[i] = -1
	}
	return g
}

func (g *pointGrid) row(y int32) int32    { return (y - g.top) >> g.shift }
func (g *pointGrid) column(x int32) int32 { return (x - g.left) >> g.shift }
func (g *pointGrid) cell(p corner) int32  { return g.row(p.y)*g.columns + g.column(p.x) }

// unlink removes a point from its cell's list. before is the previous point in the
// list, or -1.
func (g *pointGrid) unlink(cell, before, i int32) {
	if before < 0 {
		g.heads[cell] = g.after[i]
	} else {
		g.after[before] = g.after[i]
	}
}

// span returns the first and the last column of a row's cells that a triangle may
// touch.
func (g *pointGrid) span(row int32, a, b, c corner) (from, to int32) {
	top := g.top + row<<g.shift
	bottom := top + 1<<g.shift - 1
	left, right := math.Inf(1), math.Inf(-1)
	for _, side := range [3][2]corner{{a, b}, {b, c}, {c, a}} {
		p, q := side[0], side[1]
		if p.y > q.y {
			p, q = q, p
		}
		if q.y < top || p.y > bottom {
			continue
		}
		// The points where the side enters the row and leaves it.
		enter, leave := float64(p.x), float64(q.x)
		if slope := float64(q.x-p.x) / float64(q.y-p.y); p.y < q.y {
			if p.y < top {
				enter += slope * float64(top-p.y)
			}
			if q.y > bottom {
				leave -= slope * float64(q.y-bottom)
			}
		}
		left, right = min(left, enter, leave), max(right, enter, leave)
	}
	// Rounding may be slightly off, and points are whole numbers.
	const hair = 0.01
	least, most := g.left, g.left+(g.columns-1)<<g.shift
	return g.column(max(int32(math.Floor(left-hair)), least)), g.column(min(int32(math.Ceil(right+hair)), most+1<<g.shift-1))
}
