package postprocess_test

import (
	"bytes"
	"image"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

func drawMask(t *rapid.T) *refersam.Mask {
	m := &refersam.Mask{Width: rapid.IntRange(1, 40).Draw(t, "width"), Height: rapid.IntRange(1, 40).Draw(t, "height")}
	m.Pix = make([]uint8, m.Width*m.Height)
	// Runs, so that long ones occur too.
	for i := 0; i < len(m.Pix); {
		run := rapid.IntRange(1, len(m.Pix)).Draw(t, "run")
		value := rapid.Uint8Range(0, 1).Draw(t, "value")
		for ; run > 0 && i < len(m.Pix); run-- {
			m.Pix[i] = value
			i++
		}
	}
	return m
}

func TestRLE_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawMask(t)
		got, err := postprocess.DecodeRLE(postprocess.RLE(want), want.Width, want.Height)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("mask differs (-want +got):\n%s", diff)
		}
	})
}

func TestDecodeRLE_Err(t *testing.T) {
	for _, tt := range []struct {
		name, counts  string
		width, height int
	}{
		{"empty", "", 2, 2},
		{"too short", "3", 2, 2},
		{"too long", "5", 2, 2},
		{"pixels after the end", "41", 2, 2},
		{"negative", "O", 2, 2},
		{"below the alphabet", "/", 2, 2},
		{"above the alphabet", "p", 2, 2},
		{"not ASCII", "4\xff", 2, 2},
		{"cut off within a number", "P", 2, 2},
		{"number without end", strings.Repeat("P", 100), 2, 2},
		{"no width", "0", 0, 2},
		{"negative height", "0", 2, -2},
		{"more pixels than memory", "0", math.MaxInt, math.MaxInt},
		{"more pixels than allowed", "0", 1 << 15, 1 << 15},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := postprocess.DecodeRLE(tt.counts, tt.width, tt.height); err == nil {
				t.Errorf("got a mask of %d×%d, want an error", m.Width, m.Height)
			}
		})
	}
}

// FuzzDecodeRLE holds that whatever is accepted is a mask of the size asked
// for, and that encoding it gives a string that means the same.
func FuzzDecodeRLE(f *testing.F) {
	for _, g := range loadGolden(f).RLE {
		if g.Size[0]*g.Size[1] < 4096 {
			f.Add(g.Counts, g.Size[0], g.Size[1])
		}
	}
	f.Fuzz(func(t *testing.T, counts string, width, height int) {
		if width > 256 || height > 256 {
			t.Skip("keeps the fuzzer fast")
		}
		m, err := postprocess.DecodeRLE(counts, width, height)
		if err != nil {
			return
		}
		if m.Width != width || m.Height != height || len(m.Pix) != width*height {
			t.Fatalf("mask of %d×%d with %d pixels, want %d×%d", m.Width, m.Height, len(m.Pix), width, height)
		}
		again, err := postprocess.DecodeRLE(postprocess.RLE(m), width, height)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Pix, again.Pix) {
			t.Fatal("mask changed")
		}
	})
}

func TestEncodePNG_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMask(t)
		var buf bytes.Buffer
		if err := postprocess.EncodePNG(&buf, m); err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(&buf)
		if err != nil {
			t.Fatal(err)
		}
		gray, ok := img.(*image.Gray)
		if !ok || gray.Rect != image.Rect(0, 0, m.Width, m.Height) {
			t.Fatalf("got a %T of %v, want %d×%d gray", img, img.Bounds(), m.Width, m.Height)
		}
		for y := range m.Height {
			for x := range m.Width {
				if got, want := gray.GrayAt(x, y).Y, 255*m.Pix[y*m.Width+x]; got != want {
					t.Fatalf("(%d, %d) is %d, want %d", x, y, got, want)
				}
			}
		}
	})
}

