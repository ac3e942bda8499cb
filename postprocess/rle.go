package postprocess

import (
	"errors"
	"fmt"

	"github.com/refersam/refersam"
)

// maxMaskPixels bounds the masks that DecodeRLE makes; it is far above the
// largest picture that can be asked for.
const maxMaskPixels = 1 << 28

// An RLE number is written in base 32, lowest digits first, one character
// each: '0' plus the digit, plus 32 when more digits follow. The last digit's
// top bit is the sign.
const (
	digitBits = 5
	digitMask = 1<<digitBits - 1
	signBit   = 1 << (digitBits - 1)
	moreBit   = 1 << digitBits
	charZero  = '0'
	// maxDigits suffices for any difference of two counts ≤ maxMaskPixels.
	maxDigits = 6
)

// RLE returns the counts string of COCO's compressed run-length encoding, as
// pycocotools writes it: lengths of alternating runs of background and
// foreground down the columns, background first; from the fourth on the
// difference to the count before the previous one. The size that belongs to it
// is [m.Height, m.Width].
func RLE(m *refersam.Mask) string {
	e := rleEncoder{}
	var current uint8
	run := 0
	for x := range m.Width {
		for i := x; i < len(m.Pix); i += m.Width {
			if m.Pix[i] != current {
				e.add(run)
				current, run = m.Pix[i], 0
			}
			run++
		}
	}
	e.add(run)
	return string(e.out)
}

type rleEncoder struct {
	out []byte
	// before holds the last two counts, the older one first.
	before [2]int
	n      int
}

func (e *rleEncoder) add(count int) {
	v := count
	if e.n > 2 {
		v -= e.before[0]
	}
	e.before[0], e.before[1] = e.before[1], count
	e.n++
	for {
		digit := v & digitMask
		v >>= digitBits
		if v == 0 && digit&signBit == 0 || v == -1 && digit&signBit != 0 {
			e.out = append(e.out, byte(charZero+digit))
			return
		}
		e.out = append(e.out, byte(charZero+(digit|moreBit)))
	}
}

// DecodeRLE returns the mask of width × height pixels that a counts string of
// RLE describes. It fails when the size is out of range, or the string is
// malformed or does not cover exactly that many pixels.
func DecodeRLE(counts string, width, height int) (*refersam.Mask, error) {
	if width < 1 || height < 1 || height > maxMaskPixels/width {
		return nil, fmt.Errorf("postprocess: RLE of %d×%d pixels", width, height)
	}
	m := &refersam.Mask{Width: width, Height: height, Pix: make([]uint8, width*height)}
	var (
		before [2]int
		value  uint8
		x, y   int
	)
	left := len(m.Pix)
	for n := 0; len(counts) > 0; n++ {
		count, digits, err := rleNumber(counts)
		if err != nil {
			return nil, err
		}
		counts = counts[digits:]
		if n > 2 {
			count += before[0]
		}
		if count < 0 || count > left {
			return nil, fmt.Errorf("postprocess: RLE run %d has length %d, with %d pixels left", n, count, left)
		}
		left -= count
		before[0], before[1] = before[1], count
		for ; count > 0; count-- {
			m.Pix[y*width+x] = value
			if y++; y == height {
				x, y = x+1, 0
			}
		}
		value ^= 1
	}
	if left > 0 {
		return nil, fmt.Errorf("postprocess: RLE ends %d pixels early", left)
	}
	return m, nil
}

// rleNumber reads the number at the start of s and how many characters it has.
func rleNumber(s string) (value, digits int, err error) {
	for i := range min(len(s), maxDigits) {
		c := int(s[i]) - charZero
		if c < 0 || c >= 2*moreBit {
			return 0, 0, fmt.Errorf("postprocess: character %q in RLE", s[i])
		}
		value |= (c & digitMask) << (digitBits * i)
		if c&moreBit == 0 {
			if c&signBit != 0 {
				value -= 1 << (digitBits * (i + 1))
			}
			return value, i + 1, nil
		}
	}
	return 0, 0, errors.New("postprocess: unfinished number in RLE")
}
