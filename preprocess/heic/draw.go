//go:build heic

package heic

import (
	"fmt"
	"image"

	"github.com/refersam/refersam/preprocess/picture"
)

// ycbcrWeights are the shares of red and blue in luma by matrix coefficients of
// ITU-T H.273, table 4.
var ycbcrWeights = map[uint16][2]float64{
	1:           {0.2126, 0.0722}, // BT.709
	2:           {0.299, 0.114},   // not said
	5:           {0.299, 0.114},
	matrixBT601: {0.299, 0.114},
	9:           {0.2627, 0.0593}, // BT.2020
}

// draw draws what libheif has decoded.
func (p *source) draw(draw picture.Draw, planes *decoded) error {
	rect := image.Rect(0, 0, p.width, p.height)
	switch planes.colorspace {
	case spaceRGB:
		drawSamples(draw, planes.pix, planes.stride, rect, 4, 1, 2)
	case spaceGray:
		drawSamples(draw, planes.pix, planes.stride, rect, 1, 0, 0)
	default:
		return p.drawYCbCr(draw, planes)
	}
	return nil
}

// drawYCbCr draws planes with 16 fractional bits. Chroma is repeated, as
// pillow-heif has it.
func (p *source) drawYCbCr(draw picture.Draw, planes *decoded) error {
	weights, ok := ycbcrWeights[p.matrix]
	if !ok {
		return fmt.Errorf("%w: matrix coefficients %d", picture.ErrUnsupported, p.matrix)
	}
	black, luma, chroma := int32(0), 1.0, 1.0
	if !p.fullRange {
		black, luma, chroma = 16, 255.0/219, 255.0/224
	}
	const half = 1 << 15
	fixed := func(v float64) int32 { return int32(v*(1<<16) + 0.5) }
	red, blue := weights[0], weights[1]
	green := 1 - red - blue
	ky := fixed(luma)
	rv, bu := fixed(2*(1-red)*chroma), fixed(2*(1-blue)*chroma)
	gu, gv := fixed(2*(1-blue)*blue/green*chroma), fixed(2*(1-red)*red/green*chroma)

	size := planes.chromaStride * planes.chromaRows
	behind := planes.pix[planes.stride*p.height:]
	cb, cr := newChromaLines(planes, behind[:size], p.width), newChromaLines(planes, behind[size:], p.width)
	row := make([]uint8, 3*p.width)
	for y := range p.height {
		us, vs := cb.row(y), cr.row(y)
		for x, sample := range planes.pix[y*planes.stride:][:p.width] {
			l := (int32(sample)-black)*ky + half
			u, v := int32(us[x])-128, int32(vs[x])-128
			row[3*x], row[3*x+1], row[3*x+2] = picture.Clip((l+rv*v)>>16), picture.Clip((l-gu*u-gv*v)>>16), picture.Clip((l+bu*u)>>16)
		}
		draw(0, y, row)
	}
	return nil
}

// chromaLines repeats the samples of one plane row by row.
type chromaLines struct {
	planes  *decoded
	plane   []byte
	columns int // of the plane
	out     []uint8
}

func newChromaLines(planes *decoded, plane []byte, width int) *chromaLines {
	c := &chromaLines{planes: planes, plane: plane, columns: width}
	if planes.chroma != chroma444 {
		c.columns = (width + 1) / 2
	}
	c.out = make([]uint8, 2*c.columns)
	return c
}

// row returns row y at full resolution, valid until the next call.
func (c *chromaLines) row(y int) []uint8 {
	if c.planes.chroma == chroma420 {
		y /= 2
	}
	line := c.plane[y*c.planes.chromaStride:][:c.columns]
	if c.planes.chroma == chroma444 {
		return line
	}
	for i, v := range line {
		c.out[2*i], c.out[2*i+1] = v, v
	}
	return c.out
}

// drawSamples draws interleaved pixels of size bytes that begin with red;
// green and blue lie g and b bytes into the pixel.
func drawSamples(draw picture.Draw, pix []uint8, stride int, rect image.Rectangle, size, g, b int) {
	row := make([]uint8, 3*rect.Dx())
	for y := range rect.Dy() {
		src := pix[y*stride:]
		for i := 0; i < len(row); i += 3 {
			row[i], row[i+1], row[i+2] = src[0], src[g], src[b]
			src = src[size:]
		}
		draw(0, y, row)
	}
}
