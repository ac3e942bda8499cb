package preprocess

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
)

const pngMagic = "\x89PNG\r\n\x1a\n"

// Colour types of a PNG (3rd edition, 6.1).
const (
	pngGrey      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGreyAlpha = 4
	pngRGBA      = 6
)

// pngChannels counts the samples of a pixel.
var pngChannels = map[uint8]int{pngGrey: 1, pngRGB: 3, pngPalette: 1, pngGreyAlpha: 2, pngRGBA: 4}

// pngPicture is what the chunks of a PNG say. Its decoder is not image/png,
// which refuses surplus data where libpng and Pillow do not, and does not name
// the chunk at fault.
type pngPicture struct {
	width, height int
	bits          int
	colourType    uint8
	interlaced    bool
	// single is the colour of each value of grey and palette pixels.
	single [256][3]uint8
	// data begins with the first IDAT chunk.
	data []byte
}

// openPNG reads all chunks but the pixels in IDAT: IHDR must come first, IEND
// last. The checksums of chunks ahead of the pixels must be right; behind them
// only IDAT's matter, as to Pillow.
func openPNG(data []byte, cfg *Config) (*source, error) {
	p := &pngPicture{}
	src := &source{frames: 1, pixelCost: costPNG}
	var meta metadata
	var chunk pngChunk
	hasPalette, hasEnd := false, false
	for rest := data[len(pngMagic):]; !hasEnd; rest = rest[chunk.size():] {
		var err error
		if chunk, err = nextPNGChunk(rest); err != nil {
			return nil, err
		}
		if p.width == 0 && chunk.kind != "IHDR" {
			return nil, damaged("its first chunk is %q, not IHDR", chunk.kind)
		}
		if p.data == nil && chunk.kind != "IDAT" && !chunk.intact() {
			return nil, damaged("the checksum of its chunk %s is wrong", chunk.kind)
		}
		switch chunk.kind {
		case "IHDR":
			if p.width > 0 {
				return nil, damaged("it has two IHDR chunks")
			}
			// A size beyond the limits is the answer whatever follows the header.
			if err = p.readHeader(chunk.data); err == nil {
				err = cfg.checkSize(p.width, p.height)
			}
		case "PLTE":
			if p.colourType == pngPalette && p.data == nil {
				hasPalette = true
				err = p.readPalette(chunk.data)
			}
		case "IDAT":
			if p.data == nil {
				p.data = rest
			}
		case "IEND":
			hasEnd = true
		case "acTL":
			if len(chunk.data) >= 4 {
				src.frames = max(1, int(min(binary.BigEndian.Uint32(chunk.data), maxSide)))
			}
		default:
			meta.addPNGChunk(chunk)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case p.data == nil:
		return nil, damaged("it has no IDAT chunk, which holds the pixels")
	case p.colourType == pngPalette && !hasPalette:
		return nil, damaged("it has no PLTE chunk, which holds its palette")
	}
	src.width, src.height, src.orientation = p.width, p.height, meta.orientation()
	src.bytesPerPixel = 3
	src.overhead = 2*p.rowBytes(p.width) + 3*int64(p.width)
	if p.interlaced {
		src.decode = p.decodeInterlaced
	} else {
		src.rows = func(ctx context.Context, _ int, row func(y int, rgb []uint8)) error { return p.rows(ctx, row) }
	}
	return src, nil
}

// pngChunk is one chunk: its type of four letters, its data and its checksum.
type pngChunk struct {
	kind string
	data []byte
	sum  uint32
}

const pngChunkFrame = 4 + 4 + 4 // length, type, checksum

func (c pngChunk) size() int { return pngChunkFrame + len(c.data) }

func (c pngChunk) intact() bool {
	return crc32.Update(crc32.ChecksumIEEE([]byte(c.kind)), crc32.IEEETable, c.data) == c.sum
}

// nextPNGChunk cuts a chunk off the front of rest. Its data is a part of rest.
func nextPNGChunk(rest []byte) (pngChunk, error) {
	if len(rest) < 8 {
		return pngChunk{}, cutOff("it ends before its IEND chunk")
	}
	size, kind := uint64(binary.BigEndian.Uint32(rest)), rest[4:8]
	for _, letter := range kind {
		if upper := letter &^ 0x20; upper < 'A' || upper > 'Z' {
			return pngChunk{}, damaged("a chunk has the type %q, which is not four letters", kind)
		}
	}
	if size+pngChunkFrame > uint64(len(rest)) {
		return pngChunk{}, cutOff("it ends in its chunk %s, before its IEND chunk", kind)
	}
	return pngChunk{string(kind), rest[8 : 8+size], binary.BigEndian.Uint32(rest[8+size:])}, nil
}

func (p *pngPicture) readHeader(header []byte) error {
	if len(header) < 13 {
		return damaged("its IHDR chunk has %d bytes, not 13", len(header))
	}
	width, height := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
	if width < 1 || height < 1 || width > maxSide || height > maxSide {
		return damaged("it claims to be %d×%d pixels", width, height)
	}
	p.width, p.height = int(width), int(height)
	p.bits, p.colourType = int(header[8]), header[9]
	valid := false
	switch p.colourType {
	case pngGrey:
		valid = p.bits == 1 || p.bits == 2 || p.bits == 4 || p.bits == 8 || p.bits == 16
	case pngPalette:
		valid = p.bits == 1 || p.bits == 2 || p.bits == 4 || p.bits == 8
	case pngRGB, pngGreyAlpha, pngRGBA:
		valid = p.bits == 8 || p.bits == 16
	}
	compression, filter, interlace := header[10], header[11], header[12]
	switch {
	case !valid:
		return unsupported("%d bits a sample with colour type %d", p.bits, p.colourType)
	case compression != 0:
		return unsupported("compression method %d", compression)
	case filter != 0:
		return unsupported("filter method %d", filter)
	case interlace > 1:
		return unsupported("interlace method %d", interlace)
	}
	p.interlaced = interlace == 1
	most := 1<<min(p.bits, 8) - 1
	for value := range p.single {
		grey := uint8(min(value*255/most, 255))
		if p.colourType == pngPalette {
			grey = 0
		}
		p.single[value] = [3]uint8{grey, grey, grey}
	}
	return nil
}

func (p *pngPicture) readPalette(colours []byte) error {
	if n := len(colours); n == 0 || n%3 != 0 || n > 3*256 {
		return damaged("its palette has %d bytes, not 3 for each of up to 256 colours", n)
	}
	for i := range len(colours) / 3 {
		copy(p.single[i][:], colours[3*i:])
	}
	return nil
}

// addPNGChunk takes EXIF and XMP out of the chunks that may hold them.
func (m *metadata) addPNGChunk(c pngChunk) {
	const (
		xmpKeyword = "XML:com.adobe.xmp"
		rawKeyword = "Raw profile type exif" // ImageMagick's way before there was eXIf
	)
	var text []byte
	keyword, rest, ok := bytes.Cut(c.data, []byte{0})
	switch c.kind {
	case "eXIf":
		m.exif = c.data
		return
	case "tEXt":
		text = rest
	case "zTXt":
		if len(rest) > 1 && rest[0] == 0 {
			text = inflateText(rest[1:])
		}
	case "iTXt":
		if len(rest) < 2 {
			return
		}
		packed, method := rest[0] != 0, rest[1]
		parts := bytes.SplitN(rest[2:], []byte{0}, 3) // language, translated keyword, text
		if len(parts) < 3 || packed && method != 0 {
			return
		}
		if text = parts[2]; packed {
			text = inflateText(text)
		}
	default:
		return
	}
	switch {
	case !ok:
	case string(keyword) == xmpKeyword && len(text) > 0:
		m.xmp = text
	case string(keyword) == rawKeyword && m.exif == nil:
		m.exif = rawProfile(text)
	}
}

// inflateText returns what is packed, nil for what is broken or has more than
// 1 MiB.
func inflateText(packed []byte) []byte {
	const most = 1 << 20
	r, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil || len(text) > most {
		return nil
	}
	return text
}

// rawProfile reads hexadecimal digits behind three lines: an empty one, the
// kind and the length.
func rawProfile(text []byte) []byte {
	lines := bytes.SplitN(text, []byte{'\n'}, 4)
	if len(lines) < 4 {
		return nil
	}
	digits := bytes.Join(bytes.Fields(lines[3]), nil)
	block := make([]byte, len(digits)/2)
	if _, err := hex.Decode(block, digits); err != nil {
		return nil
	}
	return block
}

// rowBytes is the size of a row of width pixels, without its filter type.
func (p *pngPicture) rowBytes(width int) int64 {
	return (int64(width)*int64(pngChannels[p.colourType]*p.bits) + 7) / 8
}

func (p *pngPicture) rows(ctx context.Context, row func(y int, rgb []uint8)) error {
	r, err := newPNGRows(ctx, p)
	if err != nil {
		return err
	}
	rgb := make([]uint8, 3*p.width)
	r.begin(p.width)
	for y := range p.height {
		if err := r.next(y, p.height); err != nil {
			return err
		}
		p.convert(rgb, r.current)
		row(y, rgb)
	}
	return r.end()
}

// decodeInterlaced draws the seven pictures of Adam7.
func (p *pngPicture) decodeInterlaced(ctx context.Context, dst *canvas) error {
	r, err := newPNGRows(ctx, p)
	if err != nil {
		return err
	}
	rgb := make([]uint8, 3*p.width)
	for _, pass := range []struct{ x, y, across, down int }{
		{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
	} {
		width := (p.width - pass.x + pass.across - 1) / pass.across
		if width < 1 {
			continue
		}
		r.begin(width)
		for y := pass.y; y < p.height; y += pass.down {
			if err := r.next(y, p.height); err != nil {
				return err
			}
			p.convert(rgb[:3*width], r.current)
			for i := range width {
				dst.setRow(pass.x+i*pass.across, y, rgb[3*i:3*i+3])
			}
		}
	}
	return r.end()
}

// convert makes pixels of an unfiltered row. Of 16 bits the high byte, which
// comes first, counts; alpha does not.
func (p *pngPicture) convert(rgb []uint8, row []byte) {
	channels, size := pngChannels[p.colourType], p.bits/8
	switch {
	case p.colourType == pngRGB && p.bits == 8:
		copy(rgb, row)
	case channels >= 3:
		step := channels * size
		for i := 0; i < len(rgb); i += 3 {
			rgb[i], rgb[i+1], rgb[i+2] = row[0], row[size], row[2*size]
			row = row[step:]
		}
	case p.bits >= 8:
		step := channels * size
		for i := 0; i < len(rgb); i += 3 {
			copy(rgb[i:i+3], p.single[row[0]][:])
			row = row[step:]
		}
	default:
		perByte, mask := 8/p.bits, uint8(1<<p.bits-1)
		for x := range len(rgb) / 3 {
			value := row[x/perByte] >> (8 - p.bits*(x%perByte+1)) & mask
			copy(rgb[3*x:3*x+3], p.single[value][:])
		}
	}
}

// pngRows inflates and unfilters rows one by one.
type pngRows struct {
	ctx     context.Context
	inflate io.Reader
	pixel   int // bytes of a pixel, at least 1
	bytes   func(width int) int64
	// current and above have the filter type ahead of them in memory.
	memory         [2][]byte
	current, above []byte
}

func newPNGRows(ctx context.Context, p *pngPicture) (*pngRows, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	inflate, err := zlib.NewReader(&pngData{rest: p.data})
	if err != nil {
		return nil, pngDataError(err, 0, p.height)
	}
	r := &pngRows{ctx: ctx, inflate: inflate, pixel: max(1, pngChannels[p.colourType]*p.bits/8), bytes: p.rowBytes}
	for i := range r.memory {
		r.memory[i] = make([]byte, 1+p.rowBytes(p.width))
	}
	return r, nil
}

// begin starts a picture of rows of width pixels.
func (r *pngRows) begin(width int) {
	n := 1 + r.bytes(width)
	r.current, r.above = r.memory[0][1:n], r.memory[1][1:n]
	clear(r.current) // the row above the first
}

// next makes current the next row, y of height in the picture.
func (r *pngRows) next(y, height int) error {
	if y%16 == 0 && r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	r.memory[0], r.memory[1] = r.memory[1], r.memory[0]
	r.current, r.above = r.above, r.current
	raw := r.memory[0][:1+len(r.current)]
	if _, err := io.ReadFull(r.inflate, raw); err != nil {
		return pngDataError(err, y, height)
	}
	return unfilterPNG(raw[0], r.current, r.above, r.pixel)
}

// end checks the checksum of the data if the last row ends it. Surplus data
// behind the last row is ignored.
func (r *pngRows) end() error {
	if _, err := io.ReadFull(r.inflate, make([]byte, 1)); errors.Is(err, zlib.ErrChecksum) {
		return damaged("the checksum of the data in its IDAT chunks is wrong")
	}
	return nil
}

func pngDataError(err error, y, height int) error {
	var known *fault
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("the data in its IDAT chunks ends in row %d of %d", y, height)
	}
	return damaged("the data in its IDAT chunks is wrong (%v) in row %d of %d", cmp.Or(err, io.EOF), y, height)
}

// pngData reads what consecutive IDAT chunks hold.
type pngData struct {
	rest  []byte
	chunk []byte
}

func (d *pngData) Read(out []byte) (int, error) {
	if err := d.fill(); err != nil {
		return 0, err
	}
	n := copy(out, d.chunk)
	d.chunk = d.chunk[n:]
	return n, nil
}

// ReadByte makes d what flate reads without a buffer.
func (d *pngData) ReadByte() (byte, error) {
	if err := d.fill(); err != nil {
		return 0, err
	}
	b := d.chunk[0]
	d.chunk = d.chunk[1:]
	return b, nil
}

// fill goes on to the next chunk with data if this one is read.
func (d *pngData) fill() error {
	for len(d.chunk) == 0 {
		chunk, err := nextPNGChunk(d.rest)
		if err != nil || chunk.kind != "IDAT" {
			return cmp.Or(err, io.EOF)
		}
		if !chunk.intact() {
			return damaged("the checksum of its chunk IDAT is wrong")
		}
		d.chunk, d.rest = chunk.data, d.rest[chunk.size():]
	}
	return nil
}

// unfilterPNG undoes the filter of a row (PNG 3rd edition, 9.2).
func unfilterPNG(filter uint8, row, above []byte, pixel int) error {
	above = above[:len(row)]
	switch filter {
	case 0:
	case 1:
		for i := pixel; i < len(row); i++ {
			row[i] += row[i-pixel]
		}
	case 2:
		for i, up := range above {
			row[i] += up
		}
	case 3:
		for i := range min(pixel, len(row)) {
			row[i] += above[i] / 2
		}
		for i := pixel; i < len(row); i++ {
			row[i] += uint8((int(row[i-pixel]) + int(above[i])) / 2)
		}
	case 4:
		for i := range min(pixel, len(row)) {
			row[i] += above[i] // what is left and up left is 0
		}
		for first := range min(pixel, max(0, len(row)-pixel)) {
			left, upLeft := int(row[first]), int(above[first])
			for i := first + pixel; i < len(row); i += pixel {
				up := int(above[i])
				left = int(row[i] + paeth(left, up, upLeft))
				row[i], upLeft = uint8(left), up
			}
		}
	default:
		return damaged("a row has the filter type %d, allowed: 0 to 4", filter)
	}
	return nil
}

// paeth chooses the neighbour that is closest to left + up - upLeft.
func paeth(left, up, upLeft int) uint8 {
	toLeft, toUp := up-upLeft, left-upLeft
	toUpLeft := toLeft + toUp
	toLeft, toUp, toUpLeft = max(toLeft, -toLeft), max(toUp, -toUp), max(toUpLeft, -toUpLeft)
	switch {
	case toLeft <= toUp && toLeft <= toUpLeft:
		return uint8(left)
	case toUp <= toUpLeft:
		return uint8(up)
	}
	return uint8(upLeft)
}
