package main_test

import (
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refersam/refersam/preprocess"
)

func TestPreprocess(t *testing.T) {
	picture := filepath.Join("..", "..", "preprocess", "testdata", "decode", "exif6.png")
	out := filepath.Join(t.TempDir(), "out.png")
	if code, _, errs := run(t, nil, "preprocess", picture, "--size", "32", "-o", out); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	data, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	decoder, err := preprocess.New(preprocess.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := decoder.Open(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	defer encoded.Close()
	decoded, err := encoded.Decode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := preprocess.Resize(decoded, 32, 32)

	_, piped, _ := run(t, nil, "preprocess", picture, "--size", "32", "-o", "-")
	written, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if piped != string(written) {
		t.Error("standard output and a file differ")
	}
	square, err := png.Decode(strings.NewReader(piped))
	if err != nil {
		t.Fatal(err)
	}
	if b := square.Bounds(); b.Dx() != 32 || b.Dy() != 32 {
		t.Fatalf("%v pixels", b)
	}
	for i := range 32 * 32 {
		r, g, b, a := square.At(i%32, i/32).RGBA()
		if got := [4]uint8{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), uint8(a >> 8)}; got != [4]uint8{want[3*i], want[3*i+1], want[3*i+2], 255} {
			t.Fatalf("pixel %d is %v, want %v", i, got, want[3*i:][:3])
		}
	}
}

func TestPreprocess_Pad(t *testing.T) {
	picture := filepath.Join("..", "..", "preprocess", "testdata", "decode", "rgb.png") // 13×9
	code, out, errs := run(t, nil, "preprocess", picture, "--size", "26", "--resize", "longest_side_pad", "-o", "-")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	square, err := png.Decode(strings.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	for y := range 26 {
		r, g, b, _ := square.At(5, y).RGBA()
		if padding := [3]uint32{r >> 8, g >> 8, b >> 8} == [3]uint32{124, 116, 104}; padding != (y >= 18) {
			t.Errorf("row %d is padding: %t", y, padding)
		}
	}
}

func TestPreprocess_Err(t *testing.T) {
	picture := filepath.Join("..", "..", "preprocess", "testdata", "decode", "rgb.png")
	for _, tt := range []struct {
		name    string
		args    []string
		code    int
		message string
	}{
		{"no size", []string{picture, "-o", "-"}, 2, "--size"},
		{"no output", []string{picture, "--size", "32"}, 2, "--output"},
		{"size 0", []string{picture, "--size", "0", "-o", "-"}, 1, "1 to 4096"},
		{"a wall", []string{picture, "--size", "60000", "-o", "-"}, 1, "1 to 4096"},
		{"another fit", []string{picture, "--size", "32", "--resize", "crop", "-o", "-"}, 2, "--resize"},
		{"no file", []string{"absent.png", "--size", "32", "-o", "-"}, 1, "absent.png"},
		{"no picture", []string{"-", "--size", "32", "-o", "-"}, 1, "not a picture in an accepted format"},
		{"no folder", []string{picture, "--size", "32", "-o", filepath.Join(t.TempDir(), "absent", "out.png")}, 1, "absent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := run(t, nil, append([]string{"preprocess"}, tt.args...)...)
			if code != tt.code || !strings.Contains(errs, tt.message) || out != "" && code != 2 {
				t.Errorf("exit %d, want %d; output %q, errors %q, want %q", code, tt.code, out, errs, tt.message)
			}
		})
	}
}
