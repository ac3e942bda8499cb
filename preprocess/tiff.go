package preprocess

import (
	"context"
	"encoding/binary"
	"fmt"
)

// Values of the tags Compression, PhotometricInterpretation and ExtraSamples.
const (
	tiffUncompressed = 1
	tiffLZW          = 5
	tiffDeflate      = 8
	tiffOldDeflate   = 32946
	tiffPackBits     = 32773

	whiteIsZero = 0
	blackIsZero = 1
	tiffRGB     = 2
	tiffPalette = 3
	tiffInks    = 5

	extraUnspecified   = 0
	extraPremultiplied = 1
	extraAlpha         = 2
	extraAlphaOfCorel  = 999 // what Corel Draw 10 writes for alpha
)

var tiffCompressions = map[uint64]string{
	2: "CCITT compression", 3: "fax compression (CCITT group 3)", 4: "fax compression (CCITT group 4)",
	6: "JPEG compression of the old kind", 7: "JPEG compression", 32771: "compression 32771 (CCITT with word alignment)",
	32809: "ThunderScan compression", 34676: "SGI Log compression", 34677: "SGI Log compression", 34712: "JPEG 2000 compression",
	34925: "LZMA compression", 50000: "Zstandard compression", 50001: "WebP compression", 50002: "JPEG XL compression",
}

var tiffColours = map[uint64]string{
	4: "a transparency mask", 6: "YCbCr colours", 8: "CIE L*a*b* colours", 9: "ICC L*a*b* colours", 10: "ITU L*a*b* colours",
	32803: "pixels of a colour filter array", 32844: "LogL pixels", 32845: "LogLuv colours", 34892: "linear raw pixels",
}

// tiffPicture is the first picture of a file, as its directory describes it.
type tiffPicture struct {
	*directory
	data          []byte
	width, height int
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
	offsets, counts         entry
	// single is the colour of each value of the only sample that matters.
	single [256][3]uint8
}

// openTIFF takes the first picture of a TIFF or BigTIFF: grey of 1, 2, 4, 8 or
// 16 bits, RGB of 8 or 16, palettes of 1 to 8 and CMYK of 8, with or without
// alpha and other samples, in strips or tiles, interleaved or in planes, not
// compressed or with LZW, Deflate or PackBits.
func openTIFF(data []byte, options *Config) (*source, error) {
	if string(data[:4]) == bigTIFFBigEndian {
		return nil, unsupported("BigTIFF with the highest byte first")
	}
	dir, err := readDirectory(data, true)
	if err != nil {
		return nil, err
	}
	if dir.cutOff {
		return nil, cutOff("its directory, or a value in it, ends behind the end of the file")
	}
	p := &tiffPicture{directory: dir, data: data}
	// The limits come before what the size makes of other tags.
	checkSize := func() error { return options.checkSize(p.width, p.height) }
	for _, read := range []func() error{p.readSize, checkSize, p.readSamples, p.readColours, p.readBlocks} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	direction, ok := dir.orientation()
	if !ok {
		direction = xmpOrientation(dir.entries[tagXMP].value)
	}
	src := &source{
		width:         p.width,
		height:        p.height,
		orientation:   direction,
		bytesPerPixel: 3,
		pixelCost:     costTIFFPacked,
		frames:        max(1, tiffDirectories(data, options.MaxFrames+1)),
		overhead:      p.bandBytes() + 3*int64(p.width),
		rows: func(ctx context.Context, _ int, row func(y int, rgb []uint8)) error {
			return p.rows(ctx, row)
		},
	}
	if p.compression == tiffUncompressed {
		src.pixelCost = costTIFF
	}
	return src, nil
}

// number returns the only value of a tag, or without as fallback.
func (p *tiffPicture) number(tag uint16, without uint64) (uint64, error) {
	e, err := p.list(tag)
	if err != nil || e.count == 0 {
		return without, err
	}
	return p.at(e, 0), nil
}

// numbers returns the values of a tag, at most eight.
func (p *tiffPicture) numbers(tag uint16) ([]uint64, error) {
	const most = 8
	e, err := p.list(tag)
	if err != nil {
		return nil, err
	}
	if e.count > most {
		return nil, unsupported("%d samples a pixel", e.count)
	}
	var values []uint64
	for i := range e.count {
		values = append(values, p.at(e, i))
	}
	return values, nil
}

func (p *tiffPicture) readSize() error {
	if _, ok := p.entries[tagWindowsPhoto]; ok {
		return unsupported("HD Photo compression")
	}
	for tag, side := range map[uint16]*int{tagWidth: &p.width, tagHeight: &p.height} {
		value, err := p.number(tag, 0)
		if err != nil {
			return err
		}
		if value > maxSide {
			return damaged("its %s is %d", tagNames[tag], value)
		}
		*side = int(value)
	}
	if p.width == 0 || p.height == 0 {
		return damaged("it claims to be %d×%d pixels", p.width, p.height)
	}
	return nil
}

