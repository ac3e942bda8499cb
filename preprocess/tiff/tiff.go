// Package tiff reads the first picture of a TIFF or BigTIFF.
package tiff

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/refersam/refersam/preprocess/exif"
	"github.com/refersam/refersam/preprocess/picture"
)

// Values of the tags Compression, PhotometricInterpretation and ExtraSamples.
const (
	uncompressed          = 1
	compressionLZW        = 5
	compressionDeflate    = 8
	compressionOldDeflate = 32946
	compressionPackBits   = 32773

	whiteIsZero   = 0
	blackIsZero   = 1
	colourRGB     = 2
	colourPalette = 3
	colourInks    = 5

	extraUnspecified   = 0
	extraPremultiplied = 1
	extraAlpha         = 2
	extraAlphaOfCorel  = 999 // what Corel Draw 10 writes for alpha
)

var compressionNames = map[uint64]string{
	2: "CCITT compression", 3: "fax compression (CCITT group 3)", 4: "fax compression (CCITT group 4)",
	6: "JPEG compression of the old kind", 7: "JPEG compression", 32771: "compression 32771 (CCITT with word alignment)",
	32809: "ThunderScan compression", 34676: "SGI Log compression", 34677: "SGI Log compression", 34712: "JPEG 2000 compression",
	34925: "LZMA compression", 50000: "Zstandard compression", 50001: "WebP compression", 50002: "JPEG XL compression",
}

var colourNames = map[uint64]string{
	4: "a transparency mask", 6: "YCbCr colours", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours",
	32803: "pixels of a colour filter array", 32844: "LogL pixels", 32845: "LogLuv colours", 34892: "linear raw pixels",
}

// source is the first picture of a file, as its directory describes it.
type source struct {
	*exif.Directory
	data          []byte
	width, height int
	orientation   picture.Orientation
	frames        int
	compression   uint64
	colours       uint64
	// bits is the depth of each of the samples. extra are those behind the colours.
	bits, samples int
	extra         []uint64
	// reversed says that the lowest bit of a byte comes first.
	reversed bool
	// planes is how many planes hold the samples: 1 if they are interleaved.
	planes     int
	planar     bool // says the tag, even of one sample
	difference bool // samples are stored as differences from the pixel before
	// Strips are blocks as wide as the picture. blockHeight counts rows.
	tiled                   bool
	blockWidth, blockHeight int
	across, down            int
	offsets, counts         exif.Entry
	// single is the colour of each value of the only sample that matters.
	single [256][3]uint8
}

// Open reads the first directory of a TIFF or BigTIFF: grey of 1, 2, 4, 8 or
// 16 bits, RGB of 8 or 16, palettes of 1 to 8 and CMYK of 8, with or without
// alpha and other samples, in strips or tiles, interleaved or in planes, not
// compressed or with LZW, Deflate or PackBits.
func Open(data []byte, limits picture.Limits) (picture.Source, error) {
	if string(data[:4]) == exif.BigTIFFBigEndian {
		return nil, picture.Unsupported("BigTIFF with the highest byte first")
	}
	dir, err := exif.ReadDirectory(data, true)
	if err != nil {
		return nil, err
	}
	if dir.CutOff {
		return nil, picture.CutOff("its directory, or a value in it, ends behind the end of the file")
	}
	p := &source{Directory: dir, data: data}
	// The limits come before what the size makes of other tags.
	checkSize := func() error { return limits.Check(p.width, p.height) }
	for _, read := range []func() error{p.readSize, checkSize, p.readSamples, p.readColours, p.readBlocks} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	var ok bool
	if p.orientation, ok = dir.Orientation(); !ok {
		p.orientation = exif.XMPOrientation(dir.Entries[exif.TagXMP].Value)
	}
	p.frames = max(1, exif.CountDirectories(data, limits.MaxFrames+1))
	return p, nil
}

func (p *source) Header() picture.Header {
	h := picture.Header{
		Width:         p.width,
		Height:        p.height,
		Orientation:   p.orientation,
		Frames:        p.frames,
		InOrder:       true,
		BytesPerPixel: 3,
		Overhead:      p.bandBytes() + 3*int64(p.width),
		PixelCost:     picture.CostTIFFPacked,
	}
	if p.compression == uncompressed {
		h.PixelCost = picture.CostTIFF
	}
	return h
}

