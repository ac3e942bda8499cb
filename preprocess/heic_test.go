//go:build heic

package preprocess_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
)

// Pixels are pillow-heif's to a level, apart from subsampled chroma: see
// heic.Open. Orientation is libheif's; EXIF's is not applied on top.
func TestHEIC_Golden(t *testing.T) {
	var sizes map[string][2]int
	if err := json.Unmarshal(readFile(t, "testdata/heic/sizes.json"), &sizes); err != nil {
		t.Fatal(err)
	}
	d := newDecoder(t, preprocess.DefaultConfig())
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			p, err := decode(context.Background(), d, readFile(t, "testdata/heic/"+name+".heic"))
			if err != nil {
				t.Fatal(err)
			}
			if p.Width != size[0] || p.Height != size[1] {
				t.Fatalf("%d×%d pixels, want %v", p.Width, p.Height, size)
			}
			most, sum := 0, 0
			for i, want := range readFile(t, "testdata/heic/"+name+".rgb") {
				off := max(int(p.Pix[i])-int(want), int(want)-int(p.Pix[i]))
				most, sum = max(most, off), sum+off
			}
			mean := float64(sum) / float64(len(p.Pix))
			if subsampled := slices.Contains([]string{"420", "422", "odd"}, name); subsampled && mean > 3 || !subsampled && most > 1 {
				t.Errorf("off by %d at most, by %.2f in the mean", most, mean)
			}
		})
	}
}

func TestHEIC_Err(t *testing.T) {
	whole := readFile(t, "testdata/heic/irot1.heic")
	size := after(t, whole, "ispe\x00\x00\x00\x00")
	huge := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 60000), 60000)
	for _, tt := range []struct {
		name    string
		data    []byte
		code    refersam.Code
		message string
	}{
		{"of 60000×60000", patch(whole, size, huge...), refersam.CodeImageTooLarge, "60000×60000"},
		{"without pixels", whole[:after(t, whole, "mdat")], refersam.CodeInvalidImage, "HEIC"},
		{"of no size", patch(whole, size, 0, 0, 0, 0), refersam.CodeInvalidImage, "×0"},
		{"that says its brands only", whole[:28], refersam.CodeInvalidImage, "HEIC"},
	} {
		_, err := decode(context.Background(), newDecoder(t, preprocess.DefaultConfig()), tt.data)
		if refersam.ErrorCode(err) != tt.code || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("a picture %s: %v, want code %s and %q", tt.name, err, tt.code, tt.message)
		}
	}
}

// A deadline ends decoding while libheif is at it.
func TestHEIC_Deadline(t *testing.T) {
	data := readFile(t, "testdata/heic/444.heic")
	d := newDecoder(t, preprocess.DefaultConfig())
	if _, err := decode(t.Context(), d, data); err != nil { // which compiles libheif
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := decode(ctx, d, data); refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// FuzzOpenHEIC holds what fuzzHeader holds of the other formats.
func FuzzOpenHEIC(f *testing.F) {
	names, err := filepath.Glob("testdata/heic/*.heic")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		data := readFile(f, name)
		f.Add(data[:after(f, data, "mdat")])
	}
	cfg := preprocess.DefaultConfig()
	d := newDecoder(f, cfg)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := d.Open(t.Context(), data)
		if err != nil {
			expectClientError(t, err)
			return
		}
		defer e.Close()
		if width, height := e.Size(); width < 1 || height < 1 || width > cfg.MaxSide || height > cfg.MaxSide || width*height > cfg.MaxPixels {
			t.Fatalf("%d×%d pixels", width, height)
		}
	})
}
