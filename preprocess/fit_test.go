package preprocess_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/refersam/refersam/preprocess"
)

// The sizes that SAM's ResizeLongestSide.get_preprocess_shape gives, worked out in
// Python: int(side * (size / longest) + 0.5).
func TestFit_Inside(t *testing.T) {
	for _, tt := range []struct {
		width, height, size int
		wantW, wantH        int
	}{
		{640, 480, 448, 448, 336},
		{480, 640, 448, 336, 448},
		{1920, 1080, 1024, 1024, 576},
		{333, 500, 448, 298, 448},
		{47, 35, 64, 64, 48},
		{1, 1, 32, 32, 32},
		{7, 2, 100, 100, 29},
		{101, 3, 50, 50, 1},
		{16384, 1, 448, 448, 1}, // ResizeLongestSide makes it 0 and fails
	} {
		if w, h := preprocess.LongestSidePad.Inside(tt.width, tt.height, tt.size); w != tt.wantW || h != tt.wantH {
			t.Errorf("%d×%d in %d covers %d×%d, want %d×%d", tt.width, tt.height, tt.size, w, h, tt.wantW, tt.wantH)
		}
		if w, h := preprocess.Stretch.Inside(tt.width, tt.height, tt.size); w != tt.size || h != tt.size {
			t.Errorf("%d×%d stretched to %d covers %d×%d", tt.width, tt.height, tt.size, w, h)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic for an unknown fit")
		}
	}()
	preprocess.Fit("crop").Inside(1, 1, 1)
}

func TestEncoded_Square(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	for _, name := range []string{"420.jpg", "exif6.jpg", "rgb.png", "narrow.jpg"} {
		for _, size := range []int{13, 32, 64} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				data := readFile(t, "testdata/decode/"+name)
				e, err := d.Open(t.Context(), data)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				picture, err := e.Decode(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				stretched, err := e.Square(t.Context(), size, preprocess.Stretch)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(stretched, preprocess.Resize(picture, size, size)) {
					t.Error("stretching differs from Resize")
				}

				padded := bytes.Repeat([]byte{77}, 3*size*size) // memory is used again
				if err := e.SquareInto(t.Context(), padded, size, preprocess.LongestSidePad); err != nil {
					t.Fatal(err)
				}
				w, h := preprocess.LongestSidePad.Inside(picture.Width, picture.Height, size)
				inside := preprocess.Resize(picture, w, h)
				for y := range size {
					for x := range size {
						want := []uint8{124, 116, 104}
						if x < w && y < h {
							want = inside[3*(y*w+x):][:3]
						}
						if got := padded[3*(y*size+x):][:3]; !bytes.Equal(got, want) {
							t.Fatalf("pixel (%d, %d) is %v, want %v", x, y, got, want)
						}
					}
				}
			})
		}
	}
}