// number returns the only value of a tag, or without as fallback.
func (p *source) number(tag uint16, without uint64) (uint64, error) {
	e, err := p.List(tag)
	if err != nil || e.Count == 0 {
		return without, err
	}
	return p.At(e, 0), nil
}

// numbers returns the values of a tag, at most eight.
func (p *source) numbers(tag uint16) ([]uint64, error) {
	const most = 8
	e, err := p.List(tag)
	if err != nil {
		return nil, err
	}
	if e.Count > most {
		return nil, picture.Unsupported("%d samples a pixel", e.Count)
	}
	var values []uint64
	for i := range e.Count {
		values = append(values, p.At(e, i))
	}
	return values, nil
}

func (p *source) readSize() error {
	if _, ok := p.Entries[exif.TagWindowsPhoto]; ok {
		return picture.Unsupported("HD Photo compression")
	}
	for tag, side := range map[uint16]*int{exif.TagWidth: &p.width, exif.TagHeight: &p.height} {
		value, err := p.number(tag, 0)
		if err != nil {
			return err
		}
		if value > picture.MaxSide {
			return picture.Damaged("its %s is %d", exif.TagNames[tag], value)
		}
		*side = int(value)
	}
	if p.width == 0 || p.height == 0 {
		return picture.Damaged("it claims to be %d×%d pixels", p.width, p.height)
	}
	return nil
}

func (p *source) readSamples() error {
	values := make(map[uint16]uint64)
	for tag, without := range map[uint16]uint64{
		exif.TagCompression: uncompressed, exif.TagFillOrder: 1, exif.TagPlanar: 1, exif.TagPredictor: 1, exif.TagSamplesPerPixel: 1,
	} {
		value, err := p.number(tag, without)
		if err != nil {
			return err
		}
		values[tag] = value
	}
	switch p.compression = values[exif.TagCompression]; p.compression {
	case uncompressed, compressionLZW, compressionDeflate, compressionOldDeflate, compressionPackBits:
	default:
		if name := compressionNames[p.compression]; name != "" {
			return picture.Unsupported("%s", name)
		}
		return picture.Unsupported("compression %d", p.compression)
	}

	const mostSamples = 6
	if n := values[exif.TagSamplesPerPixel]; n < 1 || n > mostSamples {
		return picture.Unsupported("%d samples a pixel", n)
	}
	p.samples = int(values[exif.TagSamplesPerPixel])
	depths, err := p.numbers(exif.TagBitsPerSample)
	if err != nil {
		return err
	}
	switch {
	case len(depths) == 0:
		depths = []uint64{1}
	case len(depths) > p.samples:
		depths = depths[:p.samples]
	}
	if len(depths) > 1 && len(depths) < p.samples {
		return picture.Damaged("it has %d samples a pixel and the depths of %d", p.samples, len(depths))
	}
	for _, depth := range depths {
		if depth != depths[0] {
			return picture.Unsupported("samples of %d and of %d bits", depths[0], depth)
		}
	}
	switch depths[0] {
	case 1, 2, 4, 8, 16:
		p.bits = int(depths[0])
	case 0:
		return picture.Damaged("it has 0 bits a sample")
	default:
		return picture.Unsupported("%d bits a sample", depths[0])
	}

	kinds, err := p.numbers(exif.TagSampleFormat)
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		if kind != 1 {
			return picture.Unsupported("samples of format %d (%s)", kind, map[uint64]string{
				2: "signed integers", 3: "floating point", 4: "undefined", 5: "complex integers", 6: "complex floating point",
			}[kind])
		}
	}
	if p.extra, err = p.numbers(exif.TagExtraSamples); err != nil {
		return err
	}

	switch order := values[exif.TagFillOrder]; order {
	case 1:
	case 2:
		p.reversed = true
	default:
		return picture.Damaged("its FillOrder is %d, allowed: 1 and 2", order)
	}
	switch planar := values[exif.TagPlanar]; planar {
	case 1:
		p.planes = 1
	case 2:
		p.planes, p.planar = p.samples, true
	default:
		return picture.Damaged("its PlanarConfiguration is %d, allowed: 1 and 2", planar)
	}
	// Only these two compressions work on differences.
	if p.compression == compressionLZW || p.compression == compressionDeflate || p.compression == compressionOldDeflate {
		switch predictor := values[exif.TagPredictor]; predictor {
		case 1:
		case 2:
			if p.bits < 8 {
				return picture.Unsupported("a predictor with %d bits a sample", p.bits)
			}
			p.difference = true
		case 3:
			return picture.Unsupported("the floating point predictor")
		default:
			return picture.Damaged("its Predictor is %d, allowed: 1 to 3", predictor)
		}
	}
	return nil
}

