package postprocess

import (
	"math"

	"github.com/refersam/refersam"
)

// cross returns the mask of the pixels with an upsampled logit of at least cut.
//
// Four neighbouring logits are the corners of a cell. Upsampling differs from exact
// arithmetic by less than a margin, and an exact value lies between the values of
// its cell's corners. So if all corners are above the cut by the margin, or all are
// below it, the whole cell has one answer. In any other cell the exact value along
// a column is a straight line. Only where the line is within the margin of the cut
// are pixels computed as torch does: one or two per column.
func cross(l refersam.Logits, width, height int, cut float64) *refersam.Mask {
	c := &crosser{
		upsampler: newUpsampler(l, width, height),
		cut:       cut,
		margin:    leastMargin,
		sides:     make([]side, len(l.Values)),
		both:      make([]side, l.Height),
	}
	for _, v := range l.Values {
		c.margin = max(c.margin, margin*math.Abs(float64(v)))
	}
	for i, v := range l.Values {
		switch {
		case float64(v) >= cut+c.margin:
			c.sides[i] = above
		case float64(v) < cut-c.margin:
			c.sides[i] = below
		}
	}
	c.cells = groups(c.ys)
	c.pieces = make([]cellPiece, 0, len(c.cells))
	columns := groups(c.xs)
	c.out.runs = make([]uint32, 0, c.count(columns))
	for _, column := range columns {
		c.classify(column.blend)
		for x := column.from; x < column.to; x++ {
			c.column(x)
		}
	}
	return &refersam.Mask{Width: width, Height: height, Runs: c.out.close()}
}

const (
	// margin is the error that a value may have, relative to the largest logit:
	// upsampling rounds up to seven times, by 2⁻²⁴ each.
	margin = 1.0 / (1 << 20)
	// leastMargin covers values so small that rounding has an absolute error.
	leastMargin = 0x1p-126
)

// side is where a value lies: above or below the cut by the margin, or neither. The
// side of a group is the bitwise AND of its members' sides.
type side uint8

const (
	near  side = 0
	above side = 1
	below side = 2
)

type crosser struct {
	*upsampler
	cut, margin float64
	sides       []side // of the logits
	cells       []group
	// both holds, for each row of the logits, the common side of the present two
	// columns.
	both []side
	// pieces are the present cells from top to bottom. Neighbours with the same
	// side are joined.
	pieces []cellPiece
	out    runWriter
}

// group is the pixels between two samples: from ≤ i < to.
type group struct {
	blend
	from, to int
}

// cellPiece is the pixels of one cell in a column, or of several cells with the
// same side.
type cellPiece struct {
	group
	side side
}

func groups(all []blend) []group {
	var list []group
	for i, b := range all {
		if i == 0 || b.lo != all[i-1].lo {
			list = append(list, group{blend: b, from: i})
		}
		list[len(list)-1].to = i + 1
	}
	return list
}

// count is the number of runs if no cell is crossed twice in a column.
func (c *crosser) count(columns []group) int {
	n := 2
	for _, column := range columns {
		c.classify(column.blend)
		n += (len(c.pieces) + 1) * (column.to - column.from)
	}
	return n
}

// classify fills pieces for pixels between the two columns of logits of b.
func (c *crosser) classify(b blend) {
	for r := range c.both {
		row := c.sides[r*c.logits.Width:][:c.logits.Width]
		c.both[r] = row[b.lo] & row[b.hi]
	}
	c.pieces = c.pieces[:0]
	last := near
	for i := range c.cells {
		cell := &c.cells[i]
		side := c.both[cell.lo] & c.both[cell.hi]
		if side != near && side == last {
			c.pieces[len(c.pieces)-1].to = cell.to
			continue
		}
		c.pieces = append(c.pieces, cellPiece{*cell, side})
		last = side
	}
}

// column writes the runs of column x.
func (c *crosser) column(x int) {
	lowerRow := int32(-1) // the row of the logits in lower
	var lower float32
	for i := range c.pieces {
		p := &c.pieces[i]
		if p.side != near {
			c.out.add(p.side == above, p.to-p.from)
			continue
		}
		upper := lower
		if lowerRow != p.lo {
			upper = c.along(x, p.lo)
		}
		lower, lowerRow = c.along(x, p.hi), p.hi
		c.cell(x, p.group, upper, lower)
	}
}

// cell writes the runs of column x in one cell, where the exact value goes from
// upper to lower.
func (c *crosser) cell(x int, p group, upper, lower float32) {
	start, rise := float64(upper)-c.cut, float64(lower)-float64(upper)
	line := func(y int) float64 { return start + rise*float64(c.ys[y].w) }
	first, last := line(p.from), line(p.to-1)
	switch {
	case first >= c.margin && last >= c.margin:
		c.out.add(true, p.to-p.from)
		return
	case first < -c.margin && last < -c.margin:
		c.out.add(false, p.to-p.from)
		return
	}

	// sign makes the line fall: pixels above from are above the cut, pixels with
	// from ≤ y < to are within the margin and are computed, and the others are
	// below.
	sign := 1.0
	if rise > 0 {
		sign = -1
	}
	from := p.from
	if last != first {
		from += int(min(1, max(0, first/(first-last))) * float64(p.to-1-p.from))
	}
	for from > p.from && !(sign*line(from-1) > c.margin) {
		from--
	}
	for from < p.to && sign*line(from) > c.margin {
		from++
	}
	c.out.add(sign > 0, from-p.from)
	to := from
	for to < p.to && !(sign*line(to) < -c.margin) {
		c.out.add(float64(c.value(x, to, upper, lower)) >= c.cut, 1)
		to++
	}
	c.out.add(sign < 0, p.to-to)
}

// value is at(x, y) when along(x, …) is already computed for both rows.
func (c *crosser) value(x, y int, upper, lower float32) float32 {
	if c.small {
		return c.at(x, y)
	}
	return mix(upper, lower, c.ys[y].w)
}
