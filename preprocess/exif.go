package preprocess

import (
	"bytes"
	"encoding/binary"
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

// exifOrientation reads the Orientation tag in the first directory of an EXIF
// block, with or without exifPrefix. A block that is broken or lacks the tag
// means upright: bad metadata must not cost a good picture.
func exifOrientation(block []byte) orientation {
	const tag = 0x0112
	value, ok := tiffShort(bytes.TrimPrefix(block, []byte(exifPrefix)), tag)
	if !ok || value < 1 || value > 8 {
		return upright
	}
	return orientation(value)
}

const (
	tiffLittleEndian = "II*\x00"
	tiffBigEndian    = "MM\x00*"
)

// tiffOrder returns the byte order of a TIFF structure, nil if it is none.
func tiffOrder(tiff []byte) binary.ByteOrder {
	const headerSize = 8
	if len(tiff) < headerSize {
		return nil
	}
	switch string(tiff[:4]) {
	case tiffLittleEndian:
		return binary.LittleEndian
	case tiffBigEndian:
		return binary.BigEndian
	}
	return nil
}

// tiffDirectories counts the directories that a TIFF structure chains, up to
// most: a chain can be a ring.
func tiffDirectories(tiff []byte, most int) (n int) {
	order := tiffOrder(tiff)
	if order == nil {
		return 0
	}
	next := tiff[4:]
	for n < most {
		offset := uint64(order.Uint32(next))
		if offset == 0 || offset+2 > uint64(len(tiff)) {
			break
		}
		n++
		end := offset + 2 + tiffEntrySize*uint64(order.Uint16(tiff[offset:]))
		if end+4 > uint64(len(tiff)) {
			break
		}
		next = tiff[end:]
	}
	return n
}

const tiffEntrySize = 12

// tiffShort returns a 16-bit value of the first directory of a TIFF structure
// (TIFF 6.0, section 2).
func tiffShort(tiff []byte, tag uint16) (value uint16, ok bool) {
	const typeShort = 3
	order := tiffOrder(tiff)
	if order == nil {
		return 0, false
	}
	offset := uint64(order.Uint32(tiff[4:]))
	if offset+2 > uint64(len(tiff)) {
		return 0, false
	}
	entries := tiff[offset+2:]
	for n := order.Uint16(tiff[offset:]); n > 0 && len(entries) >= tiffEntrySize; n-- {
		if order.Uint16(entries) == tag {
			return order.Uint16(entries[8:]), order.Uint16(entries[2:]) == typeShort
		}
		entries = entries[tiffEntrySize:]
	}
	return 0, false
}