func (p *tiffPicture) readSamples() error {
	values := make(map[uint16]uint64)
	for tag, without := range map[uint16]uint64{
		tagCompression: tiffUncompressed, tagFillOrder: 1, tagPlanar: 1, tagPredictor: 1, tagSamplesPerPixel: 1,
	} {
		value, err := p.number(tag, without)
		if err != nil {
			return err
		}
		values[tag] = value
	}
	switch p.compression = values[tagCompression]; p.compression {
	case tiffUncompressed, tiffLZW, tiffDeflate, tiffOldDeflate, tiffPackBits:
	default:
		if name := tiffCompressions[p.compression]; name != "" {
			return unsupported("%s", name)
		}
		return unsupported("compression %d", p.compression)
	}

	const mostSamples = 6
	if n := values[tagSamplesPerPixel]; n < 1 || n > mostSamples {
		return unsupported("%d samples a pixel", n)
	}
	p.samples = int(values[tagSamplesPerPixel])
	depths, err := p.numbers(tagBitsPerSample)
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
		return damaged("it has %d samples a pixel and the depths of %d", p.samples, len(depths))
	}
	for _, depth := range depths {
		if depth != depths[0] {
			return unsupported("samples of %d and of %d bits", depths[0], depth)
		}
	}
	switch depths[0] {
	case 1, 2, 4, 8, 16:
		p.bits = int(depths[0])
	case 0:
		return damaged("it has 0 bits a sample")
	default:
		return unsupported("%d bits a sample", depths[0])
	}

	kinds, err := p.numbers(tagSampleFormat)
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		if kind != 1 {
			return unsupported("samples of format %d (%s)", kind, map[uint64]string{
				2: "signed integers", 3: "floating point", 4: "undefined", 5: "complex integers", 6: "complex floating point",
			}[kind])
		}
	}
	if p.extra, err = p.numbers(tagExtraSamples); err != nil {
		return err
	}

	switch order := values[tagFillOrder]; order {
	case 1:
	case 2:
		p.reversed = true
	default:
		return damaged("its FillOrder is %d, allowed: 1 and 2", order)
	}
	switch planar := values[tagPlanar]; planar {
	case 1:
		p.planes = 1
	case 2:
		p.planes, p.planar = p.samples, true
	default:
		return damaged("its PlanarConfiguration is %d, allowed: 1 and 2", planar)
	}
	// Only these two compressions work on differences.
	if p.compression == tiffLZW || p.compression == tiffDeflate || p.compression == tiffOldDeflate {
		switch predictor := values[tagPredictor]; predictor {
		case 1:
		case 2:
			if p.bits < 8 {
				return unsupported("a predictor with %d bits a sample", p.bits)
			}
			p.difference = true
		case 3:
			return unsupported("the floating point predictor")
		default:
			return damaged("its Predictor is %d, allowed: 1 to 3", predictor)
		}
	}
	return nil
}

