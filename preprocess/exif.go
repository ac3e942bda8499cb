package preprocess

import (
	"bytes"
	"encoding/binary"
	"math"
	"regexp"
)

// orientation says how a stored picture is to be turned to stand upright. The
// values are those of the EXIF tag Orientation (EXIF 2.32, 4.6.4); rotations
// are clockwise.
type orientation uint8

const (
	upright        orientation = 1
	flipHorizontal orientation = 2
	rotate180      orientation = 3
	flipVertical   orientation = 4
	transpose      orientation = 5
	rotate90       orientation = 6
	transverse     orientation = 7
	rotate270      orientation = 8
)

// transposed reports whether width and height change places.
func (o orientation) transposed() bool { return o >= transpose }

// exifPrefix comes before the TIFF structure in JPEG, and sometimes in WebP.
const exifPrefix = "Exif\x00\x00"

// metadata is what a file says of its orientation: an EXIF block, with or
// without exifPrefix, and XMP. Either may be nil.
type metadata struct{ exif, xmp []byte }

// orientation follows Pillow's exif_transpose: the tag of the EXIF block counts,
// and XMP where that has none. Broken metadata means upright, because bad
// metadata must not cost a good picture.
func (m metadata) orientation() orientation {
	block := bytes.TrimPrefix(m.exif, []byte(exifPrefix))
	block = bytes.TrimPrefix(block, []byte(exifPrefix))
	if dir, err := readDirectory(block, false); err == nil {
		if o, ok := dir.orientation(); ok {
			return o
		}
	}
	return xmpOrientation(m.xmp)
}

var xmpOrientationRule = regexp.MustCompile(`tiff:Orientation(?:="|>)([0-9])`)

func xmpOrientation(xmp []byte) orientation {
	match := xmpOrientationRule.FindSubmatch(xmp)
	if match == nil {
		return upright
	}
	return validOrientation(float64(match[1][0] - '0'))
}

func validOrientation(value float64) orientation {
	if value >= 1 && value <= 8 && value == math.Trunc(value) {
		return orientation(value)
	}
	return upright
}

// The magic bytes of TIFF and of its 64-bit kind.
const (
	tiffLittleEndian    = "II*\x00"
	tiffBigEndian       = "MM\x00*"
	bigTIFFLittleEndian = "II+\x00"
	bigTIFFBigEndian    = "MM\x00+"
)

// Types of the values in a directory (TIFF 6.0, section 2, and BigTIFF).
const (
	typeByte           = 1
	typeText           = 2
	typeShort          = 3
	typeLong           = 4
	typeRational       = 5
	typeSignedByte     = 6
	typeUndefined      = 7
	typeSignedShort    = 8
	typeSignedLong     = 9
	typeSignedRational = 10
	typeFloat          = 11
	typeDouble         = 12
	typeDirectory      = 13
	typeLong8          = 16
)

// typeSizes are in bytes. Entries of other types are skipped.
var typeSizes = map[uint16]uint64{
	typeByte: 1, typeText: 1, typeShort: 2, typeLong: 4, typeRational: 8, typeSignedByte: 1, typeUndefined: 1,
	typeSignedShort: 2, typeSignedLong: 4, typeSignedRational: 8, typeFloat: 4, typeDouble: 8, typeDirectory: 4, typeLong8: 8,
}

const (
	tagWidth           = 0x0100
	tagHeight          = 0x0101
	tagBitsPerSample   = 0x0102
	tagCompression     = 0x0103
	tagPhotometric     = 0x0106
	tagFillOrder       = 0x010a
	tagStripOffsets    = 0x0111
	tagOrientation     = 0x0112
	tagSamplesPerPixel = 0x0115
	tagRowsPerStrip    = 0x0116
	tagStripCounts     = 0x0117
	tagPlanar          = 0x011c
	tagPredictor       = 0x013d
	tagColorMap        = 0x0140
	tagTileWidth       = 0x0142
	tagTileHeight      = 0x0143
	tagTileOffsets     = 0x0144
	tagTileCounts      = 0x0145
	tagExtraSamples    = 0x0152
	tagSampleFormat    = 0x0153
	tagXMP             = 0x02bc
	tagWindowsPhoto    = 0xbc01
)

