package preprocess

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"image/color"
	"image/jpeg"
	"io"
)

// openJPEG reads the size and kind of picture from the frame header and the
// orientation from the first EXIF segment.
func openJPEG(data []byte) (*source, error) {
	cfg, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	src := &source{width: cfg.Width, height: cfg.Height, orientation: upright}
	components, interleaved := 3, 0 // interleaved: bytes a pixel of a copy that the codec makes
	switch cfg.ColorModel {
	case color.GrayModel:
		components = 1
	case color.RGBAModel:
		interleaved = 4
	case color.CMYKModel:
		components, interleaved = 4, 4
	}
	src.bytesPerPixel = components + interleaved + 3

	progressive, exif := false, false
	for marker, segment := range jpegSegments(data) {
		const (
			progressiveFrame = 0xc2
			app1             = 0xe1
		)
		switch {
		case marker == progressiveFrame:
			progressive = true
		case marker == app1 && !exif && bytes.HasPrefix(segment, []byte(exifPrefix)):
			src.orientation, exif = exifOrientation(segment), true
		}
	}
	if progressive {
		src.bytesPerPixel += 4 * components
	}
	src.decode = func(ctx context.Context, dst *canvas) error {
		r := newContextReader(ctx, data)
		if !progressive {
			// libjpeg does not miss the end marker when all blocks are there,
			// the codec does. In a progressive picture it tells that no scan
			// is missing.
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
	return src, nil
}

// jpegSegments yields the marker segments ahead of the first scan (ITU-T T.81,
// B.1.1). Like the codec it skips what is no marker.
func jpegSegments(data []byte) func(yield func(marker uint8, segment []byte) bool) {
	const (
		temporary    = 0x01
		restart0     = 0xd0
		startOfImage = 0xd8
		endOfImage   = 0xd9
		startOfScan  = 0xda
	)
	return func(yield func(uint8, []byte) bool) {
		for i := 0; i+4 <= len(data); {
			marker := data[i+1]
			switch {
			case data[i] != 0xff || marker == 0xff:
				i++
			case marker == 0 || marker == temporary || restart0 <= marker && marker <= startOfImage:
				i += 2
			case marker == endOfImage || marker == startOfScan:
				return
			default:
				end := i + 2 + int(binary.BigEndian.Uint16(data[i+2:]))
				if end < i+4 || end > len(data) || !yield(marker, data[i+4:end]) {
					return
				}
				i = end
			}
		}
	}
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

func clip(v int32) uint8 { return uint8(min(max(v, 0), 255)) }

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

// drawCMYK draws inks (255 is full) as Pillow does: what the black lets
// through, less the ink's share of it.
func drawCMYK(dst *canvas, m *image.CMYK) {
	row := make([]uint8, 3*m.Rect.Dx())
	for y := range m.Rect.Dy() {
		src := m.Pix[y*m.Stride:]
		for i := 0; i < len(row); i += 3 {
			light := 255 - uint32(src[3])
			for c := range 3 {
				t := uint32(src[c])*light + 128 // t/255, rounded
				row[i+c] = uint8(light - (t+t>>8)>>8)
			}
			src = src[4:]
		}
		dst.setRow(0, y, row)
	}
}
