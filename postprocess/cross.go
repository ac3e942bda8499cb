package postprocess

import "github.com/refersam/refersam"

// cross returns the mask of the pixels whose upsampled logit is at least cut.
//
// Four neighbouring logits are the corners of a cell. Upsampling differs from
// exact arithmetic by less than the cell's margin, and exact values lie
// between those of the corners. So a cell whose corners are all above or all
// below the cut by more than the margin has one answer. In the columns of the
// others the exact value is a straight line, and only where that is within the
// margin of the cut are pixels computed as torch does: one or two a column.
func cross(l refersam.Logits, width, height int, cut float64) *refersam.Mask {
	c := &crosser{
		upsampler: newUpsampler(l, width, height),
		cut:       cut,
		rows:      make([]extent, l.Height),
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

// count is the number of runs unless cells are crossed more than once.
func (c *crosser) count(columns []group) int {
	n := 2
	for _, column := range columns {
		c.classify(column.blend)
		per := 1
		for _, p := range c.pieces {
			if p.margin >= 0 {
				per++
			}
		}
		n += per * (column.to - column.from)
	}
	return n
}

// margin is what a value may be off, relative to the largest corner: upsampling
// rounds up to seven times, by 2⁻²⁴ each.
const margin = 1.0 / (1 << 20)

// leastMargin covers values so small that rounding loses more than digits.
const leastMargin = 0x1p-126

type crosser struct {
	*upsampler
	cut   float64
	cells []group
	// rows holds for each row of the logits what the two columns at hand span.
	rows []extent
	// pieces are the cells at hand from top to bottom, with neighbours of the
	// same answer made one.
	pieces []cellPiece
	out    runWriter
}

type extent struct{ low, high float32 }

// group is the pixels between two samples: from ≤ i < to.
type group struct {
	blend
	from, to int
}

// cellPiece is the pixels of one cell in a column, or of several.
type cellPiece struct {
	group
	// margin is negative where all pixels are as inside says.
	margin float64
	inside bool
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

// classify fills pieces for pixels between the two columns of logits of b.
func (c *crosser) classify(b blend) {
	for r := range c.rows {
		row := c.logits.Values[r*c.logits.Width:]
		c.rows[r] = extent{min(row[b.lo], row[b.hi]), max(row[b.lo], row[b.hi])}
	}
	c.pieces = c.pieces[:0]
	for _, cell := range c.cells {
		upper, lower := c.rows[cell.lo], c.rows[cell.hi]
		low, high := float64(min(upper.low, lower.low)), float64(max(upper.high, lower.high))
		p := cellPiece{group: cell, margin: max(margin*max(high, -low), leastMargin)}
		switch {
		case low-p.margin >= c.cut:
			p.margin, p.inside = -1, true
		case high+p.margin < c.cut:
			p.margin = -1
		}
		if n := len(c.pieces); n > 0 && p.margin < 0 && c.pieces[n-1].margin < 0 && c.pieces[n-1].inside == p.inside {
			c.pieces[n-1].to = p.to
			continue
		}
		c.pieces = append(c.pieces, p)
	}
}

// column writes the runs of column x.
func (c *crosser) column(x int) {
	known := int32(-1) // the row of the logits whose value is lower
	var lower float32
	for i := range c.pieces {
		p := &c.pieces[i]
		if p.margin < 0 {
			c.out.add(p.inside, p.to-p.from)
			continue
		}
		upper := lower
		if known != p.lo {
			upper = c.along(x, p.lo)
		}
		lower, known = c.along(x, p.hi), p.hi
		c.cell(x, p, upper, lower)
	}
}

// cell writes the runs of column x in one cell, where the exact value goes
// from upper to lower.
func (c *crosser) cell(x int, p *cellPiece, upper, lower float32) {
	start, rise := float64(upper)-c.cut, float64(lower)-float64(upper)
	line := func(y int) float64 { return start + rise*float64(c.ys[y].w) }
	first, last := line(p.from), line(p.to-1)
	if first >= p.margin && last >= p.margin {
		c.out.add(true, p.to-p.from)
		return
	}
	if first < -p.margin && last < -p.margin {
		c.out.add(false, p.to-p.from)
		return
	}

	// sign makes the line fall; rows from ≤ y < near are surely on its first
	// side, far ≤ y < to surely on the second.
	sign := 1.0
	if rise > 0 {
		sign = -1
	}
	near := p.from
	if step := last - first; step != 0 {
		near += int(min(1, max(0, -first/step)) * float64(p.to-1-p.from))
	}
	for near > p.from && !(sign*line(near-1) > p.margin) {
		near--
	}
	for near < p.to && sign*line(near) > p.margin {
		near++
	}
	c.out.add(sign > 0, near-p.from)
	far := near
	for far < p.to && !(sign*line(far) < -p.margin) {
		c.out.add(float64(c.value(x, far, upper, lower)) >= c.cut, 1)
		far++
	}
	c.out.add(sign < 0, p.to-far)
}

// value is at(x, y) for whom along(x, …) is known.
func (c *crosser) value(x, y int, upper, lower float32) float32 {
	if c.small {
		return c.at(x, y)
	}
	return mix(upper, lower, c.ys[y].w)
}
