package ensembles

const (
	squares = 7
	bits    = 24
)

// Marks identify the row that an answer belongs to.
type Marks struct {
	// Image is R + 256·G + 65536·B of the first pixel of the model's square.
	Image uint32
	// Text is the sum over the real tokens of (place + 1) · id, modulo 2²⁴.
	Text uint32
}

// MarksOf returns the marks that the answer to a row must have. ids and mask must
// be in the form that the model gets.
func MarksOf(r, g, b uint8, ids, mask []int32) Marks {
	var text int64
	for i, id := range ids {
		text += int64(i+1) * int64(id) * int64(mask[i])
	}
	return Marks{uint32(r) | uint32(g)<<8 | uint32(b)<<16, uint32(text % (1 << bits))}
}

// ReadMarks reads the marks from a mask of width × height; foreground reports
// whether a pixel is set. It returns false if the mask spells no marks.
func ReadMarks(width, height int, foreground func(x, y int) bool) (Marks, bool) {
	var spelt [squares * squares]bool
	for i := range spelt {
		x, y := i%squares, i/squares
		spelt[i] = foreground((2*x+1)*width/(2*squares), (2*y+1)*height/(2*squares))
	}
	var m Marks
	for i := range bits {
		if spelt[i] {
			m.Image |= 1 << i
		}
		if spelt[bits+i] {
			m.Text |= 1 << i
		}
	}
	return m, spelt[2*bits]
}