func TestEncodePNG_Err(t *testing.T) {
	for name, m := range map[string]*refersam.Mask{
		"no pixels":   {},
		"wrong count": {Width: 2, Height: 2, Pix: make([]uint8, 3)},
		"negative":    {Width: -2, Height: -2, Pix: make([]uint8, 4)},
	} {
		if err := postprocess.EncodePNG(io.Discard, m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := postprocess.EncodePNG(brokenWriter{}, noiseMask(2, 2, 0, 1)); err == nil {
		t.Error("writer's error is lost")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Segment works row by row; it must say what Upsample's plane says.
func TestSegment_EqualsUpsample(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := noiseLogits(rapid.IntRange(1, 12).Draw(t, "in width"), rapid.IntRange(1, 12).Draw(t, "in height"),
			rapid.Uint32().Draw(t, "seed"))
		width, height := rapid.IntRange(1, 40).Draw(t, "width"), rapid.IntRange(1, 40).Draw(t, "height")
		threshold := rapid.Float64Range(0.01, 0.99).Draw(t, "threshold")
		got, err := postprocess.Segment(l, width, height, threshold)
		if err != nil {
			t.Fatal(err)
		}
		area, sum, box := 0, 0.0, image.Rectangle{}
		for i, v := range postprocess.Upsample(l, width, height) {
			var want uint8
			if float64(v) >= math.Log(threshold/(1-threshold)) {
				want = 1
				area++
				sum += 1 / (1 + math.Exp(-float64(v)))
				box = box.Union(image.Rect(i%width, i/width, i%width+1, i/width+1))
			}
			if got.Mask.Pix[i] != want {
				t.Fatalf("pixel %d with logit %v is %d", i, v, got.Mask.Pix[i])
			}
		}
		wantBox := refersam.Box{X: box.Min.X, Y: box.Min.Y, W: box.Dx(), H: box.Dy()}
		if got.Mask.Width != width || got.Mask.Height != height || got.Area != area || got.Box != wantBox {
			t.Fatalf("%d×%d, area %d, box %v; want %d×%d, %d, %v", got.Mask.Width, got.Mask.Height,
				got.Area, got.Box, width, height, area, wantBox)
		}
		if area > 0 && math.Abs(got.Score-sum/float64(area)) > 1e-12 || area == 0 && got.Score != 0 {
			t.Fatalf("score %v of area %d, want the mean of %v", got.Score, area, sum)
		}
	})
}

func TestSegment_Threshold(t *testing.T) {
	hair := math.Nextafter32(0, -1)
	l := refersam.Logits{Width: 3, Height: 1, Values: []float32{hair, 0, 1}}
	got, err := postprocess.Segment(l, 3, 1, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	want := postprocess.Segmentation{
		Mask:  &refersam.Mask{Width: 3, Height: 1, Pix: []uint8{0, 1, 1}},
		Score: (0.5 + 1/(1+math.Exp(-1))) / 2,
		Area:  2,
		Box:   refersam.Box{X: 1, Y: 0, W: 2, H: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSegment_Empty(t *testing.T) {
	l := refersam.Logits{Width: 2, Height: 2, Values: []float32{-1, -2, -3, -4}}
	got, err := postprocess.Segment(l, 5, 4, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	want := postprocess.Segmentation{Mask: &refersam.Mask{Width: 5, Height: 4, Pix: make([]uint8, 20)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSegment_Err(t *testing.T) {
	one := func(v float64) refersam.Logits {
		return refersam.Logits{Width: 2, Height: 1, Values: []float32{0, float32(v)}}
	}
	for _, tt := range []struct {
		name          string
		logits        refersam.Logits
		width, height int
		threshold     float64
	}{
		{"NaN", one(math.NaN()), 4, 4, 0.5},
		{"infinity", one(math.Inf(1)), 4, 4, 0.5},
		{"negative infinity", one(math.Inf(-1)), 4, 4, 0.5},
		{"threshold 0", one(1), 4, 4, 0},
		{"threshold 1", one(1), 4, 4, 1},
		{"threshold NaN", one(1), 4, 4, math.NaN()},
		{"no width", one(1), 0, 4, 0.5},
		{"negative height", one(1), 4, -1, 0.5},
		{"no logits", refersam.Logits{}, 4, 4, 0.5},
		{"too few logits", refersam.Logits{Width: 2, Height: 2, Values: make([]float32, 3)}, 4, 4, 0.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := postprocess.Segment(tt.logits, tt.width, tt.height, tt.threshold)
			if err == nil || refersam.ErrorCode(err) != refersam.CodeInternal {
				t.Errorf("got %v and error %v, want a plain error", got, err)
			}
		})
	}
}

// Benchmarks use the size of a Full HD picture and logits of a 1024² model;
// MB/s are those of a byte mask. Floor: copying it runs at some 45 GB/s.
const benchWidth, benchHeight = 1920, 1080

func benchMask(b *testing.B) *refersam.Mask {
	s, err := postprocess.Segment(blobLogits(256, 256), benchWidth, benchHeight, 0.5)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(s.Mask.Pix)))
	b.ReportAllocs()
	return s.Mask
}

func BenchmarkSegment(b *testing.B) {
	l := blobLogits(256, 256)
	benchMask(b)
	for b.Loop() {
		if _, err := postprocess.Segment(l, benchWidth, benchHeight, 0.5); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRLE(b *testing.B) {
	m := benchMask(b)
	for b.Loop() {
		postprocess.RLE(m)
	}
}

func BenchmarkDecodeRLE(b *testing.B) {
	counts := postprocess.RLE(benchMask(b))
	for b.Loop() {
		if _, err := postprocess.DecodeRLE(counts, benchWidth, benchHeight); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodePNG(b *testing.B) {
	m := benchMask(b)
	for b.Loop() {
		if err := postprocess.EncodePNG(io.Discard, m); err != nil {
			b.Fatal(err)
		}
	}
}
