package preprocess_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
)

// tiffRing makes the only directory of a TIFF its own successor.
func tiffRing(t *testing.T) []byte {
	data := readFile(t, "testdata/decode/rgb.tiff")
	directory := int(binary.LittleEndian.Uint32(data[4:]))
	next := directory + 2 + 12*int(binary.LittleEndian.Uint16(data[directory:]))
	return patch(data, next, data[4:8]...)
}

// animatedPNG announces frames behind the header of a PNG.
func animatedPNG(t *testing.T, frames uint32) []byte {
	data := readFile(t, "testdata/decode/rgb.png")
	const headerEnd = 8 + 12 + 13
	chunk := binary.BigEndian.AppendUint32([]byte("acTL"), frames)
	chunk = append(chunk, 0, 0, 0, 0)
	chunk = binary.BigEndian.AppendUint32(append([]byte{0, 0, 0, 8}, chunk...), crc32.ChecksumIEEE(chunk))
	return bytes.Join([][]byte{data[:headerEnd], chunk, data[headerEnd:]}, nil)
}

// longGIF repeats the second frame of a GIF.
func longGIF(t *testing.T, times int) []byte {
	data := readFile(t, "testdata/decode/animated.gif")
	second := bytes.LastIndex(data, []byte("!\xf9\x04"))
	trailer := len(data) - 1
	return bytes.Join([][]byte{data[:second], bytes.Repeat(data[second:trailer], times), data[trailer:]}, nil)
}

// Too many pictures in one file are an error, and up to the limit the first is
// what comes out.
func TestDecode_Frames(t *testing.T) {
	animated := readFile(t, "testdata/decode/animated.webp")
	for _, tt := range []struct {
		name  string
		data  []byte
		limit int
		code  refersam.Code
	}{
		{"GIF of two, one allowed", readFile(t, "testdata/decode/animated.gif"), 1, refersam.CodeImageTooLarge},
		{"GIF of two, two allowed", readFile(t, "testdata/decode/animated.gif"), 2, ""},
		{"GIF of 1001", longGIF(t, 1000), 1000, refersam.CodeImageTooLarge},
		{"GIF of 1000", longGIF(t, 999), 1000, ""},
		{"WebP of two, one allowed", animated, 1, refersam.CodeImageTooLarge},
		{"WebP of two, two allowed", animated, 2, ""},
		{"WebP cut off behind the first frame", animated[:len(animated)-20], 1, ""},
		{"TIFF whose directories form a ring", tiffRing(t), 1000, refersam.CodeImageTooLarge},
		{"TIFF of one", readFile(t, "testdata/decode/rgb.tiff"), 1, ""},
		{"PNG of two, one allowed", animatedPNG(t, 2), 1, refersam.CodeImageTooLarge},
		{"PNG of two, two allowed", animatedPNG(t, 2), 2, ""},
		{"PNG of 4 billion", animatedPNG(t, 1<<32-1), 1000, refersam.CodeImageTooLarge},
		{"JPEG", readFile(t, "testdata/decode/420.jpg"), 1, ""},
		{"BMP", readFile(t, "testdata/decode/rgb.bmp"), 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := preprocess.DefaultConfig()
			cfg.MaxFrames = tt.limit
			got, err := decode(context.Background(), newDecoder(t, cfg), tt.data)
			if refersam.ErrorCode(err) != tt.code || err != nil && !strings.Contains(err.Error(), "pictures that are accepted in one file") {
				t.Fatalf("got %v, want code %q", err, tt.code)
			}
			if err != nil {
				return
			}
			cfg.MaxFrames = 1 << 30
			want, err := decode(context.Background(), newDecoder(t, cfg), tt.data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the limit changes the picture (-want +got):\n%s", diff)
			}
		})
	}
}

// Cost comes from the header: pixels, times what their encoding takes.
func TestEncoded_Cost(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	perPixel := func(data []byte) float64 {
		t.Helper()
		e, err := d.Open(t.Context(), data)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		width, height := e.Size()
		const base = 36_000
		return float64(e.Cost()-base) / float64(width*height)
	}
	build := map[string]int{"libjpeg-turbo": 0, "Go": 1}[preprocess.JPEGDecoder]
	for name, want := range map[string][2]float64{
		"420.jpg": {1, 3}, "gray.jpg": {1, 3}, "exif6.jpg": {1, 3}, "progressive.jpg": {3, 7},
		"cmyk.jpg": {4, 6}, "progressive-cmyk.jpg": {6, 10},
		"rgb.png": {9, 9}, "lossy.webp": {8, 8}, "lossless.webp": {12, 12}, "animated.gif": {3, 3},
		"rgb.bmp": {1, 1}, "rgb.tiff": {2, 2}, "lzw.tiff": {8, 8},
	} {
		if got := perPixel(readFile(t, "testdata/decode/"+name)); got != want[build] {
			t.Errorf("a pixel of %s costs %v, want %v", name, got, want[build])
		}
	}
}
