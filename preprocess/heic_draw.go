//go:build heic

package preprocess

import (
	"fmt"
	"image"
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
func (p *heifPicture) draw(dst *canvas, planes *heicPlanes) error {
	rect := image.Rect(0, 0, p.width, p.height)
	switch planes.colorspace {
	case heifRGB:
		drawSamples(dst, planes.pix, planes.stride, rect, 4, 1, 2)
	case heifGray:
		drawSamples(dst, planes.pix, planes.stride, rect, 1, 0, 0)
	default:
		return p.drawYCbCr(dst, planes)
	}
	return nil
}

// drawYCbCr draws planes with 16 fractional bits. Chroma is repeated, as
// pillow-heif has it.
func (p *heifPicture) drawYCbCr(dst *canvas, planes *heicPlanes) error {
	weights, ok := ycbcrWeights[p.matrix]
	if !ok {
		return fmt.Errorf("%w: matrix coefficients %d", errUnsupported, p.matrix)
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
	cb, cr := newHEICChroma(planes, behind[:size], p.width), newHEICChroma(planes, behind[size:], p.width)
	row := make([]uint8, 3*p.width)
	for y := range p.height {
		us, vs := cb.row(y), cr.row(y)
		for x, sample := range planes.pix[y*planes.stride:][:p.width] {
			l := (int32(sample)-black)*ky + half
			u, v := int32(us[x])-128, int32(vs[x])-128
			row[3*x], row[3*x+1], row[3*x+2] = clip((l+rv*v)>>16), clip((l-gu*u-gv*v)>>16), clip((l+bu*u)>>16)
		}
		dst.setRow(0, y, row)
	}
	return nil
}

// heicChroma repeats the samples of one plane row by row.
type heicChroma struct {
	planes  *heicPlanes
	plane   []byte
	columns int // of the plane
	out     []uint8
}

func newHEICChroma(planes *heicPlanes, plane []byte, width int) *heicChroma {
	c := &heicChroma{planes: planes, plane: plane, columns: width}
	if planes.chroma != heif444 {
		c.columns = (width + 1) / 2
	}
	c.out = make([]uint8, 2*c.columns)
	return c
}

// row returns row y at full resolution, valid until the next call.
func (c *heicChroma) row(y int) []uint8 {
	if c.planes.chroma == heif420 {
		y /= 2
	}
	line := c.plane[y*c.planes.chromaStride:][:c.columns]
	if c.planes.chroma == heif444 {
		return line
	}
	for i, v := range line {
		c.out[2*i], c.out[2*i+1] = v, v
	}
	return c.out
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
