// Package bmp reads bitmaps of Windows and OS/2.
package bmp

import (
	"context"
	"encoding/binary"

	"github.com/refersam/refersam/preprocess/picture"
)

// Values of biCompression.
const (
	plain     = 0
	runs8     = 1
	runs4     = 2
	bitfields = 3
)

// source is a Windows or OS/2 bitmap as its headers describe it.
type source struct {
	data          []byte
	width, height int
	topDown       bool
	bits          int
	compression   uint32
	palette       [256][3]uint8
	// pixels is where the rows begin, in the file.
	pixels uint64
	// masks say which bits of a pixel of 16 bits are red, green and blue; of
	// 24 and 32 bits channels says which bytes are.
	masks    [3]uint32
	channels [3]int
}

// Open reads the headers of a bitmap of 1, 4 or 8 bits with a palette, also as
// runs, or of 16, 24 or 32 bits with the masks that Pillow knows. Rows may begin
// at the top or the bottom. The header may come from OS/2 or any version of
// Windows.
func Open(data []byte, _ picture.Limits) (picture.Source, error) {
	p, err := readHeader(data)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *source) Header() picture.Header {
	h := picture.Header{
		Width:         p.width,
		Height:        p.height,
		Orientation:   picture.Upright,
		Frames:        1,
		InOrder:       true,
		BytesPerPixel: 3,
		Overhead:      3 * int64(p.width),
		PixelCost:     picture.CostBMP,
	}
	if p.runs() {
		h.BytesPerPixel++ // indices
	}
	return h
}

func (p *source) runs() bool { return p.compression == runs8 || p.compression == runs4 }

func readHeader(data []byte) (*source, error) {
	const (
		fileHeader = 14
		core       = 12 // BITMAPCOREHEADER of OS/2, with sides of 16 bits
		info       = 40 // BITMAPINFOHEADER
	)
	if len(data) < fileHeader+core {
		return nil, picture.CutOff("it ends in its header")
	}
	p := &source{data: data, compression: plain, pixels: uint64(binary.LittleEndian.Uint32(data[10:]))}
	size := uint64(binary.LittleEndian.Uint32(data[fileHeader:]))
	switch size {
	case core, info, 52, 56, 64, 108, 124:
	default:
		return nil, picture.Unsupported("a header of %d bytes", size)
	}
	if uint64(len(data)) < fileHeader+size {
		return nil, picture.CutOff("it ends in its header")
	}
	header := data[fileHeader : fileHeader+size]
	rest := data[fileHeader+size:]
	colours, perColour := uint32(0), 4
	if size == core {
		perColour = 3
		p.width, p.height = int(binary.LittleEndian.Uint16(header[4:])), int(binary.LittleEndian.Uint16(header[6:]))
		p.bits = int(binary.LittleEndian.Uint16(header[10:]))
	} else {
		p.width, p.height = int(int32(binary.LittleEndian.Uint32(header[4:]))), int(int32(binary.LittleEndian.Uint32(header[8:])))
		if p.height < 0 {
			p.height, p.topDown = -p.height, true
		}
		p.bits = int(binary.LittleEndian.Uint16(header[14:]))
		p.compression = binary.LittleEndian.Uint32(header[16:])
		colours = binary.LittleEndian.Uint32(header[32:])
	}
	if p.width < 1 || p.height < 1 || p.height > picture.MaxSide {
		return nil, picture.Damaged("it claims to be %d×%d pixels", p.width, p.height)
	}
	if err := p.checkKind(); err != nil {
		return nil, err
	}
	if p.compression == bitfields {
		fields := header[min(info, len(header)):]
		if len(fields) == 0 {
			if len(rest) < 12 {
				return nil, picture.CutOff("it ends in its colour masks")
			}
			fields, rest = rest[:12], rest[12:]
		}
		if err := p.readMasks(fields); err != nil {
			return nil, err
		}
	}
	if p.bits <= 8 {
		if colours == 0 {
			colours = 1 << p.bits
		}
		const most = 256
		length := uint64(colours) * uint64(perColour)
		if colours > most {
			return nil, picture.Unsupported("a palette of %d colours", colours)
		}
		if length > uint64(len(rest)) {
			return nil, picture.CutOff("it ends in its palette")
		}
		p.readPalette(rest[:length], perColour)
		// Some programs forget the palette when they say where the rows begin.
		if p.pixels == fileHeader+size {
			p.pixels += length
		}
		rest = rest[length:]
	}
	if p.pixels == 0 {
		p.pixels = uint64(len(data) - len(rest))
	}
	return p, nil
}

