package tests_test

import (
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"testing"

	"github.com/refersam/refersam/api"
)

// scene is one entry of testdata/scenes.json, written by
// python -m refersam.data.scenes.fixtures.
type scene struct {
	File      string     `json:"file"`
	Width     int        `json:"width"`
	Height    int        `json:"height"`
	Questions []question `json:"questions"`
}

type question struct {
	Phrase string `json:"phrase"`
	Kind   string `json:"kind"`
	Mask   rle    `json:"mask"`
}

func (s *scene) picture(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", s.File))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func scenes(t *testing.T) []scene {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "scenes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []scene
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("testdata/scenes.json holds no scenes")
	}
	return all
}

// rle is a mask in COCO's compressed run-length encoding.
type rle = api.RLE

// bitmap holds one bool per pixel, column by column.
type bitmap struct {
	width, height int
	set           []bool
}

// decodeRLE is written from the description of the format in pycocotools and shares no
// code with the service's encoder.
func decodeRLE(r *rle) (bitmap, error) {
	b := bitmap{width: r.Size[1], height: r.Size[0]}
	b.set = make([]bool, 0, b.width*b.height)
	var runs []int
	value := false
	for i := 0; i < len(r.Counts); {
		run, shift := 0, 0
		for {
			if i == len(r.Counts) {
				return b, errors.New("the last count has no end")
			}
			c := int(r.Counts[i]) - 48
			i++
			run |= c & 0x1f << shift
			shift += 5
			if c&0x20 == 0 {
				if c&0x10 != 0 {
					run |= -1 << shift
				}
				break
			}
		}
		// From the fourth on, a count is the difference to the count two before.
		if len(runs) > 2 {
			run += runs[len(runs)-2]
		}
		if run < 0 || run > cap(b.set)-len(b.set) {
			return b, errors.New("the counts do not fit the size")
		}
		runs = append(runs, run)
		for range run {
			b.set = append(b.set, value)
		}
		value = !value
	}
	if len(b.set) != b.width*b.height {
		return b, errors.New("the counts do not fill the size")
	}
	return b, nil
}

func mustDecode(t *testing.T, r rle) bitmap {
	t.Helper()
	b, err := decodeRLE(&r)
	if err != nil {
		t.Fatalf("RLE %q: %v", r.Counts, err)
	}
	return b
}

// fromImage reads white pixels as set.
func fromImage(img image.Image) bitmap {
	bounds := img.Bounds()
	b := bitmap{width: bounds.Dx(), height: bounds.Dy()}
	for x := bounds.Min.X; x < bounds.Max.X; x++ {
		for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
			gray, _ := color.GrayModel.Convert(img.At(x, y)).(color.Gray)
			b.set = append(b.set, gray.Y > 127)
		}
	}
	return b
}

func (b bitmap) area() int {
	n := 0
	for _, set := range b.set {
		if set {
			n++
		}
	}
	return n
}

// box returns left, top, width and height of the set pixels.
func (b bitmap) box() [4]int {
	left, top, right, bottom := b.width, b.height, -1, -1
	for i, set := range b.set {
		if set {
			x, y := i/b.height, i%b.height
			left, top, right, bottom = min(left, x), min(top, y), max(right, x), max(bottom, y)
		}
	}
	if right < 0 {
		return [4]int{}
	}
	return [4]int{left, top, right - left + 1, bottom - top + 1}
}

// iou is intersection over union; two empty masks agree.
func iou(a, b bitmap) float64 {
	intersection, union := 0, 0
	for i := range a.set {
		if a.set[i] && b.set[i] {
			intersection++
		}
		if a.set[i] || b.set[i] {
			union++
		}
	}
	if union == 0 {
		return 1
	}
	return float64(intersection) / float64(union)
}