// readColours checks that the samples are of a kind that is read, and fills
// single.
func (p *source) readColours() error {
	var err error
	if p.colours, err = p.number(exif.TagPhotometric, whiteIsZero); err != nil {
		return err
	}
	colours := 1
	switch p.colours {
	case whiteIsZero, blackIsZero, colourPalette:
	case colourRGB:
		colours = 3
	case colourInks:
		colours = 4
	default:
		if name := colourNames[p.colours]; name != "" {
			return picture.Unsupported("%s", name)
		}
		return picture.Unsupported("colours of kind %d (PhotometricInterpretation)", p.colours)
	}
	if p.samples < colours {
		return picture.Damaged("it has %d samples a pixel where its colours need %d", p.samples, colours)
	}
	if colours > 1 && p.bits < 8 {
		return picture.Unsupported("colours of %d bits a sample", p.bits)
	}
	if colours == 4 && p.bits > 8 {
		return picture.Unsupported("CMYK of %d bits a sample", p.bits)
	}
	if err := p.checkExtra(colours); err != nil {
		return err
	}
	switch {
	case p.colours == whiteIsZero && p.bits == 16:
		return picture.Unsupported("grey of 16 bits where 0 is white")
	case p.colours == colourPalette && p.bits > 8:
		return picture.Unsupported("a palette of %d bits", p.bits)
	case p.colours == colourPalette:
		return p.readPalette()
	case colours == 1:
		most := 1<<min(p.bits, 8) - 1
		for value := range most + 1 {
			grey := uint8(value * 255 / most)
			if p.colours == whiteIsZero {
				grey = 255 - grey
			}
			p.single[value] = [3]uint8{grey, grey, grey}
		}
	}
	return nil
}

// checkExtra looks at the samples behind the colours: alpha and what else a
// program puts there.
func (p *source) checkExtra(colours int) error {
	behind := p.samples - colours
	switch {
	case behind == 1 && colours == 3 && len(p.extra) == 0:
		p.extra = []uint64{extraAlpha} // the tag is missing
	case len(p.extra) != behind:
		return picture.Damaged("it has %d samples behind its colours and %d values of ExtraSamples", behind, len(p.extra))
	}
	for i, kind := range p.extra {
		ofColours := colours == 3 && i == 0
		switch kind {
		case extraUnspecified:
			continue
		case extraAlpha:
			if i == 0 && colours < 4 {
				continue
			}
		case extraPremultiplied:
			if ofColours {
				continue
			}
			return picture.Unsupported("grey, palette or CMYK colours multiplied by alpha")
		case extraAlphaOfCorel:
			if ofColours && behind == 1 && p.bits == 8 {
				continue
			}
		}
		return picture.Unsupported("a sample of kind %d (ExtraSamples) behind %d colours", kind, colours)
	}
	switch {
	case behind == 0:
	case p.bits < 8 || p.bits > 8 && colours == 1:
		return picture.Unsupported("alpha, or another sample, with colours of %d bits", p.bits)
	case behind > 1 && (p.bits > 8 || colours == 1):
		return picture.Unsupported("%d samples behind %d colours of %d bits", behind, colours, p.bits)
	case p.colours == whiteIsZero:
		return picture.Unsupported("alpha, or another sample, with grey where 0 is white")
	}
	if err := p.checkPlanes(colours); err != nil {
		return err
	}
	if p.reversed && (behind > 0 || colours == 4 || p.bits > 8 && (colours > 1 || p.Order == binary.ByteOrder(binary.BigEndian))) {
		return picture.Unsupported("FillOrder 2 with %d samples of %d bits", p.samples, p.bits)
	}
	return nil
}

