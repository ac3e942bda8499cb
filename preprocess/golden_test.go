package preprocess_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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

// Decoded pictures equal Pillow's. Only the inverse DCT of image/jpeg rounds
// differently: a sample may be off by a few levels, the mean hardly.
func TestDecode_Golden(t *testing.T) {
	const (
		maxLossy  = 3
		meanLossy = 0.1
	)
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
			worst, sum := 0, 0
			for i := range want {
				diff := max(int(got.Pix[i])-int(want[i]), int(want[i])-int(got.Pix[i]))
				worst, sum = max(worst, diff), sum+diff
			}
			mean := float64(sum) / float64(len(want))
			t.Logf("max %d, mean %.4f", worst, mean)
			limit, meanLimit := 0, 0.0
			if filepath.Ext(g.Name) == ".jpg" && preprocess.JPEGDecoder != "libjpeg-turbo" {
				limit, meanLimit = maxLossy, meanLossy
			}
			if worst > limit || mean > meanLimit {
				t.Errorf("differs from Pillow by up to %d, mean %.4f; allowed %d, %.4f", worst, mean, limit, meanLimit)
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
		if sum := sha256.Sum256(got); hex.EncodeToString(sum[:]) != g.SHA256 {
			t.Errorf("%v to %v: samples differ from Pillow's", g.Size, g.Out)
		}
	}
}
