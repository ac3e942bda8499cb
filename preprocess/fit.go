package preprocess

import (
	"context"
	"fmt"
)

// Fit is how a picture becomes the square that a model reads.
type Fit string

const (
	// Stretch makes both sides equal to the side of the square; the aspect
	// ratio is lost.
	Stretch Fit = "stretch"
	// LongestSidePad makes the longest side equal to the side of the square and
	// keeps the aspect ratio. The picture lies at the top left; the rest of the
	// square has the colour of padding.
	LongestSidePad Fit = "longest_side_pad"
)

// Fits lists all of them.
var Fits = []Fit{Stretch, LongestSidePad}

// padding is the colour that normalises closest to 0. SAM's training chain
// pads with zeros what it has normalised, (x - mean) / std with the mean
// (123.675, 116.28, 103.53) and the deviation (58.395, 57.12, 57.375) of
// ImageNet. A model that normalises in its graph is given bytes, which come
// within (0.006, 0.005, 0.009) of that; black would be 2 away.
var padding = [3]uint8{124, 116, 104}

// Inside returns which part of a size × size square a picture of width ×
// height pixels covers, from the top left. Of LongestSidePad it is what SAM's
// ResizeLongestSide says, and at least one pixel.
func (f Fit) Inside(width, height, size int) (w, h int) {
	switch f {
	case Stretch:
		return size, size
	case LongestSidePad:
		scale := float64(size) / float64(max(width, height))
		scaled := func(side int) int {
			product := float64(side) * scale // apart, so that it is rounded as Python does
			return max(int(product+0.5), 1)
		}
		return scaled(width), scaled(height)
	}
	panic(fmt.Sprintf("preprocess: fit %q", f))
}

// Square returns the picture for a model that reads size × size pixels: RGB, row
// by row. It returns the same errors as Open.
func (e *Encoded) Square(ctx context.Context, size int, fit Fit) ([]uint8, error) {
	square := make([]uint8, 3*size*size)
	if err := e.SquareInto(ctx, square, size, fit); err != nil {
		return nil, err
	}
	return square, nil
}

// SquareInto is Square for memory of the caller's, 3·size·size bytes, which may
// hold anything before, and does after an error.
func (e *Encoded) SquareInto(ctx context.Context, square []uint8, size int, fit Fit) error {
	if len(square) != 3*size*size {
		panic(fmt.Sprintf("preprocess: a square of %d bytes, want %d", len(square), 3*size*size))
	}
	width, height := e.Size()
	w, h := fit.Inside(width, height, size)
	if w == size {
		if err := e.stretchInto(ctx, square[:3*w*h], w, h); err != nil {
			return err
		}
		fill(square[3*w*h:])
		return nil
	}
	pixels, err := e.Stretch(ctx, w, h)
	if err != nil {
		return err
	}
	for y := range size {
		row, used := square[3*size*y:][:3*size], 0
		if y < h {
			used = copy(row, pixels[3*w*y:][:3*w])
		}
		fill(row[used:])
	}
	return nil
}

// fill makes whole pixels padding.
func fill(pixels []uint8) {
	for done := copy(pixels, padding[:]); done < len(pixels); done *= 2 {
		copy(pixels[done:], pixels[:done])
	}
}