// checkKind refuses combinations that no decoder reads, by name.
func (p *source) checkKind() error {
	switch p.bits {
	case 1, 4, 8, 16, 24, 32:
	default:
		return picture.Unsupported("%d bits a pixel", p.bits)
	}
	switch {
	case p.compression == plain:
		p.masks = [3]uint32{0x7c00, 0x3e0, 0x1f}
		p.channels = [3]int{2, 1, 0}
	case p.compression == runs8 && p.bits == 8, p.compression == runs4 && p.bits == 4:
	case p.compression == runs8, p.compression == runs4:
		return picture.Unsupported("runs with %d bits a pixel", p.bits)
	case p.compression == bitfields && p.bits >= 16:
	case p.compression == bitfields:
		return picture.Unsupported("colour masks with %d bits a pixel", p.bits)
	case p.compression == 4:
		return picture.Unsupported("a JPEG inside")
	case p.compression == 5:
		return picture.Unsupported("a PNG inside")
	default:
		return picture.Unsupported("compression %d", p.compression)
	}
	return nil
}

// readMasks takes masks of whole bytes and, in 16 bits, masks of 5 or 6 bits.
func (p *source) readMasks(fields []byte) error {
	for i := range p.masks {
		p.masks[i] = binary.LittleEndian.Uint32(fields[4*i:])
	}
	var alpha uint32
	if len(fields) >= 16 && p.bits == 32 {
		alpha = binary.LittleEndian.Uint32(fields[12:])
	}
	type layout struct {
		bits                    int
		red, green, blue, alpha uint32
	}
	channels, ok := map[layout][3]int{
		{16, 0xf800, 0x7e0, 0x1f, 0}:             {},
		{16, 0x7c00, 0x3e0, 0x1f, 0}:             {},
		{24, 0xff0000, 0xff00, 0xff, 0}:          {2, 1, 0},
		{32, 0xff0000, 0xff00, 0xff, 0}:          {2, 1, 0},
		{32, 0xff0000, 0xff00, 0xff, 0xff000000}: {2, 1, 0},
		{32, 0xff000000, 0xff0000, 0xff00, 0}:    {3, 2, 1},
		{32, 0xff000000, 0xff0000, 0xff00, 0xff}: {3, 2, 1},
		{32, 0xff000000, 0xff00, 0xff, 0}:        {3, 1, 0},
		{32, 0xff000000, 0xff00, 0xff, 0xff0000}: {3, 1, 0},
		{32, 0xff, 0xff00, 0xff0000, 0xff000000}: {0, 1, 2},
		{32, 0, 0, 0, 0}:                         {2, 1, 0},
	}[layout{p.bits, p.masks[0], p.masks[1], p.masks[2], alpha}]
	if !ok {
		return picture.Unsupported("the colour masks %#x, %#x, %#x and %#x with %d bits a pixel", p.masks[0], p.masks[1], p.masks[2], alpha, p.bits)
	}
	p.channels = channels
	return nil
}

// readPalette leaves what the file has no colour for black. Of 8 bits with a
// ramp of grey it makes the ramp go on, as Pillow does.
func (p *source) readPalette(colours []byte, size int) {
	n := len(colours) / size
	ramp := p.bits == 8 && n > 2
	for i := range n {
		p.palette[i] = [3]uint8{colours[i*size+2], colours[i*size+1], colours[i*size]}
		ramp = ramp && p.palette[i] == [3]uint8{uint8(i), uint8(i), uint8(i)}
	}
	for i := n; ramp && i < len(p.palette); i++ {
		p.palette[i] = [3]uint8{uint8(i), uint8(i), uint8(i)}
	}
}

// Decode draws the rows from the top. Unless topDown is set they are stored from
// the bottom.
func (p *source) Decode(ctx context.Context, _ int, draw picture.Draw) error {
	stored, err := p.stored()
	if err != nil {
		return err
	}
	rgb := make([]uint8, 3*p.width)
	for y := range p.height {
		if y%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		from := p.height - 1 - y
		if p.topDown {
			from = y
		}
		p.convert(rgb, stored(from))
		draw(0, y, rgb)
	}
	return nil
}

// stored returns a function that gives a row as the file has it, by its number
// in the file.
func (p *source) stored() (func(n int) []byte, error) {
	if p.pixels > uint64(len(p.data)) {
		return nil, picture.CutOff("its rows begin at byte %d and the file has %d", p.pixels, len(p.data))
	}
	if p.runs() {
		pixels, err := p.unpackRuns()
		return func(n int) []byte { return pixels[n*p.width:][:p.width] }, err
	}
	length := (p.width*p.bits + 7) / 8
	stride := (p.width*p.bits + 31) / 32 * 4
	// The last row needs no padding.
	if need := stride*(p.height-1) + length; len(p.data)-int(p.pixels) < need {
		return nil, picture.CutOff("its rows need %d bytes and the file has %d for them", need, len(p.data)-int(p.pixels))
	}
	return func(n int) []byte { return p.data[int(p.pixels)+n*stride:][:length] }, nil
}

