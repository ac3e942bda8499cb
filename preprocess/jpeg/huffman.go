package jpeg

import (
	"bytes"
	"encoding/binary"

	"github.com/refersam/refersam/preprocess/picture"
)

var errHuffman = picture.Damaged("bad Huffman code")

// state is the data that decoding a block reads and writes.
type state struct {
	// bits holds the next bits of the scan from the top. position counts the
	// first valid bits as read; the bits below them may hold later data.
	bits     uint64
	valid    int64
	position int64 // in bitReader.buffer
	// limit is the last position at which an MCU may be begun: none reads
	// beyond the buffer from there.
	limit int64

	half       int64 // which of the two rows of MCUs in the planes is decoded
	count      int64 // of components in the scan
	components [4]plan
	tables     [2][4]huffman // DC, AC
}

// plan says how the blocks of a component are decoded and where they go.
type plan struct {
	h, v           int64     // blocks of an MCU
	dc, ac         int64     // tables
	offset, stride int64     // in the planes
	last           int64     // the DC coefficient before
	quantization   [64]int16 // in rows
}

// lookupBits is how many bits are decoded at once. Most codes with the value
// behind them have no more; 2^10 entries of 4 bytes for each of four tables
// stay in the first cache.
const lookupBits = 10

// huffman decodes one Huffman code (ITU-T T.81, annex C and F.2.2).
type huffman struct {
	// lookup says by the next bits how many to take (bits 0 to 7), the zeros
	// before the coefficient (8 to 15) and its value (16 to 31). A value of 0
	// stands for what needs a second look: then bits 8 to 15 are the symbol, or
	// if there is nothing to take the code is longer.
	lookup [1 << lookupBits]uint32
	// codes[n] is one more than the largest code of n bits, or 0, shifted to
	// 16 bits; first[n] is what to subtract from a code to get its symbol.
	codes   [17]int32
	first   [17]int32
	symbols [256]uint8
}

func (h *huffman) make(counts, symbols []uint8, dc bool) error {
	*h = huffman{}
	if len(symbols) > len(h.symbols) {
		return picture.Damaged("bad Huffman table")
	}
	copy(h.symbols[:], symbols)
	code, index := 0, 0
	for i, n := range counts {
		length := i + 1
		h.first[length] = int32(code - index)
		for range n {
			symbol := symbols[index]
			if code >= 1<<length || dc && symbol > 15 {
				return picture.Damaged("bad Huffman table")
			}
			h.enter(code, length, symbol)
			code, index = code+1, index+1
		}
		if n > 0 {
			h.codes[length] = int32(code << (16 - length))
		}
		code <<= 1
	}
	return nil
}

// enter fills all entries of lookup that begin with a code.
func (h *huffman) enter(code, length int, symbol uint8) {
	size := int(symbol & 15)
	for i := range max(1<<lookupBits>>length, 0) {
		entry := uint32(symbol)<<8 | uint32(length)
		free := lookupBits - length // bits of i
		if size > 0 && size <= free {
			value := extend(i>>(free-size), size)
			entry = uint32(uint16(value))<<16 | uint32(symbol>>4)<<8 | uint32(length+size)
		}
		h.lookup[code<<free|i] = entry
	}
}

// extend turns the bits of a value into the value (ITU-T T.81, F.2.2.1).
func extend(bits, size int) int {
	if bits < 1<<size>>1 {
		return bits - 1<<size + 1
	}
	return bits
}

// refill makes 56 bits or more valid. Those that were loaded before are loaded
// again, which does no harm and saves a branch.
func (s *state) refill(buffer []uint8) {
	s.bits |= binary.BigEndian.Uint64(buffer[s.position:]) >> (s.valid & 63)
	s.position += (63 - s.valid) >> 3
	s.valid |= 56
}

// take returns the next n bits; n is at most 32.
func (s *state) take(n int) int {
	taken := int(s.bits >> 1 >> (63 - n&63))
	s.bits <<= n & 63
	s.valid -= int64(n)
	return taken
}

