package postprocess

import (
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"

	"github.com/refersam/refersam"
)

// Tint is the colour and opacity of a mask over its picture.
type Tint struct {
	// R, G and B are the colour of the foreground.
	R, G, B uint8
	// Opacity is the weight of the colour in the result, from 0 to 1.
	Opacity float64
}

// EncodeOverlayPNG writes the picture with the mask laid over it as a PNG.
func EncodeOverlayPNG(w io.Writer, p *refersam.Picture, m *refersam.Mask, t Tint) error {
	blend, err := t.blend(p, m)
	if err != nil {
		return err
	}
	out := newPNG(w, p.Width, p.Height, 8, colorRGB, pictureCompression)
	row := make([]byte, 3*p.Width)
	for y, bits := range rows(m) {
		var left [3]uint8
		for x := range p.Width {
			pixel := blend.pixel(p.Pix[3*(y*p.Width+x):], bits[x>>3]>>(7-x&7)&1)
			for c := range 3 {
				row[3*x+c] = pixel[c] - left[c]
			}
			left = pixel
		}
		out.row(filterSub, row)
	}
	return out.close()
}

// EncodeOverlayJPEG is EncodeOverlayPNG as a JPEG of the given quality, 1 to 100.
// Meanwhile it also holds the mask as one bit per pixel.
func EncodeOverlayJPEG(w io.Writer, p *refersam.Picture, m *refersam.Mask, t Tint, quality int) error {
	blend, err := t.blend(p, m)
	if err != nil {
		return err
	}
	o := &overlay{picture: p, blend: blend, stride: (m.Width + 7) / 8}
	o.bits = make([]byte, 0, o.stride*m.Height)
	for _, row := range rows(m) {
		o.bits = append(o.bits, row...)
	}
	return jpeg.Encode(w, o, &jpeg.Options{Quality: quality})
}

// blended maps each level of each channel to its level under the mask.
type blended [3][256]uint8

func (t Tint) blend(p *refersam.Picture, m *refersam.Mask) (*blended, error) {
	if err := checkMask(m); err != nil {
		return nil, err
	}
	switch {
	case p.Width != m.Width || p.Height != m.Height || len(p.Pix) != 3*p.Width*p.Height:
		return nil, fmt.Errorf("postprocess: the mask has %d×%d pixels, but the picture has %d×%d", m.Width, m.Height, p.Width, p.Height)
	case !(t.Opacity >= 0 && t.Opacity <= 1):
		return nil, fmt.Errorf("postprocess: opacity %v is not between 0 and 1", t.Opacity)
	}
	b := new(blended)
	for c, level := range [3]uint8{t.R, t.G, t.B} {
		for i := range b[c] {
			b[c][i] = uint8(float64(i)*(1-t.Opacity) + float64(level)*t.Opacity + 0.5)
		}
	}
	return b, nil
}

func (b *blended) pixel(rgb []uint8, inside uint8) [3]uint8 {
	if inside == 0 {
		return [3]uint8{rgb[0], rgb[1], rgb[2]}
	}
	return [3]uint8{b[0][rgb[0]], b[1][rgb[1]], b[2][rgb[2]]}
}

// overlay blends while image/jpeg reads it, so that no second picture is needed.
type overlay struct {
	picture *refersam.Picture
	blend   *blended
	bits    []byte
	stride  int
	// color is the last result of At, because returning a pointer to it needs no
	// allocation.
	color color.RGBA
}

func (*overlay) ColorModel() color.Model { return color.RGBAModel }

func (o *overlay) Bounds() image.Rectangle {
	return image.Rect(0, 0, o.picture.Width, o.picture.Height)
}

// At returns a colour that is valid only until the next call. image/jpeg needs no
// more.
func (o *overlay) At(x, y int) color.Color {
	pixel := o.blend.pixel(o.picture.Pix[3*(y*o.picture.Width+x):], o.bits[y*o.stride+x>>3]>>(7-x&7)&1)
	o.color = color.RGBA{pixel[0], pixel[1], pixel[2], 255}
	return &o.color
}
