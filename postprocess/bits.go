package postprocess

import (
	"encoding/binary"
	"math/bits"

	"github.com/refersam/refersam"
)

// Pixels are the mask as bytes, row by row: 1 is foreground, 0 is background.
func Pixels(m *refersam.Mask) []uint8 {
	pix := make([]uint8, m.Width*m.Height)
	for y, row := range rows(m) {
		out := pix[y*m.Width:][:m.Width]
		for x := range out {
			out[x] = row[x>>3] >> (7 - x&7) & 1
		}
	}
	return pix
}

// FromPixels makes a mask of Pixels: every value except 0 is foreground. It panics
// unless there are width × height of them.
func FromPixels(pix []uint8, width, height int) *refersam.Mask {
	if err := checkSize(width, height); err != nil {
		panic(err)
	}
	if len(pix) != width*height {
		panic("postprocess: the pixels do not fit the size")
	}
	var w runWriter
	for x := range width {
		for i := x; i < len(pix); i += width {
			w.add(pix[i] != 0, 1)
		}
	}
	return &refersam.Mask{Width: width, Height: height, Runs: w.close()}
}

// stripBytes bounds the memory that rows uses to turn columns into rows. A mask of
// 16 megapixels fits in one strip.
const stripBytes = 2 << 20

// rows yields the rows of a mask, packed to one bit per pixel with the leftmost in
// the top bit. Bits after the last pixel are 0. The row is valid only until the
// next one is yielded.
//
// A span of a column becomes two marks, at its beginning and at its end. A row is
// the row above it, flipped at its marks. So rows never handles single pixels, only
// 64 of them at once.
func rows(m *refersam.Mask) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		wordsPerRow := (m.Width + 63) / 64
		height := min(m.Height, max(1, stripBytes/(8*wordsPerRow)))
		marks := make([]uint64, wordsPerRow*height)
		current := make([]uint64, wordsPerRow)
		row := make([]byte, 8*wordsPerRow)
		for top := 0; top < m.Height; top += height {
			if top > 0 {
				clear(marks)
			}
			bottom := min(top+height, m.Height)
			for x, s := range spans(m) {
				word, bit := x>>6, uint64(1)<<(63-x&63)
				if s.from >= top && s.from < bottom {
					marks[(s.from-top)*wordsPerRow+word] ^= bit
				}
				if s.to >= top && s.to < bottom {
					marks[(s.to-top)*wordsPerRow+word] ^= bit
				}
			}
			for y := top; y < bottom; y++ {
				for i, mark := range marks[(y-top)*wordsPerRow:][:wordsPerRow] {
					current[i] ^= mark
					binary.BigEndian.PutUint64(row[8*i:], current[i])
				}
				if !yield(y, row[:(m.Width+7)/8]) {
					return
				}
			}
		}
	}
}

// spread maps each byte of a row to its bits as bytes of 0 or 255.
var spread = func() (table [256][8]uint8) {
	for value := range table {
		for i := range 8 {
			if bits.Reverse8(uint8(value))>>i&1 == 1 {
				table[value][i] = 255
			}
		}
	}
	return table
}()
