//go:build heic

package heic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/refersam/refersam/preprocess/picture"
)

// source is the primary picture of a file, as the boxes describe it.
type source struct {
	data []byte
	// width and height are the sides of the upright picture.
	width, height int
	// matrix and fullRange say how its samples become RGB (ITU-T H.273).
	matrix    uint16
	fullRange bool
}

// readBoxes reads the properties of the primary picture (ISO/IEC 23008-12, 6 and
// 9). Orientation is a property here, which codecs apply; EXIF's repeats it and
// must not be applied on top.
func readBoxes(data []byte) (*source, error) {
	meta, err := findBox(data, "meta")
	if err != nil {
		return nil, err
	}
	meta = skip(meta, 4) // version and flags
	primary, err := primaryItem(meta)
	if err != nil {
		return nil, err
	}
	iprp, err := findBox(meta, "iprp")
	if err != nil {
		return nil, err
	}
	properties, err := findBox(iprp, "ipco")
	if err != nil {
		return nil, err
	}
	associations, err := findBox(iprp, "ipma")
	if err != nil {
		return nil, err
	}
	indices, err := propertyIndices(associations, primary)
	if err != nil {
		return nil, err
	}
	return readProperties(properties, indices)
}

func primaryItem(meta []byte) (uint32, error) {
	pitm, err := findBox(meta, "pitm")
	if err != nil {
		return 0, err
	}
	switch {
	case len(pitm) >= 6 && pitm[0] == 0:
		return uint32(binary.BigEndian.Uint16(pitm[4:])), nil
	case len(pitm) >= 8 && pitm[0] > 0:
		return binary.BigEndian.Uint32(pitm[4:]), nil
	}
	return 0, picture.ErrTruncated
}

// propertyIndices returns the numbers of an item's properties, from 1.
func propertyIndices(ipma []byte, item uint32) ([]int, error) {
	if len(ipma) < 8 {
		return nil, picture.ErrTruncated
	}
	longIDs, longIndices := ipma[0] > 0, ipma[3]&1 != 0
	rest := ipma[8:]
	number := func(long bool, longSize int) (n uint32) {
		size := longSize / 2
		if long {
			size = longSize
		}
		for _, b := range rest[:min(size, len(rest))] {
			n = n<<8 | uint32(b)
		}
		rest = skip(rest, size)
		return n
	}
	for n := binary.BigEndian.Uint32(ipma[4:]); n > 0 && len(rest) > 0; n-- {
		id := number(longIDs, 4)
		var indices []int
		for count := number(false, 2); count > 0 && len(rest) > 0; count-- {
			index := number(longIndices, 2)
			if longIndices {
				index &= 0x7fff // the rest says whether a reader must know it
			} else {
				index &= 0x7f
			}
			indices = append(indices, int(index))
		}
		if id == item {
			return indices, nil
		}
	}
	return nil, errors.New("the primary picture has no properties")
}

// readProperties applies the properties that change the size or the colours, in
// order.
func readProperties(ipco []byte, indices []int) (*source, error) {
	p := &source{matrix: matrixBT601, fullRange: true}
	var all []box
	for child := range boxes(ipco) {
		all = append(all, child)
	}
	at := func(b []byte, i int) int { return int(binary.BigEndian.Uint32(b[i:]) & picture.MaxSide) }
	for _, i := range indices {
		if i < 1 || i > len(all) {
			continue
		}
		switch b := all[i-1].content; all[i-1].kind {
		case "ispe":
			if len(b) < 12 {
				return nil, picture.ErrTruncated
			}
			p.width, p.height = at(b, 4), at(b, 8)
		case "clap":
			if len(b) < 16 || at(b, 4) == 0 || at(b, 12) == 0 {
				return nil, picture.ErrTruncated
			}
			p.width, p.height = min(p.width, at(b, 0)/at(b, 4)), min(p.height, at(b, 8)/at(b, 12))
		case "irot":
			if len(b) > 0 && b[0]&1 != 0 { // an odd number of quarter turns
				p.width, p.height = p.height, p.width
			}
		case "colr":
			if len(b) >= 11 && string(b[:4]) == "nclx" {
				p.matrix, p.fullRange = binary.BigEndian.Uint16(b[8:]), b[10]&0x80 != 0
			}
		}
	}
	return p, nil
}

type box struct {
	kind    string
	content []byte
}

// boxes yields the boxes that data is a sequence of (ISO/IEC 14496-12, 4.2).
// It stops at the first that is cut off.
func boxes(data []byte) func(yield func(box) bool) {
	return func(yield func(box) bool) {
		for len(data) >= 8 {
			header, size := uint64(8), uint64(binary.BigEndian.Uint32(data))
			switch size {
			case 0: // up to the end
				size = uint64(len(data))
			case 1: // of 64 bits
				if len(data) < 16 {
					return
				}
				header, size = 16, binary.BigEndian.Uint64(data[8:])
			}
			if size < header || size > uint64(len(data)) || !yield(box{string(data[4:8]), data[header:size]}) {
				return
			}
			data = data[size:]
		}
	}
}

// findBox returns the content of the first box of a kind.
func findBox(data []byte, kind string) ([]byte, error) {
	for child := range boxes(data) {
		if child.kind == kind {
			return child.content, nil
		}
	}
	return nil, fmt.Errorf("no box %q: %w", kind, picture.ErrTruncated)
}

func skip(b []byte, n int) []byte { return b[min(n, len(b)):] }

const matrixBT601 = 6
