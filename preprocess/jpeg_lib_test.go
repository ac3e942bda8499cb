//go:build cgo && libjpeg

package preprocess_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/refersam/refersam/preprocess"
)

// jpegs are the JPEGs of testdata/decode by name.
func jpegs(t testing.TB) map[string][]byte {
	all := encoded(t)
	for name := range all {
		if !strings.HasSuffix(name, ".jpg") {
			delete(all, name)
		}
	}
	return all
}

// What is decoded here equals what libjpeg makes of it: every picture of
// testdata, and pictures of any size and quality.
func TestDecodeJPEG_EqualsLibJPEG(t *testing.T) {
	check := func(t interface{ Errorf(string, ...any) }, name string, data []byte) {
		want, err := preprocess.DecodeLibJPEG(data)
		if err != nil {
			t.Errorf("%s: libjpeg: %v", name, err)
		}
		for kernels, decode := range map[string]func([]byte) ([]uint8, error){
			"plain": preprocess.DecodeJPEG, "fast": preprocess.DecodeJPEGFast,
		} {
			got, err := decode(data)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s with %s kernels: samples differ, or %v", name, kernels, err)
			}
		}
	}
	for name, data := range jpegs(t) {
		check(t, name, data)
	}
	rapid.Check(t, func(t *rapid.T) {
		width, height := rapid.IntRange(1, 300).Draw(t, "width"), rapid.IntRange(1, 70).Draw(t, "height")
		quality := rapid.IntRange(1, 100).Draw(t, "quality")
		data := encodeJPEG(t, width, height, quality, rapid.Uint32().Draw(t, "seed"))
		check(t, "a random picture", data)
	})
}

// FuzzJPEGKernels holds that the fast kernels do what the plain ones do with
// any data, errors and what comes ahead of them included.
func FuzzJPEGKernels(f *testing.F) {
	for _, data := range jpegs(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want, wantErr := preprocess.DecodeJPEG(data)
		got, err := preprocess.DecodeJPEGFast(data)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("error %v, want %v", err, wantErr)
		}
		if !bytes.Equal(got, want) {
			t.Fatal("samples differ")
		}
	})
}
