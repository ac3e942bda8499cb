package preprocess

import (
	"fmt"
	"image"
)

// drawImage draws an image of one of the types that image/png and image/jpeg
// return, apart from *image.YCbCr. Alpha is dropped, of 16-bit samples the
// high byte counts.
func drawImage(dst *canvas, img image.Image) error {
	switch m := img.(type) {
	case *image.Gray:
		drawSamples(dst, m.Pix, m.Stride, m.Rect, 1, 0, 0)
	case *image.Gray16:
		drawSamples(dst, m.Pix, m.Stride, m.Rect, 2, 0, 0)
	case *image.RGBA: // only for opaque pictures, so not premultiplied
		drawSamples(dst, m.Pix, m.Stride, m.Rect, 4, 1, 2)
	case *image.NRGBA:
		drawSamples(dst, m.Pix, m.Stride, m.Rect, 4, 1, 2)
	case *image.RGBA64: // only for opaque pictures, so not premultiplied
		drawSamples(dst, m.Pix, m.Stride, m.Rect, 8, 2, 4)
	case *image.NRGBA64:
		drawSamples(dst, m.Pix, m.Stride, m.Rect, 8, 2, 4)
	case *image.Paletted:
		return drawPaletted(dst, m)
	case *image.CMYK:
		row := make([]uint8, 3*m.Rect.Dx())
		for y := range m.Rect.Dy() {
			cmykToRGB(row, m.Pix[y*m.Stride:])
			dst.setRow(0, y, row)
		}
	default:
		return fmt.Errorf("%w: pixels of type %T", errUnsupported, img)
	}
	return nil
}

// drawSamples draws interleaved pixels of size bytes that begin with red;
// green and blue lie g and b bytes into the pixel.
func drawSamples(dst *canvas, pix []uint8, stride int, rect image.Rectangle, size, g, b int) {
	row := make([]uint8, 3*rect.Dx())
	for y := range rect.Dy() {
		src := pix[y*stride:]
		for i := 0; i < len(row); i += 3 {
			row[i], row[i+1], row[i+2] = src[0], src[g], src[b]
			src = src[size:]
		}
		dst.setRow(0, y, row)
	}
}

// clip is fast where little is to be clipped.
func clip(v int32) uint8 {
	if uint32(v) <= 255 {
		return uint8(v)
	}
	return uint8(min(max(v, 0), 255))
}
