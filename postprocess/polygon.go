package postprocess

import (
	"slices"

	"github.com/refersam/refersam"
)

// Polygons traces the outlines of a mask, one polygon per component. The pixels of
// a component are connected by their edges, and so are the pixels of a hole; no
// ring meets a point twice. Outlines run from the top left to the top right first,
// holes in the other direction.
//
// With a tolerance of 0 the rings run along the edges of pixels, and FromPolygons
// gives the same mask. With a larger tolerance, in pixels, a point is left out if
// it is no farther than the tolerance from the line without it. A ring is left out
// if it is no farther than the tolerance from a line between two of its points.
// With a hole, everything that lies in it is left out.
//
// At any tolerance, the polygons are valid by the rules of OGC (Simple Feature
// Access, 6.1.11 and 6.1.14), which JTS, GEOS and shapely check: no two edges cross
// or run along each other, holes lie in their outline, and rings share single
// points at most.
func Polygons(m *refersam.Mask, tolerance float64) []refersam.Polygon {
	t := newTracer(m)
	if tolerance > 0 {
		return simplified(t, tolerance)
	}
	var rings []tracedRing
	t.rings(func(loop refersam.Ring, region int32) {
		ring := append(append(make(refersam.Ring, 0, len(loop)+1), loop...), loop[0])
		rings = append(rings, tracedRing{ring, region, signedArea(ring) < 0})
	})
	return assemble(rings)
}

// assemble appends holes to the outlines of their components. Holes without an
// outline are left out.
func assemble(rings []tracedRing) []refersam.Polygon {
	of := make(map[int32]int) // from the region to its polygon
	var polygons []refersam.Polygon
	for _, r := range rings {
		if !r.hole {
			of[r.region] = len(polygons)
			polygons = append(polygons, refersam.Polygon{r.ring})
		}
	}
	for _, r := range rings {
		if i, ok := of[r.region]; ok && r.hole {
			polygons[i] = append(polygons[i], r.ring)
		}
	}
	return polygons
}

// tracer walks along the border between foreground and background.
type tracer struct {
	labels *labels
	edges  []edge
	// across leads from an end of an edge to the end of the next edge along the
	// row: 2*i is the upper end of edge i, 2*i+1 the lower.
	across []int32
}

// edge is a vertical piece of the border, with the foreground on one side.
type edge struct {
	x, from, to int32
	region      int32 // of the foreground
	// down says that the edge is walked downwards: true if the foreground is left
	// of x, so that it is to the right in the direction of the walk.
	down bool
	// shared reports, for the upper and the lower end, that another edge ends at
	// the same point.
	shared [2]bool
	seen   bool
}

type tracedRing struct {
	ring   refersam.Ring
	region int32
	hole   bool
}

func newTracer(m *refersam.Mask) *tracer {
	l := label(m)
	t := &tracer{labels: l}
	add := func(x int, p *piece, from, to int32, down bool) {
		e := edge{x: int32(x), from: from, to: to, region: p.region, down: down}
		if n := len(t.edges); n > 0 && t.edges[n-1].x == e.x && t.edges[n-1].to == from {
			t.edges[n-1].shared[1], e.shared[0] = true, true
		}
		t.edges = append(t.edges, e)
	}
	side := func(x, column int, down bool) {
		for i := l.columns[column]; i < l.columns[column+1]; i++ {
			if p := &l.pieces[i]; p.inside {
				add(x, p, p.from, p.to, down)
			}
		}
	}
	side(0, 0, false)
	for x := 1; x < m.Width; x++ {
		for i, j := range l.neighbours(x) {
			left, right := &l.pieces[i], &l.pieces[j]
			if left.inside == right.inside {
				continue
			}
			inside := left
			if right.inside {
				inside = right
			}
			add(x, inside, max(left.from, right.from), min(left.to, right.to), left.inside)
		}
	}
	side(m.Width, m.Width-1, true)
	t.connect(m.Height)
	return t
}

// connect fills across. In each row the ends of edges from left to right form
// pairs: the border goes from the first to the second, from the third to the
// fourth.
func (t *tracer) connect(height int) {
	start := make([]int32, height+2) // of the ends in each row
	for i := range t.edges {
		start[t.edges[i].from+1]++
		start[t.edges[i].to+1]++
	}
	for y := 1; y < len(start); y++ {
		start[y] += start[y-1]
	}
	next := slices.Clone(start)
	ends := make([]int32, 2*len(t.edges))
	put := func(end, y int32) {
		ends[next[y]] = end
		next[y]++
	}
	for i := range t.edges {
		e := &t.edges[i]
		// If two edges meet, two pixels of the foreground touch at a corner. Each
		// edge must stay with its own pixel: the border that comes from the left
		// continues along the pixel that it belongs to. That pixel lies above if
		// the upper edge has the foreground at its left.
		meet := int32(2*i + 1)
		if e.shared[0] {
			if upper := &t.edges[i-1]; !upper.down {
				// The upper edge's end was added first and is the second.
				last := &ends[next[e.from]-1]
				put(*last, e.from)
				*last = int32(2 * i)
				put(meet, e.to)
				continue
			}
		}
		put(int32(2*i), e.from)
		put(meet, e.to)
	}
	t.across = make([]int32, len(ends))
	for i := 0; i < len(ends); i += 2 {
		t.across[ends[i]], t.across[ends[i+1]] = ends[i+1], ends[i]
	}
}

// rings walks along every border once and emits each ring, without its first point
// again, with the region that it bounds. The points are valid only until the
// callback returns.
func (t *tracer) rings(emit func(loop refersam.Ring, region int32)) {
	var path refersam.Ring
	met := make(map[refersam.Point]int) // index in path of each shared end
	for first := range t.edges {
		if t.edges[first].seen {
			continue
		}
		region := t.edges[first].region
		visit := func(p refersam.Point, shared bool) {
			if shared {
				if i, ok := met[p]; ok {
					// The path is back at an earlier point: the part since then is
					// a ring.
					emit(path[i:], region)
					for _, gone := range path[i+1:] {
						delete(met, gone)
					}
					path = path[:i+1]
					return
				}
				met[p] = len(path)
			}
			path = append(path, p)
		}
		path = path[:0]
		clear(met)
		for i := first; !t.edges[i].seen; {
			e := &t.edges[i]
			e.seen = true
			upper, lower := refersam.Point{float64(e.x), float64(e.from)}, refersam.Point{float64(e.x), float64(e.to)}
			end := int32(2 * i)
			if e.down {
				visit(upper, e.shared[0])
				visit(lower, e.shared[1])
				end++
			} else {
				visit(lower, e.shared[1])
				visit(upper, e.shared[0])
			}
			i = int(t.across[end] / 2)
		}
		emit(path, region)
	}
}

// signedArea is the area of a ring, negative if its direction is opposite to that
// of outlines.
func signedArea(r refersam.Ring) float64 {
	sum := 0.0
	for i := 1; i < len(r); i++ {
		sum += r[i-1][0]*r[i][1] - r[i][0]*r[i-1][1]
	}
	return sum / 2
}

// distance2 is the square of the distance of p from the line between a and b.
func distance2(p, a, b refersam.Point) float64 {
	dx, dy := b[0]-a[0], b[1]-a[1]
	x, y := p[0]-a[0], p[1]-a[1]
	if length2 := dx*dx + dy*dy; length2 > 0 {
		t := min(1, max(0, (x*dx+y*dy)/length2))
		x, y = x-t*dx, y-t*dy
	}
	return x*x + y*y
}
