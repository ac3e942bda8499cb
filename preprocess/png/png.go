// Package png reads PNG.
package png

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

	"github.com/refersam/refersam/preprocess/exif"
	"github.com/refersam/refersam/preprocess/picture"
)

// Magic begins every PNG.
const Magic = "\x89PNG\r\n\x1a\n"

// Colour types of a PNG (3rd edition, 6.1).
const (
	colourGrey      = 0
	colourRGB       = 2
	colourPalette   = 3
	colourGreyAlpha = 4
	colourRGBA      = 6
)

// samplesPerPixel counts the samples of a pixel.
var samplesPerPixel = map[uint8]int{colourGrey: 1, colourRGB: 3, colourPalette: 1, colourGreyAlpha: 2, colourRGBA: 4}

// source is what the chunks of a PNG say. Its decoder is not image/png,
// which refuses surplus data where libpng and Pillow do not, and does not name
// the chunk at fault.
type source struct {
	width, height int
	bits          int
	colourType    uint8
	interlaced    bool
	orientation   picture.Orientation
	frames        int
	// single is the colour of each value of grey and palette pixels.
	single [256][3]uint8
	// data begins with the first IDAT chunk.
	data []byte
}

// Open reads all chunks but the pixels in IDAT: IHDR must come first, IEND
// last. The checksums of chunks ahead of the pixels must be right; behind them
// only IDAT's matter, as to Pillow.
func Open(data []byte, limits picture.Limits) (picture.Source, error) {
	p := &source{frames: 1}
	var meta exif.Metadata
	var chunk rawChunk
	hasPalette, hasEnd := false, false
	for rest := data[len(Magic):]; !hasEnd; rest = rest[chunk.size():] {
		var err error
		if chunk, err = nextChunk(rest); err != nil {
			return nil, err
		}
		if p.width == 0 && chunk.kind != "IHDR" {
			return nil, picture.Damaged("its first chunk is %q, not IHDR", chunk.kind)
		}
		if p.data == nil && chunk.kind != "IDAT" && !chunk.intact() {
			return nil, picture.Damaged("the checksum of its chunk %s is wrong", chunk.kind)
		}
		switch chunk.kind {
		case "IHDR":
			if p.width > 0 {
				return nil, picture.Damaged("it has two IHDR chunks")
			}
			// A size beyond the limits is the answer whatever follows the header.
			if err = p.readHeader(chunk.data); err == nil {
				err = limits.Check(p.width, p.height)
			}
		case "PLTE":
			if p.colourType == colourPalette && p.data == nil {
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
				p.frames = max(1, int(min(binary.BigEndian.Uint32(chunk.data), picture.MaxSide)))
			}
		default:
			addMetadata(&meta, chunk)
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case p.data == nil:
		return nil, picture.Damaged("it has no IDAT chunk, which holds the pixels")
	case p.colourType == colourPalette && !hasPalette:
		return nil, picture.Damaged("it has no PLTE chunk, which holds its palette")
	}
	p.orientation = meta.Orientation()
	return p, nil
}

func (p *source) Header() picture.Header {
	return picture.Header{
		Width:         p.width,
		Height:        p.height,
		Orientation:   p.orientation,
		Frames:        p.frames,
		InOrder:       !p.interlaced,
		BytesPerPixel: 3,
		Overhead:      2*p.rowBytes(p.width) + 3*int64(p.width),
		PixelCost:     picture.CostPNG,
	}
}

// Decode draws the rows from the top, or the seven pictures of Adam7.
func (p *source) Decode(ctx context.Context, _ int, draw picture.Draw) error {
	r, err := newRowReader(ctx, p)
	if err != nil {
		return err
	}
	if p.interlaced {
		return p.decodeInterlaced(r, draw)
	}
	return p.decodeRows(r, draw)
}

// rawChunk is one chunk: its type of four letters, its data and its checksum.
type rawChunk struct {
	kind string
	data []byte
	sum  uint32
}

const chunkFrame = 4 + 4 + 4 // length, type, checksum

func (c rawChunk) size() int { return chunkFrame + len(c.data) }

func (c rawChunk) intact() bool {
	return crc32.Update(crc32.ChecksumIEEE([]byte(c.kind)), crc32.IEEETable, c.data) == c.sum
}

// nextChunk cuts a chunk off the front of rest. Its data is a part of rest.
func nextChunk(rest []byte) (rawChunk, error) {
	if len(rest) < 8 {
		return rawChunk{}, picture.CutOff("it ends before its IEND chunk")
	}
	size, kind := uint64(binary.BigEndian.Uint32(rest)), rest[4:8]
	for _, letter := range kind {
		if upper := letter &^ 0x20; upper < 'A' || upper > 'Z' {
			return rawChunk{}, picture.Damaged("a chunk has the type %q, which is not four letters", kind)
		}
	}
	if size+chunkFrame > uint64(len(rest)) {
		return rawChunk{}, picture.CutOff("it ends in its chunk %s, before its IEND chunk", kind)
	}
	return rawChunk{string(kind), rest[8 : 8+size], binary.BigEndian.Uint32(rest[8+size:])}, nil
}

func (p *source) readHeader(header []byte) error {
	if len(header) < 13 {
		return picture.Damaged("its IHDR chunk has %d bytes, not 13", len(header))
	}
	width, height := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
	if width < 1 || height < 1 || width > picture.MaxSide || height > picture.MaxSide {
		return picture.Damaged("it claims to be %d×%d pixels", width, height)
	}
	p.width, p.height = int(width), int(height)
	p.bits, p.colourType = int(header[8]), header[9]
	valid := false
	switch p.colourType {
	case colourGrey:
		valid = p.bits == 1 || p.bits == 2 || p.bits == 4 || p.bits == 8 || p.bits == 16
	case colourPalette:
		valid = p.bits == 1 || p.bits == 2 || p.bits == 4 || p.bits == 8
	case colourRGB, colourGreyAlpha, colourRGBA:
		valid = p.bits == 8 || p.bits == 16
	}
	compression, filter, interlace := header[10], header[11], header[12]
	switch {
	case !valid:
		return picture.Unsupported("%d bits a sample with colour type %d", p.bits, p.colourType)
	case compression != 0:
		return picture.Unsupported("compression method %d", compression)
	case filter != 0:
		return picture.Unsupported("filter method %d", filter)
	case interlace > 1:
		return picture.Unsupported("interlace method %d", interlace)
	}
	p.interlaced = interlace == 1
	most := 1<<min(p.bits, 8) - 1
	for value := range p.single {
		grey := uint8(min(value*255/most, 255))
		if p.colourType == colourPalette {
			grey = 0
		}
		p.single[value] = [3]uint8{grey, grey, grey}
	}
	return nil
}

func (p *source) readPalette(colours []byte) error {
	if n := len(colours); n == 0 || n%3 != 0 || n > 3*256 {
		return picture.Damaged("its palette has %d bytes, not 3 for each of up to 256 colours", n)
	}
	for i := range len(colours) / 3 {
		copy(p.single[i][:], colours[3*i:])
	}
	return nil
}

// addMetadata takes EXIF and XMP out of the chunks that may hold them.
func addMetadata(m *exif.Metadata, c rawChunk) {
	const (
		xmpKeyword = "XML:com.adobe.xmp"
		rawKeyword = "Raw profile type exif" // ImageMagick's way before there was eXIf
	)
	var text []byte
	keyword, rest, ok := bytes.Cut(c.data, []byte{0})
	switch c.kind {
	case "eXIf":
		m.EXIF = c.data
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
		m.XMP = text
	case string(keyword) == rawKeyword && m.EXIF == nil:
		m.EXIF = rawProfile(text)
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
func (p *source) rowBytes(width int) int64 {
	return (int64(width)*int64(samplesPerPixel[p.colourType]*p.bits) + 7) / 8
}

func (p *source) decodeRows(r *rowReader, draw picture.Draw) error {
	rgb := make([]uint8, 3*p.width)
	r.begin(p.width)
	for y := range p.height {
		if err := r.next(y, p.height); err != nil {
			return err
		}
		p.convert(rgb, r.current)
		draw(0, y, rgb)
	}
	return r.end()
}

func (p *source) decodeInterlaced(r *rowReader, draw picture.Draw) error {
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
				draw(pass.x+i*pass.across, y, rgb[3*i:3*i+3])
			}
		}
	}
	return r.end()
}

