//go:build !(cgo && libjpeg)

package preprocess

import (
	"bytes"
	"context"
	"image"
	"image/jpeg"
	"io"
)

// JPEGDecoder names what decodes JPEG in this build.
const JPEGDecoder = "image/jpeg"

// jpegBytesPerPixel is source.bytesPerPixel: the codec's planes, the
// interleaved copy that it makes of RGB and CMYK, the result, and the 4-byte
// coefficients of a progressive picture.
func jpegBytesPerPixel(frame *jpegFrame) int {
	size := frame.components + 3
	if frame.components > 1 {
		size += 4
	}
	if frame.progressive {
		size += 4 * frame.components
	}
	return size
}

// decodeJPEG differs from Pillow only by the rounding of the inverse DCT.
// Config.Validate keeps what only libjpeg can do from it.
func decodeJPEG(ctx context.Context, data []byte, frame *jpegFrame, dst *canvas, _ int, _ bool) error {
	r := newContextReader(ctx, data)
	if !frame.progressive {
		// libjpeg does not miss the end marker when all blocks are there, the
		// codec does. In a progressive picture it tells that no scan is missing.
		r = io.MultiReader(r, bytes.NewReader([]byte("\xff\xd9")))
	}
	img, err := jpeg.Decode(r)
	if err != nil {
		return err
	}
	if m, ok := img.(*image.YCbCr); ok {
		drawYCbCr(dst, m)
		return nil
	}
	return drawImage(dst, img)
}

// drawYCbCr draws the planes of a JPEG. Chroma is upsampled with a triangle
// filter ("fancy" in libjpeg) and converted with libjpeg's fixed-point tables,
// so that the result differs from Pillow's only by the rounding of the inverse
// DCT.
func drawYCbCr(dst *canvas, m *image.YCbCr) {
	width, height := m.Rect.Dx(), m.Rect.Dy()
	cb, cr := newChroma(m, m.Cb), newChroma(m, m.Cr)
	row := make([]uint8, 3*width)
	for y := range height {
		luma := m.Y[y*m.YStride:][:width]
		blue, red := cb.row(y)[:width], cr.row(y)[:width]
		for x, l := range luma {
			r, g, b := ycc(int32(l), int32(blue[x])-128, int32(red[x])-128)
			row[3*x], row[3*x+1], row[3*x+2] = r, g, b
		}
		dst.setRow(0, y, row)
	}
}

// ycc converts full-range BT.601 with 16 fractional bits, rounded per term as
// libjpeg does (jdcolor.c).
func ycc(y, cb, cr int32) (r, g, b uint8) {
	const half = 1 << 15
	return clip(y + (91881*cr+half)>>16),
		clip(y + (-22554*cb-46802*cr+half)>>16),
		clip(y + (116130*cb+half)>>16)
}

// chroma upsamples one plane row by row.
type chroma struct {
	plane         []uint8
	stride        int
	width, height int // of the plane
	ratio         image.YCbCrSubsampleRatio
	sums          []int32
	out           []uint8
}

func newChroma(m *image.YCbCr, plane []uint8) *chroma {
	h, v := 1, 1
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422:
		h = 2
	case image.YCbCrSubsampleRatio420:
		h, v = 2, 2
	case image.YCbCrSubsampleRatio440:
		v = 2
	case image.YCbCrSubsampleRatio411:
		h = 4
	case image.YCbCrSubsampleRatio410:
		h, v = 4, 2
	}
	c := &chroma{plane: plane, stride: m.CStride, ratio: m.SubsampleRatio}
	c.width = (m.Rect.Dx() + h - 1) / h
	c.height = (m.Rect.Dy() + v - 1) / v
	c.sums = make([]int32, c.width)
	c.out = make([]uint8, h*c.width)
	return c
}

// row returns row y at full resolution, valid until the next call. Planes of
// one or two columns are repeated, not interpolated, as in libjpeg.
func (c *chroma) row(y int) []uint8 {
	wide := c.width > 2
	switch c.ratio {
	case image.YCbCrSubsampleRatio444:
		return c.line(y)
	case image.YCbCrSubsampleRatio422:
		if wide {
			c.interpolate(c.line(y))
		} else {
			repeat(c.out, c.line(y), 2)
		}
	case image.YCbCrSubsampleRatio420:
		if wide {
			c.interpolate2(c.nearAndFar(y))
		} else {
			repeat(c.out, c.line(y/2), 2)
		}
	case image.YCbCrSubsampleRatio440:
		near, far := c.nearAndFar(y)
		round := int32(1 + y%2)
		for i := range c.out {
			c.out[i] = uint8((3*int32(near[i]) + int32(far[i]) + round) >> 2)
		}
	case image.YCbCrSubsampleRatio411:
		repeat(c.out, c.line(y), 4)
	case image.YCbCrSubsampleRatio410:
		repeat(c.out, c.line(y/2), 4)
	}
	return c.out
}

func (c *chroma) line(y int) []uint8 { return c.plane[y*c.stride:][:c.width] }

// nearAndFar returns the chroma lines that row y lies between, of a plane with
// half as many lines; at the edges both are the same.
func (c *chroma) nearAndFar(y int) (near, far []uint8) {
	other := y/2 - 1 + y%2*2
	return c.line(y / 2), c.line(min(max(other, 0), c.height-1))
}

// interpolate doubles a line: 3/4 of the nearer and 1/4 of the farther sample,
// rounded down on the left and up on the right.
func (c *chroma) interpolate(line []uint8) {
	last := len(line) - 1
	for i, v := range line {
		here := 3 * int32(v)
		c.out[2*i] = uint8((here + int32(line[max(i-1, 0)]) + 1) >> 2)
		c.out[2*i+1] = uint8((here + int32(line[min(i+1, last)]) + 2) >> 2)
	}
}

// interpolate2 is interpolate in both directions, rounded once.
func (c *chroma) interpolate2(near, far []uint8) {
	for i, v := range near {
		c.sums[i] = 3*int32(v) + int32(far[i])
	}
	last := len(c.sums) - 1
	for i, v := range c.sums {
		c.out[2*i] = uint8((3*v + c.sums[max(i-1, 0)] + 8) >> 4)
		c.out[2*i+1] = uint8((3*v + c.sums[min(i+1, last)] + 7) >> 4)
	}
}

// repeat writes each sample n times.
func repeat(dst, line []uint8, n int) {
	for i, v := range line {
		for j := range n {
			dst[n*i+j] = v
		}
	}
}
