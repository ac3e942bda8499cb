package preprocess

import (
	"compress/lzw"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"io"
)

// gifFrame is the first frame of a GIF and the screen it lies on.
type gifFrame struct {
	// screen holds the frame: the logical screen, enlarged where the frame
	// sticks out of it, as viewers do.
	screen image.Point
	rect   image.Rectangle
	// palette has 256 RGB entries, see gifPalette.
	palette    [3 * 256]uint8
	interlaced bool
	// background is the palette index of pixels outside of rect: the
	// transparent one, or 0.
	background uint8
	// data starts with the LZW code size of the frame.
	data []byte
}

// openGIF finds the first frame. It is not decoded by image/gif, which forgets
// the colour of transparent pixels, and refuses frames that stick out of the
// screen and data behind the last pixel; Pillow does none of that.
func openGIF(data []byte, cfg *Config) (*source, error) {
	f, err := firstGIFFrame(data)
	if err != nil {
		return nil, err
	}
	return &source{
		width:         f.screen.X,
		height:        f.screen.Y,
		orientation:   upright,
		bytesPerPixel: 1 + 3, // indices, RGB
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
	gifTrailer   = ';'
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
	f.palette = gifPalette(nil)
	screen := r.next(7)
	if flags := screen[4]; flags&gifHasTable != 0 {
		f.palette = gifPalette(r.next(3 << (1 + flags&7)))
	}
	for r.err == nil {
		switch r.next(1)[0] {
		case gifExtension:
			label := r.next(1)[0]
			block := r.subBlock()
			if label == graphicControl && len(block) >= 4 && block[0]&isTransparent != 0 {
				f.background = block[3]
			}
			if len(block) > 0 {
				r.skipSubBlocks()
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
				f.palette = gifPalette(r.next(3 << (1 + flags&7)))
			}
			f.data = r.rest
			if r.err == nil && f.rect.Empty() {
				return nil, damaged("its first frame is empty")
			}
			return f, r.err
		case gifTrailer:
			return nil, damaged("it has no frame")
		} // whatever else is between blocks is skipped
	}
	return nil, cutOff("its data ends before its first frame")
}

// gifPalette fills up a table of colours as Pillow does: with black, but with
// grey if the table is a ramp of grey as far as it goes.
func gifPalette(table []byte) (palette [3 * 256]uint8) {
	ramp := true
	for i, v := range table {
		ramp = ramp && int(v) == i/3
	}
	for i := range palette {
		switch {
		case i < len(table):
			palette[i] = table[i]
		case ramp:
			palette[i] = uint8(i / 3)
		}
	}
	return palette
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

// decode draws the frame. Surplus data behind the pixels is ignored.
func (f *gifFrame) decode(ctx context.Context, dst *canvas) error {
	const leastCode, mostCode = 2, 8
	if len(f.data) == 0 {
		return errTruncated
	}
	codeSize := int(f.data[0])
	if codeSize < leastCode || codeSize > mostCode {
		return damaged("its LZW codes begin with %d bits, allowed: 2 to 8", codeSize)
	}
	blocks := &gifBlocks{ctx: ctx, rest: f.data[1:]}
	indices := make([]uint8, f.rect.Dx()*f.rect.Dy())
	r := lzw.NewReader(blocks, lzw.LSB, codeSize)
	n, err := io.ReadFull(r, indices)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
	case blocks.cutOff:
		return cutOff("its data ends before its first frame does")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("its first frame has the data of %d pixels and a size of %d", n, len(indices))
	default:
		return damaged("the LZW data of its first frame is wrong behind %d of %d pixels", n, len(indices))
	}

	if f.rect.Size() != f.screen {
		rgb := f.palette[3*int(f.background):]
		dst.fill(rgb[0], rgb[1], rgb[2])
	}
	row := make([]uint8, 3*f.rect.Dx())
	for stored := range f.rect.Dy() {
		src := indices[stored*f.rect.Dx():]
		for x := range f.rect.Dx() {
			copy(row[3*x:3*x+3], f.palette[3*int(src[x]):])
		}
		dst.setRow(f.rect.Min.X, f.rect.Min.Y+f.line(stored), row)
	}
	return nil
}

// line returns which row of the frame is stored as number n (GIF89a, appendix
// E).
func (f *gifFrame) line(n int) int {
	if !f.interlaced {
		return n
	}
	for _, pass := range [][2]int{{0, 8}, {4, 8}, {2, 4}, {1, 2}} {
		first, step := pass[0], pass[1]
		lines := max(0, (f.rect.Dy()-first+step-1)/step)
		if n < lines {
			return first + n*step
		}
		n -= lines
	}
	panic("preprocess: more lines than a frame has")
}

// gifBlocks reads what a sequence of sub-blocks holds. It stops soon after ctx
// ends.
type gifBlocks struct {
	ctx    context.Context
	rest   []byte
	block  []byte
	ended  bool // by the empty block
	cutOff bool // by the end of the file
}

func (b *gifBlocks) ReadByte() (byte, error) {
	if len(b.block) == 0 {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	first := b.block[0]
	b.block = b.block[1:]
	return first, nil
}

// Read is not called, because lzw reads bytes where it can.
func (b *gifBlocks) Read(out []byte) (int, error) {
	if len(out) == 0 {
		return 0, nil
	}
	first, err := b.ReadByte()
	if err != nil {
		return 0, err
	}
	out[0] = first
	return 1, nil
}

func (b *gifBlocks) fill() error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	r := gifReader{rest: b.rest}
	if !b.ended {
		b.block = r.subBlock()
		b.cutOff = r.err != nil
		b.ended = b.cutOff || len(b.block) == 0
	}
	if b.ended {
		return io.EOF
	}
	b.rest = r.rest
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