// readColours checks that the samples are of a kind that is read, and fills
// single.
func (p *tiffPicture) readColours() error {
	var err error
	if p.colours, err = p.number(tagPhotometric, whiteIsZero); err != nil {
		return err
	}
	colours := 1
	switch p.colours {
	case whiteIsZero, blackIsZero, tiffPalette:
	case tiffRGB:
		colours = 3
	case tiffInks:
		colours = 4
	default:
		if name := tiffColours[p.colours]; name != "" {
			return unsupported("%s", name)
		}
		return unsupported("colours of kind %d (PhotometricInterpretation)", p.colours)
	}
	if p.samples < colours {
		return damaged("it has %d samples a pixel where its colours need %d", p.samples, colours)
	}
	if colours > 1 && p.bits < 8 {
		return unsupported("colours of %d bits a sample", p.bits)
	}
	if colours == 4 && p.bits > 8 {
		return unsupported("CMYK of %d bits a sample", p.bits)
	}
	if err := p.checkExtra(colours); err != nil {
		return err
	}
	switch {
	case p.colours == whiteIsZero && p.bits == 16:
		return unsupported("grey of 16 bits where 0 is white")
	case p.colours == tiffPalette && p.bits > 8:
		return unsupported("a palette of %d bits", p.bits)
	case p.colours == tiffPalette:
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
func (p *tiffPicture) checkExtra(colours int) error {
	behind := p.samples - colours
	switch {
	case behind == 1 && colours == 3 && len(p.extra) == 0:
		p.extra = []uint64{extraAlpha} // the tag is missing
	case len(p.extra) != behind:
		return damaged("it has %d samples behind its colours and %d values of ExtraSamples", behind, len(p.extra))
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
			return unsupported("grey, palette or CMYK colours multiplied by alpha")
		case extraAlphaOfCorel:
			if ofColours && behind == 1 && p.bits == 8 {
				continue
			}
		}
		return unsupported("a sample of kind %d (ExtraSamples) behind %d colours", kind, colours)
	}
	switch {
	case behind == 0:
	case p.bits < 8 || p.bits > 8 && colours == 1:
		return unsupported("alpha, or another sample, with colours of %d bits", p.bits)
	case behind > 1 && (p.bits > 8 || colours == 1):
		return unsupported("%d samples behind %d colours of %d bits", behind, colours, p.bits)
	case p.colours == whiteIsZero:
		return unsupported("alpha, or another sample, with grey where 0 is white")
	}
	if err := p.checkPlanes(colours); err != nil {
		return err
	}
	if p.reversed && (behind > 0 || colours == 4 || p.bits > 8 && (colours > 1 || p.order == binary.ByteOrder(binary.BigEndian))) {
		return unsupported("FillOrder 2 with %d samples of %d bits", p.samples, p.bits)
	}
	return nil
}

// checkPlanes refuses the planes, and samples of one kind more, that Pillow
// refuses or takes for something else.
func (p *tiffPicture) checkPlanes(colours int) error {
	behind := p.samples - colours
	switch {
	case p.compression != tiffUncompressed:
		if p.planar && behind > 1 {
			return unsupported("planes (PlanarConfiguration 2) with %d samples behind the colours", behind)
		}
		return nil
	case p.reversed && p.colours == tiffPalette && p.bits == 2:
		return unsupported("FillOrder 2 with a palette of 2 bits")
	case !p.planar:
		return nil
	}
	whole := p.bits == 8 && p.colours != whiteIsZero || p.bits == 1 && p.colours == blackIsZero
	onlyAlpha := behind == 0 || behind == 1 && p.extra[0] == extraAlpha && p.colours != tiffPalette
	if !whole || !onlyAlpha || p.reversed {
		order := 1
		if p.reversed {
			order = 2
		}
		return unsupported("planes (PlanarConfiguration 2) of %d bits with %d samples behind the colours, FillOrder %d and "+
			"PhotometricInterpretation %d, not compressed", p.bits, behind, order, p.colours)
	}
	return nil
}

// readPalette takes the high bytes of the 16 bits that a palette has.
func (p *tiffPicture) readPalette() error {
	colours, err := p.list(tagColorMap)
	if err != nil {
		return err
	}
	n := 1 << p.bits
	if colours.count != 3*n {
		return damaged("its palette has %d values, not %d", colours.count, 3*n)
	}
	for i := range n {
		for c := range 3 {
			p.single[i][c] = uint8(p.at(colours, c*n+i) >> 8)
		}
	}
	return nil
}

// readBlocks finds the strips or tiles.
func (p *tiffPicture) readBlocks() error {
	_, tiles := p.entries[tagTileOffsets]
	_, strips := p.entries[tagStripOffsets]
	var err error
	switch {
	case tiles && strips:
		return damaged("it has both strips and tiles")
	case !tiles && !strips:
		return damaged("it has neither strips nor tiles")
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
	if int64(p.offsets.count) != n {
		return damaged("it has %d %s where its size needs %d", p.offsets.count, kind, n)
	}
	if p.compression == tiffUncompressed {
		return nil
	}
	if int64(p.counts.count) != n {
		return damaged("it has the lengths of %d %s and %d of them", p.counts.count, kind, n)
	}
	// Blocks that lie over one another would make a small file much work.
	const most = 4
	claimed := uint64(0)
	for i := range p.counts.count {
		claimed += min(p.at(p.counts, i), uint64(len(p.data)))
	}
	if claimed > most*uint64(len(p.data)) {
		return damaged("its %s claim %d bytes and the file has %d", kind, claimed, len(p.data))
	}
	return nil
}

func (p *tiffPicture) readTiles() error {
	const (
		least = 16
		most  = 1024 // the side of a tile that may be larger than the picture
	)
	width, err := p.number(tagTileWidth, 0)
	if err != nil {
		return err
	}
	height, err := p.number(tagTileHeight, 0)
	if err != nil {
		return err
	}
	if width < least || height < least || width%least != 0 || height%least != 0 {
		return damaged("its tiles are %d×%d pixels; sides must be multiples of 16", width, height)
	}
	if width > maxSide || height > maxSide || width*height > max(most*most, uint64(p.width+least)*uint64(p.height+least)) {
		return damaged("its tiles of %d×%d pixels are larger than the picture", width, height)
	}
	p.tiled, p.blockWidth, p.blockHeight = true, int(width), int(height)
	if p.offsets, err = p.list(tagTileOffsets); err != nil {
		return err
	}
	p.counts, err = p.list(tagTileCounts)
	return err
}

func (p *tiffPicture) readStrips() error {
	rows, err := p.number(tagRowsPerStrip, uint64(p.height))
	if err != nil {
		return err
	}
	if rows == 0 {
		return damaged("its strips have 0 rows")
	}
	p.blockWidth, p.blockHeight = p.width, int(min(rows, uint64(p.height)))
	if p.offsets, err = p.list(tagStripOffsets); err != nil {
		return err
	}
	p.counts, err = p.list(tagStripCounts)
	return err
}

// interleaved is how many samples of a pixel a block holds.
func (p *tiffPicture) interleaved() int {
	if p.planes > 1 {
		return 1
	}
	return p.samples
}

// rowBytes is the size of a row of a block.
func (p *tiffPicture) rowBytes() int {
	return int((int64(p.blockWidth)*int64(p.interleaved()*p.bits) + 7) / 8)
}

// usedPlanes leaves out planes of samples that no colour needs.
func (p *tiffPicture) usedPlanes() int {
	if p.planes == 1 {
		return 1
	}
	return p.channels()
}

// channels is how many samples of a pixel make its colour.
func (p *tiffPicture) channels() int {
	switch {
	case p.colours == tiffInks || p.premultiplied():
		return 4
	case p.colours == tiffRGB:
		return 3
	}
	return 1
}

func (p *tiffPicture) premultiplied() bool {
	return p.colours == tiffRGB && len(p.extra) > 0 && p.extra[0] == extraPremultiplied
}

// bandBytes is the memory for the blocks that make blockHeight rows, and for a
// copy of the compressed data of one.
func (p *tiffPicture) bandBytes() int64 {
	if p.compression == tiffUncompressed && !p.reversed {
		return 0 // blocks are parts of the file
	}
	band := int64(p.usedPlanes()) * int64(p.across) * int64(p.blockHeight) * int64(p.rowBytes())
	if p.reversed {
		band += int64(len(p.data))
	}
	return band
}

// rows decodes block after block and yields the rows from the top.
func (p *tiffPicture) rows(ctx context.Context, row func(y int, rgb []uint8)) error {
	stride := p.rowBytes()
	blocks := make([][]byte, p.usedPlanes()*p.across)
	unpacker := &tiffUnpacker{reversed: p.reversed}
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
			row(y, rgb)
		}
	}
	return nil
}