// long decodes a code that lookup does not hold, in 32 valid bits. ok is false
// if there is no such code.
func (h *huffman) long(bits uint64) (symbol uint8, length int, ok bool) {
	code := int32(bits >> 48)
	for length = lookupBits + 1; length <= 16; length++ {
		if code < h.codes[length] {
			return h.symbols[uint8(code>>(16-length)-h.first[length])], length, true
		}
	}
	return 0, 0, false
}

// coefficient takes a code and the value behind it, of 32 valid bits. A value
// of 0 is the end of a block or a run of zeros.
func (s *state) coefficient(h *huffman) (run, value int, ok bool) {
	e := h.lookup[s.bits>>(64-lookupBits)]
	if value = int(int16(e >> 16)); value != 0 {
		s.take(int(e & 0xff))
		return int(e>>8) & 15, value, true
	}
	symbol, length := uint8(e>>8), int(e&0xff)
	if length == 0 {
		if symbol, length, ok = h.long(s.bits); !ok {
			return 0, 0, false
		}
	}
	s.take(length)
	return int(symbol >> 4), extend(s.take(int(symbol&15)), int(symbol&15)), true
}

// decodeMCUs decodes count MCUs of a sequential scan of all components from
// column x on, and stops early at state.limit. ok is false if there is a code
// that does not exist.
func decodeMCUs(s *state, buffer, planes []uint8, x, count int) (done int, ok bool) {
	for ; done < count && s.position <= s.limit; done++ {
		for i := range s.components[:s.count] {
			c := &s.components[i]
			for by := range c.v {
				for bx := range c.h {
					var block [64]int16
					nonzero, ok := s.block(buffer, c, &block)
					if !ok {
						return done, false
					}
					at := c.offset + ((s.half*c.v+by)*c.stride+int64(x+done)*c.h+bx)*8
					inverseDCT(planes[at:], int(c.stride), &block, nonzero)
				}
			}
		}
	}
	return done, true
}

// block decodes and scales the coefficients of a block. Bit i of nonzero is set
// where coefficient i may differ from 0.
func (s *state) block(buffer []uint8, c *plan, block *[64]int16) (nonzero uint64, ok bool) {
	s.refill(buffer)
	_, difference, ok := s.coefficient(&s.tables[0][c.dc])
	if !ok {
		return 0, false
	}
	c.last += int64(difference)
	block[0] = int16(c.last) * c.quantization[0]

	ac := &s.tables[1][c.ac]
	bits, valid, position := s.bits, s.valid, s.position
	nonzero = 1
	for k := 1; k < 64; k++ {
		if valid < 32 {
			bits |= binary.BigEndian.Uint64(buffer[position:]) >> (valid & 63)
			position += (63 - valid) >> 3
			valid |= 56
		}
		e := ac.lookup[bits>>(64-lookupBits)]
		value := int16(e >> 16)
		if value != 0 {
			bits <<= e & 63
			valid -= int64(e & 63)
			k += int(e>>8) & 15
		} else {
			symbol, length := uint8(e>>8), int(e&63)
			if length == 0 {
				if symbol, length, ok = ac.long(bits); !ok {
					return 0, false
				}
			}
			bits <<= length & 63
			size := int(symbol & 15)
			valid -= int64(length + size)
			k += int(symbol >> 4)
			if size == 0 {
				if symbol < 0xf0 {
					break
				}
				continue
			}
			value = int16(extend(int(bits>>(64-size)), size))
			bits <<= size
		}
		at := zigzag[k&127] & 63
		block[at] = value * c.quantization[at]
		nonzero |= 1 << at
	}
	s.bits, s.valid, s.position = bits, valid, position
	return nonzero, true
}

// zigzag says where the k-th coefficient of a block lies. Like in libjpeg runs
// beyond the end end at its last place.
var zigzag = [128]uint8{
	0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
	12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
	58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
	63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
}

