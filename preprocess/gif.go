package preprocess

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"image/gif"
	"io"
)

// gifFrame is the first frame of a GIF and the screen it lies on.
type gifFrame struct {
	// screen holds the frame: the logical screen, enlarged where the frame
	// sticks out of it, as viewers do.
	screen image.Point
	rect   image.Rectangle
	// palette has 256 RGB entries. Those that the file leaves out are a grey
	// ramp.
	palette    [3 * 256]uint8
	interlaced bool
	// background is the palette index of pixels outside of rect: the
	// transparent one, or 0.
	background uint8
	// data starts with the LZW code size of the frame.
	data []byte
}

// openGIF finds the first frame. image/gif forgets the colour of transparent
// pixels and refuses frames that stick out of the screen; Pillow keeps both,
// so the frame is handed to image/gif as a picture of its own.
func openGIF(data []byte, cfg *Config) (*source, error) {
	f, err := firstGIFFrame(data)
	if err != nil {
		return nil, err
	}
	return &source{
		width:       f.screen.X,
		height:      f.screen.Y,
		orientation: upright,
		// Indices before and after interlacing is undone, RGB.
		bytesPerPixel: 1 + 1 + 3,
		pixelCost:     costGIF,
		frames:        1 + moreGIFFrames(f.data, cfg.MaxFrames),
		decode:        f.decode,
	}, nil
}

// Of the blocks of a GIF and of the flags in them (GIF89a specification,
// sections 17 to 26).
const (
	gifExtension = '!'
	gifImage     = ','
	gifHasTable  = 0x80
)

// firstGIFFrame walks the blocks up to the first image descriptor.
func firstGIFFrame(data []byte) (*gifFrame, error) {
	const (
		graphicControl = 0xf9
		interlace      = 0x40
		isTransparent  = 0x01
	)
	r := gifReader{rest: data[len("GIF89a"):]}
	f := &gifFrame{}
	for i := range f.palette {
		f.palette[i] = uint8(i / 3)
	}

	screen := r.next(7)
	if flags := screen[4]; flags&gifHasTable != 0 {
		copy(f.palette[:], r.next(3<<(1+flags&7)))
	}
	for r.err == nil {
		switch r.next(1)[0] {
		case gifExtension:
			label := r.next(1)[0]
			for block := r.subBlock(); len(block) > 0; block = r.subBlock() {
				if label == graphicControl && len(block) >= 4 && block[0]&isTransparent != 0 {
					f.background = block[3]
				}
			}
		case gifImage:
			descriptor := r.next(9)
			f.rect = gifRect(descriptor)
			f.screen = f.rect.Max
			f.screen.X = max(f.screen.X, int(binary.LittleEndian.Uint16(screen)))
			f.screen.Y = max(f.screen.Y, int(binary.LittleEndian.Uint16(screen[2:])))
			flags := descriptor[8]
			f.interlaced = flags&interlace != 0
			if flags&gifHasTable != 0 {
				copy(f.palette[:], r.next(3<<(1+flags&7)))
			}
			f.data = r.rest
			if r.err == nil && f.rect.Empty() {
				return nil, errors.New("first frame is empty")
			}
			return f, r.err
		default:
			if r.err == nil {
				return nil, errors.New("no frame")
			}
		}
	}
	return nil, r.err
}

// moreGIFFrames counts the frames behind the one whose compressed data begins
// rest, up to most. What is broken ends the count and does no harm.
func moreGIFFrames(rest []byte, most int) (n int) {
	r := gifReader{rest: rest}
	pixels := func() {
		r.next(1) // code size
		r.skipSubBlocks()
	}
	for pixels(); r.err == nil && n < most; {
		switch r.next(1)[0] {
		case gifExtension:
			r.next(1)
			r.skipSubBlocks()
		case gifImage:
			if flags := r.next(9)[8]; flags&gifHasTable != 0 {
				r.next(3 << (1 + flags&7))
			}
			if r.err == nil {
				n++
			}
			pixels()
		default:
			return n
		}
	}
	return n
}

// gifRect reads left, top, width and height.
func gifRect(b []byte) image.Rectangle {
	at := func(i int) int { return int(binary.LittleEndian.Uint16(b[i:])) }
	return image.Rect(at(0), at(2), at(0)+at(4), at(2)+at(6))
}

func (f *gifFrame) decode(ctx context.Context, dst *canvas) error {
	const (
		globalTableOf256 = 0xf7
		interlace        = 0x40
	)
	header := bytes.NewBufferString("GIF89a")
	size := binary.LittleEndian.AppendUint16(nil, uint16(f.rect.Dx()))
	size = binary.LittleEndian.AppendUint16(size, uint16(f.rect.Dy()))
	header.Write(size)
	header.Write([]byte{globalTableOf256, 0, 0})
	header.Write(f.palette[:])
	header.Write([]byte{',', 0, 0, 0, 0})
	header.Write(size)
	if f.interlaced {
		header.WriteByte(interlace)
	} else {
		header.WriteByte(0)
	}
	img, err := gif.Decode(io.MultiReader(header, newContextReader(ctx, f.data)))
	if err != nil {
		return err
	}
	m, ok := img.(*image.Paletted)
	if !ok || m.Rect.Size() != f.rect.Size() {
		return errors.New("frame is not as its descriptor says")
	}

	if f.rect.Size() != f.screen {
		rgb := f.palette[3*int(f.background):]
		dst.fill(rgb[0], rgb[1], rgb[2])
	}
	row := make([]uint8, 3*f.rect.Dx())
	for y := range f.rect.Dy() {
		src := m.Pix[y*m.Stride:]
		for x := range f.rect.Dx() {
			copy(row[3*x:3*x+3], f.palette[3*int(src[x]):])
		}
		dst.setRow(f.rect.Min.X, f.rect.Min.Y+y, row)
	}
	return nil
}

// gifReader cuts pieces off the front of rest. Beyond the end it sets err and
// returns zeros.
type gifReader struct {
	rest []byte
	err  error
}

func (r *gifReader) next(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.err = nil, errTruncated
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// subBlock returns the next data sub-block; the empty one ends a sequence.
func (r *gifReader) subBlock() []byte { return r.next(int(r.next(1)[0])) }

func (r *gifReader) skipSubBlocks() {
	for len(r.subBlock()) > 0 {
	}
}
