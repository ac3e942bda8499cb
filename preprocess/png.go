package preprocess

import (
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/png"
)

const pngMagic = "\x89PNG\r\n\x1a\n"

// openPNG reads the IHDR chunk, which must come first (PNG 3rd edition, 5.6),
// and the orientation and the number of frames in the chunks eXIf and acTL,
// which may come anywhere.
func openPNG(data []byte, _ *Config) (*source, error) {
	const chunkOverhead = 4 + 4 + 4 // length, type, CRC
	rest := data[len(pngMagic):]
	if len(rest) < chunkOverhead+13 {
		return nil, errTruncated
	}
	if string(rest[4:8]) != "IHDR" {
		return nil, fmt.Errorf("first chunk is %q, not IHDR", rest[4:8])
	}
	width, height := binary.BigEndian.Uint32(rest[8:]), binary.BigEndian.Uint32(rest[12:])
	if width > maxSide || height > maxSide {
		return nil, fmt.Errorf("size %d×%d is out of range", width, height)
	}
	src := &source{
		width:       int(width),
		height:      int(height),
		orientation: upright,
		// RGBA, the largest pass of an interlaced picture (half of it), RGB.
		bytesPerPixel: 4 + 2 + 3,
		pixelCost:     costPNG,
		frames:        1,
		decode: func(ctx context.Context, dst *canvas) error {
			img, err := png.Decode(newContextReader(ctx, data))
			if err != nil {
				return err
			}
			return drawImage(dst, img)
		},
	}
	if depth := rest[16]; depth == 16 {
		src.bytesPerPixel = 8 + 4 + 3
	}
	for len(rest) >= chunkOverhead {
		size := uint64(binary.BigEndian.Uint32(rest))
		if size+chunkOverhead > uint64(len(rest)) {
			break
		}
		switch chunk := rest[8 : 8+size]; string(rest[4:8]) {
		case "eXIf":
			src.orientation = exifOrientation(chunk)
		case "acTL":
			if len(chunk) >= 4 {
				src.frames = max(1, int(min(binary.BigEndian.Uint32(chunk), maxSide)))
			}
		}
		rest = rest[size+chunkOverhead:]
	}
	return src, nil
}

// drawPaletted draws a picture whose palette holds color.NRGBA or opaque
// color.RGBA and color.RGBA64, as the codecs make them.
func drawPaletted(dst *canvas, m *image.Paletted) error {
	var table [256][3]uint8
	for i, c := range m.Palette {
		switch c := c.(type) {
		case color.RGBA:
			table[i] = [3]uint8{c.R, c.G, c.B}
		case color.NRGBA:
			table[i] = [3]uint8{c.R, c.G, c.B}
		case color.RGBA64:
			table[i] = [3]uint8{uint8(c.R >> 8), uint8(c.G >> 8), uint8(c.B >> 8)}
		default:
			return fmt.Errorf("%w: palette of type %T", errUnsupported, c)
		}
	}
	row := make([]uint8, 3*m.Rect.Dx())
	for y := range m.Rect.Dy() {
		src := m.Pix[y*m.Stride:]
		for x := range m.Rect.Dx() {
			copy(row[3*x:], table[src[x]][:])
		}
		dst.setRow(0, y, row)
	}
	return nil
}
