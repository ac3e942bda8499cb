package preprocess_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
)

// golden is what testdata/golden.py writes.
type golden struct {
	Decode []struct {
		Name          string
		Width, Height int
	}
	Resize []struct {
		Seed      uint32
		Size, Out [2]int
		SHA256    string
	}
	Reduce []struct {
		Denominator int
		Out         [2]int
		SHA256      string
	}
	Lenient []struct {
		Name   string
		Bytes  int
		SHA256 string
	}
}

// libjpeg reports whether this build has libjpeg-turbo.
const libjpeg = preprocess.JPEGDecoder == "libjpeg-turbo"

func sum(pixels []uint8) string {
	digest := sha256.Sum256(pixels)
	return hex.EncodeToString(digest[:])
}

func loadGolden(t testing.TB) golden {
	t.Helper()
	var g golden
	if err := json.Unmarshal(readFile(t, "testdata/golden.json"), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func newDecoder(t testing.TB, cfg preprocess.Config) *preprocess.Decoder {
	t.Helper()
	d, err := preprocess.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// decode does all that is done for one picture.
func decode(ctx context.Context, d *preprocess.Decoder, data []byte) (*refersam.Picture, error) {
	e, err := d.Open(ctx, data)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	p, err := e.Decode(ctx)
	if err != nil {
		return nil, err
	}
	if width, height := e.Size(); width != p.Width || height != p.Height {
		return nil, fmt.Errorf("the header claims %d×%d, the picture has %d×%d", width, height, p.Width, p.Height)
	}
	return p, nil
}

// noise repeats golden.py's generator.
func noise(width, height int, seed uint32) *refersam.Picture {
	p := &refersam.Picture{Width: width, Height: height, Pix: make([]uint8, 3*width*height)}
	for i := range p.Pix {
		seed = seed*1664525 + 1013904223
		p.Pix[i] = uint8(seed >> 24)
	}
	return p
}

// Decoded pictures equal Pillow's, whatever decodes JPEG.
func TestDecode_Golden(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	for _, g := range loadGolden(t).Decode {
		t.Run(g.Name, func(t *testing.T) {
			got, err := decode(context.Background(), d, readFile(t, "testdata/decode/"+g.Name))
			if err != nil {
				t.Fatal(err)
			}
			want := readFile(t, "testdata/decode/"+g.Name+".rgb")
			if got.Width != g.Width || got.Height != g.Height || len(got.Pix) != len(want) {
				t.Fatalf("got %d×%d with %d bytes, want %d×%d with %d",
					got.Width, got.Height, len(got.Pix), g.Width, g.Height, len(want))
			}
			for i := range want {
				if got.Pix[i] != want[i] {
					t.Fatalf("sample %d is %d, Pillow's %d", i, got.Pix[i], want[i])
				}
			}
		})
	}
}

func TestResize_Golden(t *testing.T) {
	for _, g := range loadGolden(t).Resize {
		got := preprocess.Resize(noise(g.Size[0], g.Size[1], g.Seed), g.Out[0], g.Out[1])
		if len(got) != 3*g.Out[0]*g.Out[1] {
			t.Errorf("%v to %v: %d samples", g.Size, g.Out, len(got))
		}
		if sum(got) != g.SHA256 {
			t.Errorf("%v to %v: samples differ from Pillow's", g.Size, g.Out)
		}
	}
}

// A reduced JPEG equals what Pillow's draft mode gives.
func TestStretch_ReduceJPEG(t *testing.T) {
	cfg := preprocess.DefaultConfig()
	cfg.ReduceJPEG = true
	if !libjpeg {
		if err := cfg.Validate(); err == nil {
			t.Fatal("a build without libjpeg takes the option")
		}
		return
	}
	data := readFile(t, "testdata/decode/large.jpg")
	for _, g := range loadGolden(t).Reduce {
		pixels, err := stretch(newDecoder(t, cfg), data, g.Out[0], g.Out[1])
		if err != nil {
			t.Fatal(err)
		}
		if sum(pixels) != g.SHA256 {
			t.Errorf("at 1/%d, resized to %v: samples differ from Pillow's", g.Denominator, g.Out)
		}
		exact, err := stretch(newDecoder(t, preprocess.DefaultConfig()), data, g.Out[0], g.Out[1])
		if err != nil {
			t.Fatal(err)
		}
		if same := sum(exact) == g.SHA256; same != (g.Denominator == 1) {
			t.Errorf("at 1/%d, without the option: the same samples is %v", g.Denominator, same)
		}
	}
}

// A JPEG that was cut off is as grey at its end as Pillow's.
func TestDecode_LenientJPEG(t *testing.T) {
	cfg := preprocess.DefaultConfig()
	cfg.LenientJPEG = true
	if !libjpeg {
		if err := cfg.Validate(); err == nil {
			t.Fatal("a build without libjpeg takes the option")
		}
		return
	}
	for _, g := range loadGolden(t).Lenient {
		data := readFile(t, "testdata/decode/"+g.Name)[:g.Bytes]
		p, err := decode(context.Background(), newDecoder(t, cfg), data)
		if err != nil {
			t.Fatal(g.Name, err)
		}
		if sum(p.Pix) != g.SHA256 {
			t.Errorf("%s: samples differ from Pillow's", g.Name)
		}
		_, err = decode(context.Background(), newDecoder(t, preprocess.DefaultConfig()), data)
		if err == nil || !strings.Contains(err.Error(), "The JPEG is cut off: its data ends before the picture does.") {
			t.Errorf("%s, without the option: %v", g.Name, err)
		}
	}
}

func stretch(d *preprocess.Decoder, data []byte, width, height int) ([]uint8, error) {
	e, err := d.Open(context.Background(), data)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	return e.Stretch(context.Background(), width, height)
}