// block returns size bytes of block n, in the memory of reuse where it needs
// any.
func (p *tiffPicture) block(u *tiffUnpacker, reuse []byte, n, size int) ([]byte, error) {
	length := uint64(size) // what is not compressed is as long as its pixels, whatever the tag says
	if p.compression != tiffUncompressed {
		length = p.at(p.counts, n)
	}
	offset, total := p.at(p.offsets, n), uint64(len(p.data))
	if offset > total || length > total-offset {
		return nil, cutOff("the data of block %d ends at byte %d and the file has %d", n, offset+length, total)
	}
	packed := p.data[offset : offset+length]
	if p.compression == tiffUncompressed && !p.reversed {
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
func (p *tiffPicture) undoDifference(block []byte, stride int) {
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
			p.order.PutUint16(row[i:], p.order.Uint16(row[i:])+p.order.Uint16(row[i-2*step:]))
		}
	}
}

// tiffLine converts pieces of rows to RGB.
type tiffLine struct {
	*tiffPicture
	// pieces are the bytes of the piece at hand, of each plane that is used.
	pieces [4][]byte
	values []uint8 // of single samples with less than 8 bits
	cmyk   []uint8
}

func (p *tiffPicture) newLine() *tiffLine {
	l := &tiffLine{tiffPicture: p}
	if p.bits < 8 {
		l.values = make([]uint8, p.blockWidth)
	}
	if p.colours == tiffInks {
		l.cmyk = make([]uint8, 4*p.blockWidth)
	}
	return l
}

// channel returns where the values of a sample begin and how far apart they
// are. Of 16 bits the high byte counts.
func (l *tiffLine) channel(c int) (values []byte, step int) {
	size, high := l.bits/8, 0
	if l.bits == 16 && l.order == binary.ByteOrder(binary.LittleEndian) {
		high = 1
	}
	if l.planes > 1 {
		return l.pieces[c][high:], size
	}
	return l.pieces[0][c*size+high:], size * l.samples
}

// convert makes len(rgb)/3 pixels.
func (l *tiffLine) convert(rgb []uint8) {
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
	case tiffInks:
		for c := range 4 {
			values, step := l.channel(c)
			for x := range n {
				l.cmyk[4*x+c] = values[x*step]
			}
		}
		cmykToRGB(rgb, l.cmyk)
	case tiffRGB:
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

func (l *tiffLine) lookUp(rgb, values []uint8, step int) {
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
