package postprocess

import (
	"fmt"

	"github.com/refersam/refersam"
)

// Unpad returns the logits of the picture alone if the model saw it at the top left
// of a padded square. size is the side of the square, and width × height is the
// part that the picture covers, all in pixels of the model's input. As in SAM's
// postprocess_masks the logits are upsampled to the square (here with aligned
// corners, see Upsample), and the part over the padding is cut off. Mask and the
// other functions then stretch the rest to the picture's size.
//
// It equals torch's F.interpolate and slicing to the bit. The result takes 4 bytes
// per pixel, 4 MB for SAM's 1024.
func Unpad(l refersam.Logits, size, width, height int) (refersam.Logits, error) {
	if width < 1 || height < 1 || width > size || height > size {
		return refersam.Logits{}, fmt.Errorf("postprocess: the picture's %d×%d pixels do not fit the square of %d", width, height, size)
	}
	if err := check(l, size, size); err != nil {
		return refersam.Logits{}, err
	}
	u := newUpsampler(l, size, size)
	inside := refersam.Logits{Width: width, Height: height, Values: make([]float32, width*height)}
	for y := range height {
		u.row(y, inside.Values[y*width:][:width])
	}
	return inside, nil
}