// tagNames has all tags that matter here.
var tagNames = map[uint16]string{
	tagWidth: "ImageWidth", tagHeight: "ImageLength", tagBitsPerSample: "BitsPerSample", tagCompression: "Compression",
	tagPhotometric: "PhotometricInterpretation", tagFillOrder: "FillOrder", tagStripOffsets: "StripOffsets",
	tagOrientation: "Orientation", tagSamplesPerPixel: "SamplesPerPixel", tagRowsPerStrip: "RowsPerStrip",
	tagStripCounts: "StripByteCounts", tagPlanar: "PlanarConfiguration", tagPredictor: "Predictor", tagColorMap: "ColorMap",
	tagTileWidth: "TileWidth", tagTileHeight: "TileLength", tagTileOffsets: "TileOffsets", tagTileCounts: "TileByteCounts",
	tagExtraSamples: "ExtraSamples", tagSampleFormat: "SampleFormat", tagXMP: "XMP", tagWindowsPhoto: "HD Photo",
}

// directory is the first directory of a TIFF structure.
type directory struct {
	order   binary.ByteOrder
	entries map[uint16]entry
	// cutOff says that it ends, or has a value, behind the end of the file.
	cutOff bool
}

// entry holds count values as bytes, a part of the file.
type entry struct {
	kind  uint16
	count int
	value []byte
}

// layout is where things are in a TIFF or BigTIFF.
type layout struct {
	order     binary.ByteOrder
	first     int // where the header says where the first directory is
	countSize uint64
	entrySize uint64
	wordSize  int // of an offset, and of a value that stands in its entry
}

// word reads an offset.
func (l *layout) word(b []byte) uint64 {
	if l.wordSize == 8 {
		return l.order.Uint64(b)
	}
	return uint64(l.order.Uint32(b))
}

func (l *layout) entryCount(b []byte) uint64 {
	if l.countSize == 8 {
		return l.order.Uint64(b)
	}
	return uint64(l.order.Uint16(b))
}

// tiffLayout reads the header of a TIFF structure; big allows BigTIFF.
func tiffLayout(tiff []byte, big bool) (*layout, error) {
	l := &layout{first: 4, countSize: 2, entrySize: 12, wordSize: 4}
	isBig := false
	switch string(tiff[:min(4, len(tiff))]) {
	case tiffLittleEndian:
		l.order = binary.LittleEndian
	case tiffBigEndian:
		l.order = binary.BigEndian
	case bigTIFFLittleEndian:
		l.order, isBig = binary.LittleEndian, true
	case bigTIFFBigEndian:
		l.order, isBig = binary.BigEndian, true
	}
	if l.order == nil || isBig && !big {
		return nil, damaged("it has no TIFF header")
	}
	if isBig {
		l.first, l.countSize, l.entrySize, l.wordSize = 8, 8, 20, 8
	}
	if len(tiff) < l.first+l.wordSize {
		return nil, cutOff("its header has only %d bytes", len(tiff))
	}
	return l, nil
}