// checkPlanes refuses the planes, and samples of one kind more, that Pillow
// refuses or takes for something else.
func (p *source) checkPlanes(colours int) error {
	behind := p.samples - colours
	switch {
	case p.compression != uncompressed:
		if p.planar && behind > 1 {
			return picture.Unsupported("planes (PlanarConfiguration 2) with %d samples behind the colours", behind)
		}
		return nil
	case p.reversed && p.colours == colourPalette && p.bits == 2:
		return picture.Unsupported("FillOrder 2 with a palette of 2 bits")
	case !p.planar:
		return nil
	}
	plain := p.bits == 8 && p.colours != whiteIsZero || p.bits == 1 && p.colours == blackIsZero
	onlyAlpha := behind == 0 || behind == 1 && p.extra[0] == extraAlpha && p.colours != colourPalette
	if !plain || !onlyAlpha || p.reversed {
		order := 1
		if p.reversed {
			order = 2
		}
		return picture.Unsupported("planes (PlanarConfiguration 2) of %d bits with %d samples behind the colours, FillOrder %d and "+
			"PhotometricInterpretation %d, not compressed", p.bits, behind, order, p.colours)
	}
	return nil
}

// readPalette takes the high bytes of the 16 bits that a palette has.
func (p *source) readPalette() error {
	colours, err := p.List(exif.TagColorMap)
	if err != nil {
		return err
	}
	n := 1 << p.bits
	if colours.Count != 3*n {
		return picture.Damaged("its palette has %d values, not %d", colours.Count, 3*n)
	}
	for i := range n {
		for c := range 3 {
			p.single[i][c] = uint8(p.At(colours, c*n+i) >> 8)
		}
	}
	return nil
}

// readBlocks finds the strips or tiles.
func (p *source) readBlocks() error {
	_, tiles := p.Entries[exif.TagTileOffsets]
	_, strips := p.Entries[exif.TagStripOffsets]
	var err error
	switch {
	case tiles && strips:
		return picture.Damaged("it has both strips and tiles")
	case !tiles && !strips:
		return picture.Damaged("it has neither strips nor tiles")
	case tiles:
		err = p.readTiles()
	default:
		err = p.readStrips()
	}
	if err != nil {
		return err
	}
	p.across = (p.width + p.blockWidth - 1) / p.blockWidth
	p.down = (p.height + p.blockHeight - 1) / p.blockHeight
	kind := "strips"
	if p.tiled {
		kind = "tiles"
	}
	n := int64(p.across) * int64(p.down) * int64(p.planes)
	if int64(p.offsets.Count) != n {
		return picture.Damaged("it has %d %s where its size needs %d", p.offsets.Count, kind, n)
	}
	if p.compression == uncompressed {
		return nil
	}
	if int64(p.counts.Count) != n {
		return picture.Damaged("it has the lengths of %d %s and %d of them", p.counts.Count, kind, n)
	}
	// Blocks that lie over one another would make a small file much work.
	const most = 4
	claimed := uint64(0)
	for i := range p.counts.Count {
		claimed += min(p.At(p.counts, i), uint64(len(p.data)))
	}
	if claimed > most*uint64(len(p.data)) {
		return picture.Damaged("its %s claim %d bytes and the file has %d", kind, claimed, len(p.data))
	}
	return nil
}

