package postprocess

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/refersam/refersam"
)

// An RLE number is written in base 32, lowest digits first, one character each: '0'
// plus the digit, plus 32 when more digits follow. The last digit's top bit is the
// sign.
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
// pycocotools writes it: the runs of the mask, from the fourth run on as the
// difference to the run two before. The size in the encoding is [m.Height,
// m.Width].
func RLE(m *refersam.Mask) string {
	out := make([]byte, 0, 2*len(m.Runs)+maxDigits)
	for i, n := range m.Runs {
		v := int(n)
		if i > 2 {
			v -= int(m.Runs[i-2])
		}
		for {
			digit := v & digitMask
			v >>= digitBits
			if v == 0 && digit&signBit == 0 || v == -1 && digit&signBit != 0 {
				out = append(out, byte(charZero+digit))
				break
			}
			out = append(out, byte(charZero+(digit|moreBit)))
		}
	}
	return string(out)
}

// DecodeRLE returns the mask of width × height pixels that a counts string of RLE
// describes. It returns an error if the size is out of range, or the string is
// malformed or does not cover exactly this number of pixels.
func DecodeRLE(counts string, width, height int) (*refersam.Mask, error) {
	// before holds the last two counts, the older one first.
	var before [2]int
	return decodeRuns(width, height, func(i int) (int, bool, error) {
		if counts == "" {
			return 0, false, nil
		}
		count, digits, err := rleNumber(counts)
		if err != nil {
			return 0, false, err
		}
		counts = counts[digits:]
		if i > 2 {
			count += before[0]
		}
		before[0], before[1] = before[1], count
		return count, true, nil
	})
}

// DecodeCounts is DecodeRLE for COCO's uncompressed encoding, where the counts are
// the run lengths.
func DecodeCounts(counts []int, width, height int) (*refersam.Mask, error) {
	return decodeRuns(width, height, func(i int) (int, bool, error) {
		if i == len(counts) {
			return 0, false, nil
		}
		return counts[i], true, nil
	})
}

// ParseRLE reads the JSON of COCO's encoding, {"size": [height, width],
// "counts": …} with compressed or uncompressed counts.
func ParseRLE(data []byte) (*refersam.Mask, error) {
	var rle struct {
		Size   [2]int         `json:"size"`
		Counts jsontext.Value `json:"counts"`
	}
	if err := json.Unmarshal(data, &rle); err != nil {
		return nil, fmt.Errorf("postprocess: RLE: %w", err)
	}
	height, width := rle.Size[0], rle.Size[1]
	switch rle.Counts.Kind() {
	case '"':
		var counts string
		if err := json.Unmarshal(rle.Counts, &counts); err != nil {
			return nil, fmt.Errorf("postprocess: RLE: %w", err)
		}
		return DecodeRLE(counts, width, height)
	case '[':
		var counts []int
		if err := json.Unmarshal(rle.Counts, &counts); err != nil {
			return nil, fmt.Errorf("postprocess: RLE: %w", err)
		}
		return DecodeCounts(counts, width, height)
	}
	return nil, errors.New("postprocess: RLE without counts")
}

// decodeRuns makes a mask of the counts that next returns one by one. next returns
// false after the last count.
func decodeRuns(width, height int, next func(i int) (int, bool, error)) (*refersam.Mask, error) {
	if err := checkSize(width, height); err != nil {
		return nil, err
	}
	var w runWriter
	left := width * height
	for i := 0; ; i++ {
		count, more, err := next(i)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		if count < 0 || count > left {
			return nil, fmt.Errorf("postprocess: RLE run %d has length %d, with %d pixels left", i, count, left)
		}
		left -= count
		w.add(i%2 == 1, count)
	}
	if left > 0 {
		return nil, fmt.Errorf("postprocess: RLE ends %d pixels early", left)
	}
	return &refersam.Mask{Width: width, Height: height, Runs: w.close()}, nil
}

// rleNumber reads the number at the start of s and returns its length in
// characters.
func rleNumber(s string) (value, digits int, err error) {
	for i := range min(len(s), maxDigits) {
		c := int(s[i]) - charZero
		if c < 0 || c >= 2*moreBit {
			return 0, 0, fmt.Errorf("postprocess: the character %q is not allowed in RLE", s[i])
		}
		value |= (c & digitMask) << (digitBits * i)
		if c&moreBit == 0 {
			if c&signBit != 0 {
				value -= 1 << (digitBits * (i + 1))
			}
			return value, i + 1, nil
		}
	}
	return 0, 0, errors.New("postprocess: the last number of the RLE is not complete")
}
