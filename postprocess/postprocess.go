// Package postprocess turns the model's low-resolution logits into masks at the
// size of the picture, and masks into the formats that clients ask for.
//
// A mask is stored as runs down its columns (refersam.Mask). The runs are computed
// directly from the logits, without pixels in between, and everything else is
// computed from the runs: COCO's run lengths, PNGs, polygons, area, box,
// components. Apart from the result, the memory that is needed grows with the
// number of runs, or is a strip of rows; for 12 megapixels it is 4 MB at most.
package postprocess

import (
	"errors"
	"fmt"
	"math"

	"github.com/refersam/refersam"
)

// maxMaskPixels bounds every mask that this package makes. It is far above the
// largest picture that a client may send, and positions in it fit an int32.
const maxMaskPixels = 1 << 28

// maxLogit is far beyond any probability, and far below where float32 overflows.
const maxLogit = 1e30

// Options say which pixels of the picture belong to a mask.
type Options struct {
	// Threshold is the lowest foreground probability of a pixel of the mask, in
	// (0, 1).
	Threshold float64
	// FillHoles is the largest area of a hole that is filled, in pixels; 0 fills
	// none. Holes are filled first, so that everything inside a hole becomes part
	// of the component around it.
	FillHoles int
	// MinArea is the smallest area of a component that is kept, in pixels.
	MinArea int
	// Largest keeps only the largest component.
	Largest bool
}

// Segmentation is the result for one row of logits.
type Segmentation struct {
	Mask *refersam.Mask
	// Score is the mean foreground probability over the foreground, in [0, 1]; 0 if
	// the mask is empty.
	Score float64
	// Area counts the foreground pixels, Box encloses them tightly.
	Area int
	Box  refersam.Box
}

// Segment computes the mask of Mask with its score, area and box.
func Segment(l refersam.Logits, width, height int, o Options) (Segmentation, error) {
	m, err := Mask(l, width, height, o)
	if err != nil {
		return Segmentation{}, err
	}
	return Segmentation{Mask: m, Score: MeanProbability(l, m), Area: Area(m), Box: Box(m)}, nil
}

// Mask marks as foreground the pixels of a width × height picture where the sigmoid
// of the upsampled logit is at least o.Threshold, and cleans the result as o says.
// It returns an error if the arguments are out of range, or if a logit is not
// finite or absurdly large, which is a fault of the model.
func Mask(l refersam.Logits, width, height int, o Options) (*refersam.Mask, error) {
	if err := check(l, width, height); err != nil {
		return nil, err
	}
	cut, err := logit(o.Threshold)
	if err != nil {
		return nil, err
	}
	return Clean(cross(l, width, height, cut), o), nil
}

// logit returns the value that upsampled logits are compared with. Comparing
// probabilities would be wrong: a sigmoid rounded to float32 reaches 0.5 already
// slightly below 0.
func logit(threshold float64) (float64, error) {
	if !(threshold > 0 && threshold < 1) {
		return 0, fmt.Errorf("postprocess: threshold %v is not between 0 and 1", threshold)
	}
	return math.Log(threshold / (1 - threshold)), nil
}

func check(l refersam.Logits, width, height int) error {
	if err := checkSize(width, height); err != nil {
		return err
	}
	switch {
	case l.Width < 1 || l.Height < 1:
		return errors.New("postprocess: no logits")
	case len(l.Values) != l.Width*l.Height:
		return fmt.Errorf("postprocess: got %d logits for a size of %d×%d", len(l.Values), l.Width, l.Height)
	}
	for i, v := range l.Values {
		if !(v >= -maxLogit && v <= maxLogit) { // or NaN
			return fmt.Errorf("postprocess: the logit %v at (%d, %d) is not finite or too large", v, i%l.Width, i/l.Width)
		}
	}
	return nil
}

func checkSize(width, height int) error {
	if width < 1 || height < 1 || height > maxMaskPixels/width {
		return fmt.Errorf("postprocess: the mask size %d×%d is out of range", width, height)
	}
	return nil
}