// convert makes pixels of a stored row. Runs are one index a byte by now.
func (p *source) convert(rgb []uint8, stored []byte) {
	switch {
	case p.bits == 8 || p.runs():
		for x, index := range stored {
			copy(rgb[3*x:3*x+3], p.palette[index][:])
		}
	case p.bits < 8:
		perByte, mask := 8/p.bits, uint8(1<<p.bits-1)
		for x := range p.width {
			index := stored[x/perByte] >> (8 - p.bits*(x%perByte+1)) & mask
			copy(rgb[3*x:3*x+3], p.palette[index][:])
		}
	case p.bits == 16:
		for x := range p.width {
			pixel := binary.LittleEndian.Uint16(stored[2*x:])
			red, green := pixel>>10&31, pixel>>5&31
			rgb[3*x+1] = uint8(green * 255 / 31)
			if p.masks[0] == 0xf800 {
				red, green = pixel>>11, pixel>>5&63
				rgb[3*x+1] = uint8(green * 255 / 63)
			}
			rgb[3*x], rgb[3*x+2] = uint8(red*255/31), uint8(pixel&31*255/31)
		}
	case p.bits == 24:
		stored = stored[:len(rgb)]
		for i := 0; i+2 < len(rgb); i += 3 {
			rgb[i], rgb[i+1], rgb[i+2] = stored[i+2], stored[i+1], stored[i]
		}
	default:
		red, green, blue := p.channels[0], p.channels[1], p.channels[2]
		for i := 0; i+2 < len(rgb); i += 3 {
			pixel := stored[:4]
			rgb[i], rgb[i+1], rgb[i+2] = pixel[red], pixel[green], pixel[blue]
			stored = stored[4:]
		}
	}
}

// unpackRuns undoes the run-length encoding: one index a byte, rows in the
// order of the file. Pixels that the runs skip have index 0.
func (p *source) unpackRuns() ([]uint8, error) {
	const (
		endOfLine   = 0
		endOfBitmap = 1
		skip        = 2
	)
	out := make([]uint8, p.width*p.height)
	rest := p.data[p.pixels:]
	at, x := 0, 0 // of the next pixel; x can be beyond the row
	next := func(n int) []byte {
		if n > len(rest) {
			rest = nil
			return nil
		}
		b := rest[:n]
		rest = rest[n:]
		return b
	}
	for at < len(out) {
		code := next(2)
		if code == nil {
			return nil, picture.CutOff("its runs end after %d of %d pixels", at, len(out))
		}
		count, value := int(code[0]), code[1]
		switch {
		case count > 0:
			// A run ends with its row.
			count = min(count, max(0, p.width-x), len(out)-at)
			p.fillRun(out[at:at+count], value)
			at, x = at+count, x+count
		case value == endOfLine:
			if used := at % p.width; used > 0 {
				at += p.width - used
			}
			x = 0
		case value == endOfBitmap:
			return nil, picture.Damaged("its runs end after %d of %d pixels", at, len(out))
		case value == skip:
			delta := next(2)
			if delta == nil {
				return nil, picture.CutOff("its runs end after %d of %d pixels", at, len(out))
			}
			at = min(at+int(delta[0])+int(delta[1])*p.width, len(out))
			x = at % p.width
		default:
			count = min(int(value), len(out)-at)
			size := count
			if p.bits == 4 {
				size = (count + 1) / 2
			}
			literal := next(size)
			if literal == nil {
				return nil, picture.CutOff("its runs end after %d of %d pixels", at, len(out))
			}
			for i := range count {
				if p.bits == 8 {
					out[at+i] = literal[i]
				} else {
					out[at+i] = literal[i/2] >> (4 - i%2*4) & 15
				}
			}
			at, x = at+count, x+int(value)
			if (len(p.data)-len(rest))%2 == 1 {
				next(1)
			}
		}
	}
	return out, nil
}

// fillRun repeats an index, or the two of a byte in turn.
func (p *source) fillRun(out []uint8, value uint8) {
	for i := range out {
		switch {
		case p.bits == 8:
			out[i] = value
		case i%2 == 0:
			out[i] = value >> 4
		default:
			out[i] = value & 15
		}
	}
}