// readDirectory finds the entries of tagNames in the first directory. It goes
// by Pillow's rules, so that both find the same: of two entries with a tag the
// first counts, entries of unknown types and without values are skipped, and a
// value behind the end of the file ends the directory.
func readDirectory(tiff []byte, big bool) (*directory, error) {
	l, err := tiffLayout(tiff, big)
	if err != nil {
		return nil, err
	}
	size := uint64(len(tiff))
	offset := l.word(tiff[l.first:])
	if offset >= size || size-offset < l.countSize {
		return nil, cutOff("its directory is at byte %d and the file has %d", offset, size)
	}
	dir := &directory{order: l.order, entries: make(map[uint16]entry)}
	rest := tiff[offset+l.countSize:]
	outside := uint64(0) // bytes of values that do not stand in their entries
	for n := l.entryCount(tiff[offset:]); n > 0; n-- {
		if uint64(len(rest)) < l.entrySize {
			dir.cutOff = true
			break
		}
		raw := rest[:l.entrySize]
		rest = rest[l.entrySize:]
		tag, kind := l.order.Uint16(raw), l.order.Uint16(raw[2:])
		count := l.word(raw[4:])
		unit := typeSizes[kind]
		if unit == 0 || count == 0 {
			continue
		}
		value := raw[4+l.wordSize:]
		if _, duplicate := dir.entries[tag]; duplicate {
			continue
		}
		bytes := min(count, size/unit+1) * unit // no more than the check below needs
		if bytes > uint64(l.wordSize) {
			if outside = min(outside+bytes, size+1); outside > size {
				continue
			}
			at := l.word(value)
			if at > size || size-at < bytes {
				dir.cutOff = true
				break
			}
			value = tiff[at:]
		}
		if tagNames[tag] != "" {
			dir.entries[tag] = entry{kind, int(count), value[:bytes]}
		}
	}
	return dir, nil
}

// orientation returns the tag Orientation, upright for a value that it cannot
// have.
func (d *directory) orientation() (orientation, bool) {
	e, ok := d.entries[tagOrientation]
	if !ok {
		return upright, false
	}
	return validOrientation(d.number(e)), true
}

// number returns the first value of an entry, 0 for one that is no number. To
// Pillow, and so here, bytes are none.
func (d *directory) number(e entry) float64 {
	b := e.value
	switch e.kind {
	case typeShort:
		return float64(d.order.Uint16(b))
	case typeSignedShort:
		return float64(int16(d.order.Uint16(b)))
	case typeLong, typeDirectory:
		return float64(d.order.Uint32(b))
	case typeSignedLong:
		return float64(int32(d.order.Uint32(b)))
	case typeSignedByte:
		return float64(int8(b[0]))
	case typeRational:
		return float64(d.order.Uint32(b)) / float64(d.order.Uint32(b[4:]))
	case typeSignedRational:
		return float64(int32(d.order.Uint32(b))) / float64(int32(d.order.Uint32(b[4:])))
	case typeFloat:
		return float64(math.Float32frombits(d.order.Uint32(b)))
	case typeDouble:
		return math.Float64frombits(d.order.Uint64(b))
	case typeLong8:
		return float64(d.order.Uint64(b))
	}
	return 0
}

// at returns value i of an entry of type SHORT, LONG or LONG8.
func (d *directory) at(e entry, i int) uint64 {
	switch e.kind {
	case typeShort:
		return uint64(d.order.Uint16(e.value[2*i:]))
	case typeLong:
		return uint64(d.order.Uint32(e.value[4*i:]))
	}
	return d.order.Uint64(e.value[8*i:])
}

// list returns the entry of a tag that must have whole numbers. Without the tag
// its count is 0.
func (d *directory) list(tag uint16) (entry, error) {
	e := d.entries[tag]
	if e.count > 0 && e.kind != typeShort && e.kind != typeLong && e.kind != typeLong8 {
		return entry{}, damaged("its tag %s has values of type %d, not 3 (SHORT) or 4 (LONG)", tagNames[tag], e.kind)
	}
	return e, nil
}

// tiffDirectories counts the directories that a TIFF structure chains, up to
// most: a chain can be a ring.
func tiffDirectories(tiff []byte, most int) (n int) {
	l, err := tiffLayout(tiff, true)
	if err != nil {
		return 0
	}
	size := uint64(len(tiff))
	next := tiff[l.first:]
	for n < most {
		offset := l.word(next)
		if offset == 0 || offset >= size || size-offset < l.countSize {
			break
		}
		n++
		entries := l.entryCount(tiff[offset:])
		rest := size - offset - l.countSize
		if entries > rest/l.entrySize || rest-entries*l.entrySize < uint64(l.wordSize) {
			break
		}
		next = tiff[offset+l.countSize+entries*l.entrySize:]
	}
	return n
}
