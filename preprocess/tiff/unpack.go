package tiff

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"math/bits"

	"github.com/refersam/refersam/preprocess/picture"
)

// unpacker undoes the compression of blocks, one after another.
type unpacker struct {
	reversed bool
	mirror   []byte // the block at hand with the bits of its bytes in order
	inflate  io.ReadCloser
	lzw      lzwDecoder
}

// unpack fills out from the packed data of a block.
func (u *unpacker) unpack(out, packed []byte, compression uint64) error {
	if u.reversed {
		if cap(u.mirror) < len(packed) {
			u.mirror = make([]byte, len(packed))
		}
		u.mirror = u.mirror[:len(packed)]
		for i, b := range packed {
			u.mirror[i] = bits.Reverse8(b)
		}
		packed = u.mirror
	}
	switch compression {
	case uncompressed:
		copy(out, packed)
		return nil
	case compressionLZW:
		return u.lzw.decode(out, packed)
	case compressionPackBits:
		return unpackBits(out, packed)
	}
	return u.unpackDeflate(out, packed)
}

func (u *unpacker) unpackDeflate(out, packed []byte) error {
	r := bytes.NewReader(packed)
	var err error
	if u.inflate == nil {
		u.inflate, err = zlib.NewReader(r)
	} else {
		err = u.inflate.(zlib.Resetter).Reset(r, nil)
	}
	if err == nil {
		_, err = io.ReadFull(u.inflate, out)
	}
	if err == nil {
		// The checksum comes behind the pixels. Other data there is not read.
		if _, end := io.ReadFull(u.inflate, make([]byte, 1)); errors.Is(end, zlib.ErrChecksum) {
			err = end
		}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShortBlock
	}
	if err != nil {
		return picture.Damaged("its compressed data is wrong (%v)", err)
	}
	return nil
}

var errShortBlock = picture.CutOff("the data of a block ends before its pixels do")

// unpackBits undoes Apple's run-length encoding (TIFF 6.0, section 9).
func unpackBits(out, packed []byte) error {
	for len(out) > 0 {
		if len(packed) < 2 {
			return errShortBlock
		}
		code := int(int8(packed[0]))
		packed = packed[1:]
		switch {
		case code >= 0:
			n := min(code+1, len(out))
			if n > len(packed) {
				return errShortBlock
			}
			copy(out, packed[:n])
			out, packed = out[n:], packed[min(code+1, len(packed)):]
		case code != -128:
			n := min(1-code, len(out))
			for i := range out[:n] {
				out[i] = packed[0]
			}
			out, packed = out[n:], packed[1:]
		}
	}
	return nil
}

// lzwDecoder undoes TIFF's LZW (TIFF 6.0, section 13): codes of 9 to 12 bits,
// highest bit first, that grow one code early.
type lzwDecoder struct {
	// The string of a code is the string of prefix and then last. Its length is 1 for
	// the codes below 256.
	prefix      [lzwCodes]uint16
	first, last [lzwCodes]uint8
	length      [lzwCodes]uint16
}

const (
	lzwClear    = 256
	lzwEnd      = 257
	lzwCodes    = 4096
	lzwLeastLen = 9
)

func (d *lzwDecoder) decode(out, packed []byte) error {
	if len(packed) >= 2 && packed[0] == 0 && packed[1]&1 == 1 {
		return picture.Unsupported("LZW of the kind before TIFF 5.0")
	}
	for i := range lzwClear {
		d.first[i], d.last[i], d.length[i] = uint8(i), uint8(i), 1
	}
	var (
		buffer   uint32
		buffered uint
		next     = lzwEnd + 1 // the code that the next string gets
		width    = uint(lzwLeastLen)
		previous = -1
		done     = 0
	)
	for done < len(out) {
		for buffered < width {
			if len(packed) == 0 {
				return errShortBlock
			}
			buffer, buffered = buffer<<8|uint32(packed[0]), buffered+8
			packed = packed[1:]
		}
		buffered -= width
		code := int(buffer >> buffered & (1<<width - 1))
		switch {
		case code == lzwEnd:
			return errShortBlock
		case code == lzwClear:
			next, width, previous = lzwEnd+1, lzwLeastLen, -1
			continue
		case previous < 0:
			if code > lzwEnd {
				return picture.Damaged("its LZW data begins with the code %d", code)
			}
		case code > next || code == next && next == lzwCodes:
			return picture.Damaged("its LZW data has the code %d where %d is the highest", code, next)
		case next < lzwCodes:
			d.prefix[next], d.length[next], d.first[next] = uint16(previous), d.length[previous]+1, d.first[previous]
			// A string that is not there yet is the one before and its own beginning.
			d.last[next] = d.first[previous]
			if code < next {
				d.last[next] = d.first[code]
			}
			next++
		}
		n := int(d.length[code])
		for at, c := done+n-1, code; at >= done; at-- {
			if at < len(out) {
				out[at] = d.last[c]
			}
			c = int(d.prefix[c])
		}
		done += n
		previous = code
		if next >= 1<<width-1 && width < 12 {
			width++
		}
	}
	return nil
}