// bitReader brings the data of a scan, without stuffing, into a buffer from
// which blocks are decoded.
type bitReader struct {
	buffer []uint8
	end    int     // of the data in buffer; zeros follow
	rest   []uint8 // what follows in the file
	marked bool    // rest begins with a marker or is empty
	number uint8   // of the next restart marker
}

const (
	bufferSize = 32 << 10
	// mcuSize is more than any MCU takes: 10 blocks of 64 values of 16 bits
	// with codes of 16 bits, and what is loaded ahead.
	mcuSize = 10*64*4 + 64
)

func (b *bitReader) start(s *state, data []uint8) {
	b.buffer = sized(b.buffer, bufferSize+mcuSize)
	b.rest, b.number = data, 0
	b.segment(s)
}

// segment begins to read at b.rest.
func (b *bitReader) segment(s *state) {
	b.end, b.marked = 0, false
	s.bits, s.valid, s.position = 0, 0, 0
	for i := range s.components {
		s.components[i].last = 0
	}
	b.fill(s)
}

// fill appends more data to the rest of the buffer. It returns false when all
// data has been read.
func (b *bitReader) fill(s *state) bool {
	if !b.marked {
		position := min(int(s.position), b.end)
		b.end = copy(b.buffer, b.buffer[position:b.end])
		s.position -= int64(position)
		b.unstuff()
		clear(b.buffer[b.end:][:mcuSize])
	}
	s.limit = int64(b.end) - mcuSize
	if b.marked {
		s.limit = int64(b.end) + 8 // what may have been loaded ahead
	}
	return s.position <= s.limit
}

// unstuff takes data up to a marker, as much as the buffer can hold.
func (b *bitReader) unstuff() {
	for b.end < bufferSize {
		next := b.rest[:min(len(b.rest), bufferSize-b.end)]
		i := bytes.IndexByte(next, 0xff)
		if i < 0 {
			b.end += copy(b.buffer[b.end:], next)
			b.rest = b.rest[len(next):]
			b.marked = len(b.rest) == 0
			if b.marked {
				return
			}
			continue
		}
		b.end += copy(b.buffer[b.end:], next[:i])
		b.rest = b.rest[i:]
		escape := 1 // libjpeg takes any number of 0xff
		for escape < len(b.rest) && b.rest[escape] == 0xff {
			escape++
		}
		if escape == len(b.rest) || b.rest[escape] != 0 {
			b.marked = true
			return
		}
		b.buffer[b.end] = 0xff
		b.end++
		b.rest = b.rest[escape+1:]
	}
}

// overrun reports whether more bits have been taken than the data has.
func (b *bitReader) overrun(s *state) bool {
	return 8*s.position-s.valid > 8*int64(b.end)
}

// ended is the error of a scan with too little data.
func (b *bitReader) ended() error {
	if marker, ok := b.marker(); ok && marker != markerEndOfImage {
		return picture.Damaged("a scan ends early")
	}
	return picture.ErrTruncated
}

// marker returns the marker that follows the data.
func (b *bitReader) marker() (marker uint8, ok bool) {
	i := 0
	for i < len(b.rest) && b.rest[i] == 0xff {
		i++
	}
	if !b.marked || i == len(b.rest) {
		return 0, false
	}
	return b.rest[i], true
}

// skip drops what is left of the data ahead of the next marker.
func (b *bitReader) skip(s *state) {
	for !b.marked {
		s.position = int64(b.end)
		b.fill(s)
	}
}

// restart goes to the data behind the next restart marker, which must have the
// next number.
func (b *bitReader) restart(s *state) error {
	b.skip(s)
	marker, ok := b.marker()
	if !ok || marker != markerRestart0+b.number {
		return b.ended()
	}
	b.rest = b.rest[bytes.IndexByte(b.rest, marker)+1:]
	b.number = (b.number + 1) & 7
	b.segment(s)
	return nil
}
