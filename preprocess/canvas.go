package preprocess

import (
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess/picture"
)

// canvas takes the rows of a picture as they are stored and puts each pixel
// where it belongs in the upright picture, so that turning needs no second
// buffer.
type canvas struct {
	pix []uint8
	// width and height are the sides of the upright picture.
	width, height int
	// The stored pixel (x, y) lies at pix[origin + x*dx + y*dy].
	origin, dx, dy int
}

// newCanvas makes a canvas of 3·width·height bytes for a stored picture of
// width × height pixels.
func newCanvas(pix []uint8, width, height int, o picture.Orientation) *canvas {
	c := &canvas{pix: pix, width: width, height: height}
	if o.Transposed() {
		c.width, c.height = height, width
	}
	right, down := 3, 3*c.width
	lastX, lastY := right*(c.width-1), down*(c.height-1)
	switch o {
	case picture.FlipHorizontal:
		c.origin, c.dx, c.dy = lastX, -right, down
	case picture.Rotate180:
		c.origin, c.dx, c.dy = lastX+lastY, -right, -down
	case picture.FlipVertical:
		c.origin, c.dx, c.dy = lastY, right, -down
	case picture.Transpose:
		c.origin, c.dx, c.dy = 0, down, right
	case picture.Rotate90:
		c.origin, c.dx, c.dy = lastX, down, -right
	case picture.Transverse:
		c.origin, c.dx, c.dy = lastX+lastY, -down, -right
	case picture.Rotate270:
		c.origin, c.dx, c.dy = lastY, -down, right
	default:
		c.origin, c.dx, c.dy = 0, right, down
	}
	return c
}

// setRow draws RGB pixels from the stored position (x, y) rightwards.
func (c *canvas) setRow(x, y int, rgb []uint8) {
	at := c.origin + x*c.dx + y*c.dy
	if c.dx == 3 {
		copy(c.pix[at:], rgb)
		return
	}
	for ; len(rgb) >= 3; rgb = rgb[3:] {
		c.pix[at], c.pix[at+1], c.pix[at+2] = rgb[0], rgb[1], rgb[2]
		at += c.dx
	}
}

func (c *canvas) picture() *refersam.Picture {
	return &refersam.Picture{Width: c.width, Height: c.height, Pix: c.pix}
}