func (p *source) readTiles() error {
	const (
		least = 16
		most  = 1024 // the side of a tile that may be larger than the picture
	)
	width, err := p.number(exif.TagTileWidth, 0)
	if err != nil {
		return err
	}
	height, err := p.number(exif.TagTileHeight, 0)
	if err != nil {
		return err
	}
	if width < least || height < least || width%least != 0 || height%least != 0 {
		return picture.Damaged("its tiles are %d×%d pixels; sides must be multiples of 16", width, height)
	}
	if width > picture.MaxSide || height > picture.MaxSide || width*height > max(most*most, uint64(p.width+least)*uint64(p.height+least)) {
		return picture.Damaged("its tiles of %d×%d pixels are larger than the picture", width, height)
	}
	p.tiled, p.blockWidth, p.blockHeight = true, int(width), int(height)
	if p.offsets, err = p.List(exif.TagTileOffsets); err != nil {
		return err
	}
	p.counts, err = p.List(exif.TagTileCounts)
	return err
}

func (p *source) readStrips() error {
	rows, err := p.number(exif.TagRowsPerStrip, uint64(p.height))
	if err != nil {
		return err
	}
	if rows == 0 {
		return picture.Damaged("its strips have 0 rows")
	}
	p.blockWidth, p.blockHeight = p.width, int(min(rows, uint64(p.height)))
	if p.offsets, err = p.List(exif.TagStripOffsets); err != nil {
		return err
	}
	p.counts, err = p.List(exif.TagStripCounts)
	return err
}

// interleaved is how many samples of a pixel a block holds.
func (p *source) interleaved() int {
	if p.planes > 1 {
		return 1
	}
	return p.samples
}

// rowBytes is the size of a row of a block.
func (p *source) rowBytes() int {
	return int((int64(p.blockWidth)*int64(p.interleaved()*p.bits) + 7) / 8)
}

// usedPlanes leaves out planes of samples that no colour needs.
func (p *source) usedPlanes() int {
	if p.planes == 1 {
		return 1
	}
	return p.channels()
}

// channels is how many samples of a pixel make its colour.
func (p *source) channels() int {
	switch {
	case p.colours == colourInks || p.premultiplied():
		return 4
	case p.colours == colourRGB:
		return 3
	}
	return 1
}

func (p *source) premultiplied() bool {
	return p.colours == colourRGB && len(p.extra) > 0 && p.extra[0] == extraPremultiplied
}

// bandBytes is the memory for the blocks that make blockHeight rows, and for a
// copy of the compressed data of one.
func (p *source) bandBytes() int64 {
	if p.compression == uncompressed && !p.reversed {
		return 0 // blocks are parts of the file
	}
	band := int64(p.usedPlanes()) * int64(p.across) * int64(p.blockHeight) * int64(p.rowBytes())
	if p.reversed {
		band += int64(len(p.data))
	}
	return band
}

// Decode decodes block after block and draws the rows from the top.
func (p *source) Decode(ctx context.Context, _ int, draw picture.Draw) error {
	stride := p.rowBytes()
	blocks := make([][]byte, p.usedPlanes()*p.across)
	unpacker := &unpacker{reversed: p.reversed}
	rgb := make([]uint8, 3*p.width)
	line := p.newLine()
	for band := range p.down {
		top := band * p.blockHeight
		bottom := min(top+p.blockHeight, p.height)
		stored := bottom - top
		if p.tiled {
			stored = p.blockHeight
		}
		for i := range blocks {
			if err := ctx.Err(); err != nil {
				return err
			}
			plane, column := i/p.across, i%p.across
			n := (plane*p.down+band)*p.across + column
			block, err := p.block(unpacker, blocks[i], n, stored*stride)
			if err != nil {
				return err
			}
			if p.difference {
				p.undoDifference(block, stride)
			}
			blocks[i] = block
		}
		for y := top; y < bottom; y++ {
			for column := range p.across {
				from := column * p.blockWidth
				to := min(from+p.blockWidth, p.width)
				for plane := range p.usedPlanes() {
					line.pieces[plane] = blocks[plane*p.across+column][(y-top)*stride:][:stride]
				}
				line.convert(rgb[3*from : 3*to])
			}
			draw(0, y, rgb)
		}
	}
	return nil
}

