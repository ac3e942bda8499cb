package postprocess_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// golden is what testdata/golden.py writes.
type golden struct {
	Upsample []struct {
		Seed      uint32
		Size, Out [2]int
		Step      int
		Values    []float32
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

// draw, noiseLogits and blobLogits repeat golden.py's functions.
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
	m := &refersam.Mask{Width: width, Height: height, Pix: make([]uint8, width*height)}
	for i, v := range draw(len(m.Pix), seed) {
		if v < share {
			m.Pix[i] = 1
		}
	}
	return m
}

func TestUpsample_Golden(t *testing.T) {
	const tolerance = 1e-5
	for _, g := range loadGolden(t).Upsample {
		got := postprocess.Upsample(noiseLogits(g.Size[0], g.Size[1], g.Seed), g.Out[0], g.Out[1])
		if len(got) != g.Out[0]*g.Out[1] {
			t.Fatalf("%v to %v: %d values", g.Size, g.Out, len(got))
		}
		worst := 0.0
		for i, want := range g.Values {
			worst = max(worst, math.Abs(float64(got[i*g.Step]-want)))
		}
		t.Logf("%v to %v: %d values, max error %.2g", g.Size, g.Out, len(g.Values), worst)
		if worst > tolerance {
			t.Errorf("%v to %v: max error %g, want at most %g", g.Size, g.Out, worst, tolerance)
		}
	}
}

func TestSegment_Golden(t *testing.T) {
	const scoreTolerance = 1e-6
	for _, g := range loadGolden(t).Segment {
		got, err := postprocess.Segment(blobLogits(g.Size[0], g.Size[1]), g.Out[0], g.Out[1], g.Threshold)
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
