// Package exif reads the directories of EXIF blocks and of TIFF files, which have
// the same structure, and the orientation of a picture from EXIF and XMP.
package exif

import (
	"bytes"
	"encoding/binary"
	"math"
	"regexp"

	"github.com/refersam/refersam/preprocess/picture"
)

// Prefix comes before the TIFF structure in JPEG, and sometimes in WebP.
const Prefix = "Exif\x00\x00"

// Metadata is where a file may give its orientation: an EXIF block, with or
// without Prefix, and XMP. Either may be nil.
type Metadata struct{ EXIF, XMP []byte }

// Orientation follows Pillow's exif_transpose: the tag of the EXIF block counts,
// and XMP where that has none. Broken metadata means upright, because bad
// metadata must not cost a good picture.
func (m Metadata) Orientation() picture.Orientation {
	block := bytes.TrimPrefix(m.EXIF, []byte(Prefix))
	block = bytes.TrimPrefix(block, []byte(Prefix))
	if dir, err := ReadDirectory(block, false); err == nil {
		if o, ok := dir.Orientation(); ok {
			return o
		}
	}
	return XMPOrientation(m.XMP)
}

var xmpOrientationRule = regexp.MustCompile(`tiff:Orientation(?:="|>)([0-9])`)

// XMPOrientation returns the orientation in XMP, Upright without one.
func XMPOrientation(xmp []byte) picture.Orientation {
	match := xmpOrientationRule.FindSubmatch(xmp)
	if match == nil {
		return picture.Upright
	}
	return validOrientation(float64(match[1][0] - '0'))
}

func validOrientation(value float64) picture.Orientation {
	if value >= 1 && value <= 8 && value == math.Trunc(value) {
		return picture.Orientation(value)
	}
	return picture.Upright
}

// The magic bytes of TIFF and of BigTIFF.
const (
	LittleEndian        = "II*\x00"
	BigEndian           = "MM\x00*"
	BigTIFFLittleEndian = "II+\x00"
	BigTIFFBigEndian    = "MM\x00+"
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

// Tags of TIFF 6.0 and EXIF, by their numbers.
const (
	TagWidth           = 0x0100
	TagHeight          = 0x0101
	TagBitsPerSample   = 0x0102
	TagCompression     = 0x0103
	TagPhotometric     = 0x0106
	TagFillOrder       = 0x010a
	TagStripOffsets    = 0x0111
	TagOrientation     = 0x0112
	TagSamplesPerPixel = 0x0115
	TagRowsPerStrip    = 0x0116
	TagStripCounts     = 0x0117
	TagPlanar          = 0x011c
	TagPredictor       = 0x013d
	TagColorMap        = 0x0140
	TagTileWidth       = 0x0142
	TagTileHeight      = 0x0143
	TagTileOffsets     = 0x0144
	TagTileCounts      = 0x0145
	TagExtraSamples    = 0x0152
	TagSampleFormat    = 0x0153
	TagXMP             = 0x02bc
	TagWindowsPhoto    = 0xbc01
)

// TagNames has all tags that matter here.
var TagNames = map[uint16]string{
	TagWidth: "ImageWidth", TagHeight: "ImageLength", TagBitsPerSample: "BitsPerSample", TagCompression: "Compression",
	TagPhotometric: "PhotometricInterpretation", TagFillOrder: "FillOrder", TagStripOffsets: "StripOffsets",
	TagOrientation: "Orientation", TagSamplesPerPixel: "SamplesPerPixel", TagRowsPerStrip: "RowsPerStrip",
	TagStripCounts: "StripByteCounts", TagPlanar: "PlanarConfiguration", TagPredictor: "Predictor", TagColorMap: "ColorMap",
	TagTileWidth: "TileWidth", TagTileHeight: "TileLength", TagTileOffsets: "TileOffsets", TagTileCounts: "TileByteCounts",
	TagExtraSamples: "ExtraSamples", TagSampleFormat: "SampleFormat", TagXMP: "XMP", TagWindowsPhoto: "HD Photo",
}

// Directory is the first directory of a TIFF structure.
type Directory struct {
	Order   binary.ByteOrder
	Entries map[uint16]Entry
	// CutOff means that the directory ends, or has a value, behind the end of
	// the file.
	CutOff bool
}

// Entry holds Count values as bytes, a part of the file.
type Entry struct {
	Kind  uint16
	Count int
	Value []byte
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
	case LittleEndian:
		l.order = binary.LittleEndian
	case BigEndian:
		l.order = binary.BigEndian
	case BigTIFFLittleEndian:
		l.order, isBig = binary.LittleEndian, true
	case BigTIFFBigEndian:
		l.order, isBig = binary.BigEndian, true
	}
	if l.order == nil || isBig && !big {
		return nil, picture.Damaged("it has no TIFF header")
	}
	if isBig {
		l.first, l.countSize, l.entrySize, l.wordSize = 8, 8, 20, 8
	}
	if len(tiff) < l.first+l.wordSize {
		return nil, picture.CutOff("its header has only %d bytes", len(tiff))
	}
	return l, nil
}

