// Package postprocess turns the model's low-resolution logits into masks at
// the size of the picture, and masks into the formats that clients ask for.
//
// A mask is kept as runs down its columns (refersam.Mask). They come straight
// from the logits, without pixels in between, and everything else is made from
// them: COCO's run lengths, PNGs, polygons, area, box, components. What is
// needed beyond a result grows with the number of runs or is a strip of rows;
// for 12 megapixels it is 4 MB at most.
package postprocess

import (
	"errors"
	"fmt"
	"math"

	"github.com/refersam/refersam"
)

// maxMaskPixels bounds every mask that is made here; it is far above the
// largest picture that can be asked for, and positions in it fit an int32.
const maxMaskPixels = 1 << 28

// maxLogit is far beyond any probability, and far below where float32 overflows.
const maxLogit = 1e30

// Options say which pixels of the picture belong to a mask.
type Options struct {
	// Threshold is the foreground probability from which a pixel belongs to
	// the mask, in (0, 1).
	Threshold float64
	// FillHoles is the area up to which holes are filled, in pixels; 0 fills
	// none. It comes before the rest, so that what lies in a hole becomes part
	// of what surrounds it.
	FillHoles int
	// MinArea is the area from which a component stays, in pixels.
	MinArea int
	// Largest leaves only the largest component.
	Largest bool
}

// Segmentation is what one row of logits says about the picture.
type Segmentation struct {
	Mask *refersam.Mask
	// Score is the mean foreground probability over the foreground, in [0, 1];
	// 0 when there is none.
	Score float64
	// Area counts the foreground pixels, Box encloses them tightly.
	Area int
	Box  refersam.Box
}

// Segment is Mask with what there is to say about it.
func Segment(l refersam.Logits, width, height int, o Options) (Segmentation, error) {
	m, err := Mask(l, width, height, o)
	if err != nil {
		return Segmentation{}, err
	}
	return Segmentation{Mask: m, Score: MeanProbability(l, m), Area: Area(m), Box: Box(m)}, nil
}

// Mask marks as foreground the pixels of a width × height picture where the
// sigmoid of the upsampled logit is at least o.Threshold, and cleans the
// result as the rest of o says. An error means that the arguments are out of
// range or that a logit is not finite or absurd, which is a fault of the model.
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

// logit is the value that upsampled logits are compared with. Probabilities
// are not: a sigmoid rounded to float32 reaches 0.5 a hair below 0 already.
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
		return fmt.Errorf("postprocess: %d logits for %d×%d", len(l.Values), l.Width, l.Height)
	}
	for i, v := range l.Values {
		if !(v >= -maxLogit && v <= maxLogit) { // or NaN
			return fmt.Errorf("postprocess: logit %v at (%d, %d)", v, i%l.Width, i/l.Width)
		}
	}
	return nil
}

func checkSize(width, height int) error {
	if width < 1 || height < 1 || height > maxMaskPixels/width {
		return fmt.Errorf("postprocess: a mask of %d×%d pixels", width, height)
	}
	return nil
}
