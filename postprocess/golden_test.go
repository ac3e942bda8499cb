package postprocess_test

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// golden holds the data that testdata/golden.py writes.
type golden struct {
	Upsample []struct {
		Seed      uint32
		Levels    uint32
		Size, Out [2]int
		Step      int
		Values    []float32
		Counts    string
	}
	Unpad []struct {
		Seed        uint32
		Side        int
		Inside, Out [2]int
		Values      []float32
		Counts      string
	}
	Segment []struct {
		Size, Out [2]int
		Threshold float64
		Area      int
		Box       [4]int
		Score     float64
		Counts    string
	}
	RLE []struct {
		Seed   uint32
		Size   [2]int
		Share  uint32
		Counts string
		// Areas are the components' areas, Filled the pixel counts without holes.
		Areas  []int
		Filled string
	}
}

func loadGolden(t testing.TB) golden {
	t.Helper()
	data, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// draw, noiseLogits, levelLogits and blobLogits repeat golden.py's functions.
func draw(n int, seed uint32) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		seed = seed*1664525 + 1013904223
		out[i] = seed >> 16
	}
	return out
}

func noiseLogits(width, height int, seed uint32) refersam.Logits {
	l := refersam.Logits{Width: width, Height: height, Values: make([]float32, width*height)}
	for i, v := range draw(len(l.Values), seed) {
		l.Values[i] = (float32(v) - 32768) / 4096
	}
	return l
}

func levelLogits(width, height int, seed, levels uint32) refersam.Logits {
	l := refersam.Logits{Width: width, Height: height, Values: make([]float32, width*height)}
	for i, v := range draw(len(l.Values), seed) {
		l.Values[i] = float32(int(v%levels) - int(levels/2))
	}
	return l
}

func blobLogits(width, height int) refersam.Logits {
	l := refersam.Logits{Width: width, Height: height, Values: make([]float32, width*height)}
	disc := func(x, y, cx, cy, r int) int { return r*r - (x-cx)*(x-cx) - (y-cy)*(y-cy) }
	for y := range height {
		for x := range width {
			v := max(disc(x, y, width/3, height/2, width/4), disc(x, y, width*3/4, height/4, width/8))
			l.Values[y*width+x] = float32(v) / 16
		}
	}
	return l
}

func noiseMask(width, height int, seed, share uint32) *refersam.Mask {
	pix := make([]uint8, width*height)
	for i, v := range draw(len(pix), seed) {
		if v < share {
			pix[i] = 1
		}
	}
	return postprocess.FromPixels(pix, width, height)
}

// Every value equals torch's, to the last bit, and so does every pixel at threshold
// one half. If logits are whole numbers, many values would be 0 but for rounding.
func TestUpsample_Golden(t *testing.T) {
	for _, g := range loadGolden(t).Upsample {
		l := noiseLogits(g.Size[0], g.Size[1], g.Seed)
		if g.Levels > 0 {
			l = levelLogits(g.Size[0], g.Size[1], g.Seed, g.Levels)
		}
		got, err := postprocess.Upsample(l, g.Out[0], g.Out[1])
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != g.Out[0]*g.Out[1] {
			t.Fatalf("%v to %v: %d values", g.Size, g.Out, len(got))
		}
		different := 0
		for i, want := range g.Values {
			if math.Float32bits(got[i*g.Step]) != math.Float32bits(want) && (want != 0 || got[i*g.Step] != 0) {
				different++
			}
		}
		if different > 0 {
			t.Errorf("%v to %v: %d of %d values differ", g.Size, g.Out, different, len(g.Values))
		}
		m, err := postprocess.Mask(l, g.Out[0], g.Out[1], postprocess.Options{Threshold: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		if g.Counts != "" && postprocess.RLE(m) != g.Counts {
			t.Errorf("%v to %v: mask differs", g.Size, g.Out)
		}
	}
}

func TestSegment_Golden(t *testing.T) {
	const scoreTolerance = 1e-6
	for _, g := range loadGolden(t).Segment {
		got, err := postprocess.Segment(blobLogits(g.Size[0], g.Size[1]), g.Out[0], g.Out[1],
			postprocess.Options{Threshold: g.Threshold})
		if err != nil {
			t.Fatal(err)
		}
		box := refersam.Box{X: g.Box[0], Y: g.Box[1], W: g.Box[2], H: g.Box[3]}
		if got.Area != g.Area || got.Box != box || math.Abs(got.Score-g.Score) > scoreTolerance {
			t.Errorf("%v to %v at %v: area %d, box %v, score %v; want %d, %v, %v",
				g.Size, g.Out, g.Threshold, got.Area, got.Box, got.Score, g.Area, box, g.Score)
		}
		if diff := cmp.Diff(g.Counts, postprocess.RLE(got.Mask)); diff != "" {
			t.Errorf("%v to %v at %v: mask differs (-want +got):\n%s", g.Size, g.Out, g.Threshold, diff)
		}
	}
}

func TestRLE_Golden(t *testing.T) {
	for _, g := range loadGolden(t).RLE {
		m := noiseMask(g.Size[0], g.Size[1], g.Seed, g.Share)
		if diff := cmp.Diff(g.Counts, postprocess.RLE(m)); diff != "" {
			t.Errorf("%v, share %d: counts differ (-want +got):\n%s", g.Size, g.Share, diff)
		}
		back, err := postprocess.DecodeRLE(g.Counts, g.Size[0], g.Size[1])
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Errorf("%v, share %d: decoded mask differs (-want +got):\n%s", g.Size, g.Share, diff)
		}
	}
}

func TestClean_Golden(t *testing.T) {
	for _, g := range loadGolden(t).RLE {
		m := noiseMask(g.Size[0], g.Size[1], g.Seed, g.Share)
		var areas []int
		for _, c := range postprocess.Components(m) {
			areas = append(areas, c.Area)
		}
		if !slices.Equal(areas, g.Areas) {
			t.Errorf("%v, share %d: components of %v, want %v", g.Size, g.Share, areas, g.Areas)
		}
		filled := postprocess.Clean(m, postprocess.Options{FillHoles: math.MaxInt})
		if got := postprocess.RLE(filled); got != g.Filled {
			t.Errorf("%v, share %d: filled %q, want %q", g.Size, g.Share, got, g.Filled)
		}
	}
}