// block returns size bytes of block n, in the memory of reuse where it needs
// any.
func (p *source) block(u *unpacker, reuse []byte, n, size int) ([]byte, error) {
	length := uint64(size) // what is not compressed is as long as its pixels, whatever the tag says
	if p.compression != uncompressed {
		length = p.At(p.counts, n)
	}
	offset, total := p.At(p.offsets, n), uint64(len(p.data))
	if offset > total || length > total-offset {
		return nil, picture.CutOff("the data of block %d ends at byte %d and the file has %d", n, offset+length, total)
	}
	packed := p.data[offset : offset+length]
	if p.compression == uncompressed && !p.reversed {
		return packed, nil
	}
	if cap(reuse) < size {
		reuse = make([]byte, size)
	}
	out := reuse[:size]
	if err := u.unpack(out, packed, p.compression); err != nil {
		return nil, fmt.Errorf("block %d: %w", n, err)
	}
	return out, nil
}

// undoDifference adds to each sample the one of the pixel before (TIFF 6.0,
// section 14).
func (p *source) undoDifference(block []byte, stride int) {
	step := p.interleaved()
	for ; len(block) >= stride; block = block[stride:] {
		row := block[:stride]
		if p.bits == 8 {
			for i := step; i < len(row); i++ {
				row[i] += row[i-step]
			}
			continue
		}
		for i := 2 * step; i+1 < len(row); i += 2 {
			p.Order.PutUint16(row[i:], p.Order.Uint16(row[i:])+p.Order.Uint16(row[i-2*step:]))
		}
	}
}

// line converts pieces of rows to RGB.
type line struct {
	*source
	// pieces are the bytes of the piece at hand, of each plane that is used.
	pieces [4][]byte
	values []uint8 // of single samples with less than 8 bits
	cmyk   []uint8
}

func (p *source) newLine() *line {
	l := &line{source: p}
	if p.bits < 8 {
		l.values = make([]uint8, p.blockWidth)
	}
	if p.colours == colourInks {
		l.cmyk = make([]uint8, 4*p.blockWidth)
	}
	return l
}

// channel returns where the values of a sample begin and how far apart they
// are. Of 16 bits the high byte counts.
func (l *line) channel(c int) (values []byte, step int) {
	size, high := l.bits/8, 0
	if l.bits == 16 && l.Order == binary.ByteOrder(binary.LittleEndian) {
		high = 1
	}
	if l.planes > 1 {
		return l.pieces[c][high:], size
	}
	return l.pieces[0][c*size+high:], size * l.samples
}

// convert makes len(rgb)/3 pixels.
func (l *line) convert(rgb []uint8) {
	n := len(rgb) / 3
	if l.bits < 8 {
		perByte, mask := 8/l.bits, uint8(1<<l.bits-1)
		for x := range n {
			shift := 8 - l.bits*(x%perByte+1)
			l.values[x] = l.pieces[0][x/perByte] >> shift & mask
		}
		l.lookUp(rgb, l.values, 1)
		return
	}
	switch l.colours {
	case colourInks:
		for c := range 4 {
			values, step := l.channel(c)
			for x := range n {
				l.cmyk[4*x+c] = values[x*step]
			}
		}
		picture.CMYKToRGB(rgb, l.cmyk)
	case colourRGB:
		red, step := l.channel(0)
		green, _ := l.channel(1)
		blue, _ := l.channel(2)
		for x := range n {
			i := x * step
			rgb[3*x], rgb[3*x+1], rgb[3*x+2] = red[i], green[i], blue[i]
		}
		if l.premultiplied() {
			alpha, step := l.channel(3)
			for i := range rgb {
				rgb[i] = divideByAlpha(rgb[i], alpha[i/3*step])
			}
		}
	default:
		values, step := l.channel(0)
		l.lookUp(rgb, values, step)
	}
}

func (l *line) lookUp(rgb, values []uint8, step int) {
	for x := range len(rgb) / 3 {
		copy(rgb[3*x:3*x+3], l.single[values[x*step]][:])
	}
}

// divideByAlpha gives a colour back what alpha took from it, as Pillow does:
// black where alpha is 0.
func divideByAlpha(colour, alpha uint8) uint8 {
	if alpha == 0 {
		return 0
	}
	return uint8(min(255*int(colour)/int(alpha), 255))
}