// convert makes pixels of an unfiltered row. Of 16 bits the high byte, which
// comes first, counts; alpha does not.
func (p *source) convert(rgb []uint8, row []byte) {
	channels, size := samplesPerPixel[p.colourType], p.bits/8
	switch {
	case p.colourType == colourRGB && p.bits == 8:
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

// rowReader inflates and unfilters rows one by one.
type rowReader struct {
	ctx     context.Context
	inflate io.Reader
	pixel   int // bytes of a pixel, at least 1
	bytes   func(width int) int64
	// current and above have the filter type ahead of them in memory.
	memory         [2][]byte
	current, above []byte
}

func newRowReader(ctx context.Context, p *source) (*rowReader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	inflate, err := zlib.NewReader(&dataReader{rest: p.data})
	if err != nil {
		return nil, dataError(err, 0, p.height)
	}
	r := &rowReader{ctx: ctx, inflate: inflate, pixel: max(1, samplesPerPixel[p.colourType]*p.bits/8), bytes: p.rowBytes}
	for i := range r.memory {
		r.memory[i] = make([]byte, 1+p.rowBytes(p.width))
	}
	return r, nil
}

// begin starts a picture of rows of width pixels.
func (r *rowReader) begin(width int) {
	n := 1 + r.bytes(width)
	r.current, r.above = r.memory[0][1:n], r.memory[1][1:n]
	clear(r.current) // the row above the first
}

// next makes current the next row, y of height in the picture.
func (r *rowReader) next(y, height int) error {
	if y%16 == 0 && r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	r.memory[0], r.memory[1] = r.memory[1], r.memory[0]
	r.current, r.above = r.above, r.current
	raw := r.memory[0][:1+len(r.current)]
	if _, err := io.ReadFull(r.inflate, raw); err != nil {
		return dataError(err, y, height)
	}
	return unfilter(raw[0], r.current, r.above, r.pixel)
}

// end checks the checksum of the data if the last row ends it. Surplus data
// behind the last row is ignored.
func (r *rowReader) end() error {
	if _, err := io.ReadFull(r.inflate, make([]byte, 1)); errors.Is(err, zlib.ErrChecksum) {
		return picture.Damaged("the checksum of the data in its IDAT chunks is wrong")
	}
	return nil
}

func dataError(err error, y, height int) error {
	var fault *picture.Fault
	switch {
	case errors.As(err, &fault):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return picture.Damaged("the data in its IDAT chunks ends in row %d of %d", y, height)
	}
	return picture.Damaged("the data in its IDAT chunks is wrong (%v) in row %d of %d", cmp.Or(err, io.EOF), y, height)
}

// dataReader reads what consecutive IDAT chunks hold.
type dataReader struct {
	rest  []byte
	chunk []byte
}

func (d *dataReader) Read(out []byte) (int, error) {
	if err := d.fill(); err != nil {
		return 0, err
	}
	n := copy(out, d.chunk)
	d.chunk = d.chunk[n:]
	return n, nil
}

// ReadByte makes d what flate reads without a buffer.
func (d *dataReader) ReadByte() (byte, error) {
	if err := d.fill(); err != nil {
		return 0, err
	}
	b := d.chunk[0]
	d.chunk = d.chunk[1:]
	return b, nil
}

// fill goes on to the next chunk with data if this one is read.
func (d *dataReader) fill() error {
	for len(d.chunk) == 0 {
		chunk, err := nextChunk(d.rest)
		if err != nil || chunk.kind != "IDAT" {
			return cmp.Or(err, io.EOF)
		}
		if !chunk.intact() {
			return picture.Damaged("the checksum of its chunk IDAT is wrong")
		}
		d.chunk, d.rest = chunk.data, d.rest[chunk.size():]
	}
	return nil
}

// unfilter undoes the filter of a row (PNG 3rd edition, 9.2).
func unfilter(filter uint8, row, above []byte, pixel int) error {
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
		return picture.Damaged("a row has the filter type %d, allowed: 0 to 4", filter)
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
