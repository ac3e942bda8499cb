// Package picture defines what the packages of the picture formats give to
// package preprocess: a Source. It also holds the limits, the errors and the
// conversions of pixels that several formats need.
package picture

import "context"

// Source is a picture with its header read and its pixels not decoded yet.
type Source interface {
	Header() Header

	// Decode passes the pixels to draw, at 1/denominator of the size, sides
	// rounded up. A denominator other than 1 is 2, 4 or 8 and needs
	// Header.Reducible. Decode may draw a pixel again; a pixel that it never
	// draws is black.
	//
	// It stops soon after ctx ends, except in a lossy WebP: its codec reads all
	// data before it decodes any.
	Decode(ctx context.Context, denominator int, draw Draw) error
}

// Draw takes RGB pixels from the stored position (x, y) rightwards. rgb is valid
// until Draw returns.
type Draw func(x, y int, rgb []uint8)

// Header describes a picture before any pixel is decoded.
type Header struct {
	// Width and Height are the sides as stored, before Orientation is applied.
	Width, Height int
	Orientation   Orientation

	// Frames counts the pictures in the file, at least 1. A count above
	// Limits.MaxFrames may stop at any number above it. Decode gives the first.
	Frames int

	// InOrder means that Decode passes whole rows from the top, so that they can
	// be resized as they come. Decode may begin again at row 0.
	InOrder bool

	// Reducible means that Decode takes denominators above 1.
	Reducible bool

	// BytesPerPixel is the memory that decoding holds at its peak, in bytes per
	// pixel of Width × Height, the RGB result included. At most
	// MaxBytesPerPixel.
	BytesPerPixel int

	// Overhead is the memory on top of that, in bytes. The part that does not
	// grow with the pixels is at most MaxOverhead.
	Overhead int64

	// PixelCost is one of the costs in cost.go.
	PixelCost int
}

// MaxBytesPerPixel is the largest Header.BytesPerPixel. HEIC has it.
const MaxBytesPerPixel = 24

// MaxOverhead bounds the part of Header.Overhead that does not grow with the
// pixels. A lossless WebP has it, with as many and as large Huffman trees as its
// codec allows (2600 groups of 52 kB). The blocks of a TIFF take at most 8 bytes
// per pixel.
const MaxOverhead = 136 << 20

// MaxSide is the largest width or height that any format can encode.
const MaxSide = 1<<31 - 1

// Limits bound what a header may claim.
type Limits struct {
	MaxPixels, MaxSide, MaxFrames int
}

// Check returns a Fault of kind ErrTooLarge for a size beyond the limits.
func (l Limits) Check(width, height int) error {
	switch {
	case width > l.MaxSide || height > l.MaxSide:
		return tooLarge("The picture is %d×%d pixels; each side may have at most %d.", width, height, l.MaxSide)
	case int64(width)*int64(height) > int64(l.MaxPixels):
		return tooLarge("The picture is %d×%d = %d pixels; at most %d are accepted.",
			width, height, int64(width)*int64(height), l.MaxPixels)
	}
	return nil
}

// Orientation says how a stored picture must be turned to stand upright. The
// values are the values of the EXIF tag Orientation (EXIF 2.32, 4.6.4);
// rotations are clockwise.
type Orientation uint8

// All orientations.
const (
	Upright        Orientation = 1
	FlipHorizontal Orientation = 2
	Rotate180      Orientation = 3
	FlipVertical   Orientation = 4
	Transpose      Orientation = 5
	Rotate90       Orientation = 6
	Transverse     Orientation = 7
	Rotate270      Orientation = 8
)

// Transposed reports whether width and height change places.
func (o Orientation) Transposed() bool { return o >= Transpose }
