//go:build cgo && libjpeg

package jpeg_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/refersam/refersam/preprocess/jpeg"
	"github.com/refersam/refersam/preprocess/jpegtest"
	"github.com/refersam/refersam/preprocess/picture"
)

// pictures are the JPEGs of the package preprocess by name.
func pictures(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("../testdata/decode/*.jpg")
	if err != nil || len(names) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	all := make(map[string][]byte)
	for _, name := range names {
		if all[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// The decoder in Go equals libjpeg-turbo: every picture of testdata, and
// pictures of any size and quality.
func TestDecodeGo_EqualsLibJPEG(t *testing.T) {
	check := func(t interface{ Errorf(string, ...any) }, name string, data []byte) {
		want, err := jpeg.DecodeLibJPEG(data)
		if err != nil {
			t.Errorf("%s: libjpeg: %v", name, err)
		}
		got, err := jpeg.DecodeGo(data)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: samples differ, or %v", name, err)
		}
	}
	for name, data := range pictures(t) {
		check(t, name, data)
	}
	rapid.Check(t, func(t *rapid.T) {
		width, height := rapid.IntRange(1, 300).Draw(t, "width"), rapid.IntRange(1, 70).Draw(t, "height")
		quality := rapid.IntRange(1, 100).Draw(t, "quality")
		data := jpegtest.Encode(t, width, height, quality, rapid.Uint32().Draw(t, "seed"))
		check(t, "a random picture", data)
	})
}

// FuzzDecodeGo holds of the decoder in Go, which other targets do not reach in
// this build, that any data gives all samples of the picture or an error with a
// kind, and the same again, though decoders and their buffers are used again.
// libjpeg-turbo is not asked: changed bytes make coefficients that no encoder
// writes, and their sums overflow differently in 16 and in 32 bits.
func FuzzDecodeGo(f *testing.F) {
	const magic = "\xff\xd8\xff" // package preprocess decodes nothing without it
	for _, data := range pictures(f) {
		f.Add(data[len(magic):])
	}
	f.Fuzz(func(t *testing.T, rest []byte) {
		data := append([]byte(magic), rest...)
		first, firstErr := jpeg.DecodeGo(data)
		if fault := (*picture.Fault)(nil); firstErr != nil && !errors.As(firstErr, &fault) &&
			!errors.Is(firstErr, picture.ErrTruncated) && !errors.Is(firstErr, picture.ErrUnsupported) {
			t.Fatalf("error %v", firstErr)
		}
		if firstErr == nil && len(first) != cap(first) {
			t.Fatalf("%d of %d samples", len(first), cap(first))
		}
		again, err := jpeg.DecodeGo(data)
		if !bytes.Equal(again, first) || (err == nil) != (firstErr == nil) {
			t.Fatalf("other samples the second time, or errors %v and %v", firstErr, err)
		}
	})
}
