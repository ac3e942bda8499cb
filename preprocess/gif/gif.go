// Package gif reads the first frame of a GIF.
package gif

import (
	"bytes"
	"compress/lzw"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"io"

	"github.com/refersam/refersam/preprocess/picture"
)

// source is the first frame of a GIF and the screen it lies on.
type source struct {
	// screen holds the frame: the logical screen, enlarged where the frame
	// sticks out of it, as viewers do.
	screen image.Point
	rect   image.Rectangle
	// palette has 256 RGB entries, see completePalette.
	palette    [3 * 256]uint8
	interlaced bool
	// background is the palette index of pixels outside of rect: the
	// transparent one, or 0.
	background uint8
	// data starts with the LZW code size of the frame.
	data   []byte
	frames int
}

// Open finds the first frame. It is not decoded by image/gif, which forgets
// the colour of transparent pixels, and refuses frames that stick out of the
// screen and data behind the last pixel; Pillow does none of that.
func Open(data []byte, limits picture.Limits) (picture.Source, error) {
	f, err := firstFrame(data)
	if err != nil {
		return nil, err
	}
	f.frames = 1 + moreFrames(f.data, limits.MaxFrames)
	return f, nil
}

func (f *source) Header() picture.Header {
	return picture.Header{
		Width:         f.screen.X,
		Height:        f.screen.Y,
		Orientation:   picture.Upright,
		Frames:        f.frames,
		BytesPerPixel: 1 + 3, // indices, RGB
		PixelCost:     picture.CostGIF,
	}
}

// Labels of the blocks of a GIF, and a flag in them (GIF89a specification,
// sections 17 to 26).
const (
	extension       = '!'
	imageDescriptor = ','
	trailer         = ';'
	hasTable        = 0x80
)

// firstFrame walks the blocks up to the first image descriptor.
func firstFrame(data []byte) (*source, error) {
	const (
		graphicControl = 0xf9
		interlace      = 0x40
		isTransparent  = 0x01
	)
	r := reader{rest: data[len("GIF89a"):]}
	f := &source{}
	f.palette = completePalette(nil)
	screen := r.next(7)
	if flags := screen[4]; flags&hasTable != 0 {
		f.palette = completePalette(r.next(3 << (1 + flags&7)))
	}
	for r.err == nil {
		switch r.next(1)[0] {
		case extension:
			label := r.next(1)[0]
			block := r.subBlock()
			if label == graphicControl && len(block) >= 4 && block[0]&isTransparent != 0 {
				f.background = block[3]
			}
			if len(block) > 0 {
				r.skipSubBlocks()
			}
		case imageDescriptor:
			descriptor := r.next(9)
			f.rect = readRect(descriptor)
			f.screen = f.rect.Max
			f.screen.X = max(f.screen.X, int(binary.LittleEndian.Uint16(screen)))
			f.screen.Y = max(f.screen.Y, int(binary.LittleEndian.Uint16(screen[2:])))
			flags := descriptor[8]
			f.interlaced = flags&interlace != 0
			if flags&hasTable != 0 {
				f.palette = completePalette(r.next(3 << (1 + flags&7)))
			}
			f.data = r.rest
			if r.err == nil && f.rect.Empty() {
				return nil, picture.Damaged("its first frame is empty")
			}
			return f, r.err
		case trailer:
			return nil, picture.Damaged("it has no frame")
		} // whatever else is between blocks is skipped
	}
	return nil, picture.CutOff("its data ends before its first frame")
}

// completePalette fills up a table of colours as Pillow does: with black, but with
// grey if the table is a ramp of grey as far as it goes.
func completePalette(table []byte) (palette [3 * 256]uint8) {
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

// moreFrames counts the frames behind the first frame, up to most. rest begins
// with the compressed data of the first frame. A broken block ends the count and
// does no harm.
func moreFrames(rest []byte, most int) (n int) {
	r := reader{rest: rest}
	pixels := func() {
		r.next(1) // code size
		r.skipSubBlocks()
	}
	for pixels(); r.err == nil && n < most; {
		switch r.next(1)[0] {
		case extension:
			r.next(1)
			r.skipSubBlocks()
		case imageDescriptor:
			if flags := r.next(9)[8]; flags&hasTable != 0 {
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

// readRect reads left, top, width and height.
func readRect(b []byte) image.Rectangle {
	at := func(i int) int { return int(binary.LittleEndian.Uint16(b[i:])) }
	return image.Rect(at(0), at(2), at(0)+at(4), at(2)+at(6))
}

// Decode draws the background and then the frame. Surplus data behind the pixels
// is ignored.
func (f *source) Decode(ctx context.Context, _ int, draw picture.Draw) error {
	const leastCode, mostCode = 2, 8
	if len(f.data) == 0 {
		return picture.ErrTruncated
	}
	codeSize := int(f.data[0])
	if codeSize < leastCode || codeSize > mostCode {
		return picture.Damaged("its LZW codes begin with %d bits, allowed: 2 to 8", codeSize)
	}
	blocks := &blockReader{ctx: ctx, rest: f.data[1:]}
	indices := make([]uint8, f.rect.Dx()*f.rect.Dy())
	r := lzw.NewReader(blocks, lzw.LSB, codeSize)
	n, err := io.ReadFull(r, indices)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
	case blocks.cutOff:
		return picture.CutOff("its data ends before its first frame does")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return picture.Damaged("its first frame has the data of %d pixels and a size of %d", n, len(indices))
	default:
		return picture.Damaged("the LZW data of its first frame is wrong behind %d of %d pixels", n, len(indices))
	}

	if f.rect.Size() != f.screen {
		colour := f.palette[3*int(f.background):][:3]
		row := bytes.Repeat(colour, f.screen.X)
		for y := range f.screen.Y {
			draw(0, y, row)
		}
	}
	row := make([]uint8, 3*f.rect.Dx())
	for stored := range f.rect.Dy() {
		src := indices[stored*f.rect.Dx():]
		for x := range f.rect.Dx() {
			copy(row[3*x:3*x+3], f.palette[3*int(src[x]):])
		}
		draw(f.rect.Min.X, f.rect.Min.Y+f.line(stored), row)
	}
	return nil
}

// line returns which row of the frame is stored as number n (GIF89a, appendix
// E).
func (f *source) line(n int) int {
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
	panic("gif: more lines than a frame has")
}

// blockReader reads what a sequence of sub-blocks holds. It stops soon after ctx
// ends.
type blockReader struct {
	ctx    context.Context
	rest   []byte
	block  []byte
	ended  bool // by the empty block
	cutOff bool // by the end of the file
}

func (b *blockReader) ReadByte() (byte, error) {
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
func (b *blockReader) Read(out []byte) (int, error) {
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

func (b *blockReader) fill() error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	r := reader{rest: b.rest}
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

// reader cuts pieces off the front of rest. Beyond the end it sets err and
// returns zeros.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) next(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.err = nil, picture.ErrTruncated
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// subBlock returns the next data sub-block; the empty one ends a sequence.
func (r *reader) subBlock() []byte { return r.next(int(r.next(1)[0])) }

func (r *reader) skipSubBlocks() {
	for len(r.subBlock()) > 0 {
	}
}