// ReadDirectory finds the entries of TagNames in the first directory. It goes
// by Pillow's rules, so that both find the same: of two entries with a tag the
// first counts, entries of unknown types and without values are skipped, and a
// value behind the end of the file ends the directory.
func ReadDirectory(tiff []byte, big bool) (*Directory, error) {
	l, err := tiffLayout(tiff, big)
	if err != nil {
		return nil, err
	}
	size := uint64(len(tiff))
	offset := l.word(tiff[l.first:])
	if offset >= size || size-offset < l.countSize {
		return nil, picture.CutOff("its directory is at byte %d and the file has %d", offset, size)
	}
	dir := &Directory{Order: l.order, Entries: make(map[uint16]Entry)}
	rest := tiff[offset+l.countSize:]
	outside := uint64(0) // bytes of values that do not stand in their entries
	for n := l.entryCount(tiff[offset:]); n > 0; n-- {
		if uint64(len(rest)) < l.entrySize {
			dir.CutOff = true
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
		if _, duplicate := dir.Entries[tag]; duplicate {
			continue
		}
		bytes := min(count, size/unit+1) * unit // no more than the check below needs
		if bytes > uint64(l.wordSize) {
			if outside = min(outside+bytes, size+1); outside > size {
				continue
			}
			at := l.word(value)
			if at > size || size-at < bytes {
				dir.CutOff = true
				break
			}
			value = tiff[at:]
		}
		if TagNames[tag] != "" {
			dir.Entries[tag] = Entry{kind, int(count), value[:bytes]}
		}
	}
	return dir, nil
}

// Orientation returns the tag Orientation, picture.Upright for a value that the
// tag must not have, and whether the directory has the tag.
func (d *Directory) Orientation() (picture.Orientation, bool) {
	e, ok := d.Entries[TagOrientation]
	if !ok {
		return picture.Upright, false
	}
	return validOrientation(d.number(e)), true
}

// number returns the first value of an entry, 0 for one that is no number. To
// Pillow, and so here, bytes are none.
func (d *Directory) number(e Entry) float64 {
	b := e.Value
	switch e.Kind {
	case typeShort:
		return float64(d.Order.Uint16(b))
	case typeSignedShort:
		return float64(int16(d.Order.Uint16(b)))
	case typeLong, typeDirectory:
		return float64(d.Order.Uint32(b))
	case typeSignedLong:
		return float64(int32(d.Order.Uint32(b)))
	case typeSignedByte:
		return float64(int8(b[0]))
	case typeRational:
		return float64(d.Order.Uint32(b)) / float64(d.Order.Uint32(b[4:]))
	case typeSignedRational:
		return float64(int32(d.Order.Uint32(b))) / float64(int32(d.Order.Uint32(b[4:])))
	case typeFloat:
		return float64(math.Float32frombits(d.Order.Uint32(b)))
	case typeDouble:
		return math.Float64frombits(d.Order.Uint64(b))
	case typeLong8:
		return float64(d.Order.Uint64(b))
	}
	return 0
}

// At returns value i of an entry of type SHORT, LONG or LONG8.
func (d *Directory) At(e Entry, i int) uint64 {
	switch e.Kind {
	case typeShort:
		return uint64(d.Order.Uint16(e.Value[2*i:]))
	case typeLong:
		return uint64(d.Order.Uint32(e.Value[4*i:]))
	}
	return d.Order.Uint64(e.Value[8*i:])
}

// List returns the entry of a tag that must have whole numbers. Without the tag
// its count is 0.
func (d *Directory) List(tag uint16) (Entry, error) {
	e := d.Entries[tag]
	if e.Count > 0 && e.Kind != typeShort && e.Kind != typeLong && e.Kind != typeLong8 {
		return Entry{}, picture.Damaged("its tag %s has values of type %d, not 3 (SHORT) or 4 (LONG)", TagNames[tag], e.Kind)
	}
	return e, nil
}

// CountDirectories counts the directories that a TIFF structure chains, up to
// most: a chain can be a ring.
func CountDirectories(tiff []byte, most int) (n int) {
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
