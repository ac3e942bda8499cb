package postprocess_test

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// drawLogits draws noise, or whole numbers. With whole numbers, many upsampled
// values equal the threshold but for rounding.
func drawLogits(t *rapid.T) refersam.Logits {
	width, height := rapid.IntRange(1, 12).Draw(t, "in width"), rapid.IntRange(1, 12).Draw(t, "in height")
	seed := rapid.Uint32().Draw(t, "seed")
	if rapid.Bool().Draw(t, "noise") {
		return noiseLogits(width, height, seed)
	}
	l := levelLogits(width, height, seed, rapid.Uint32Range(1, 5).Draw(t, "levels"))
	scale := rapid.SampledFrom([]float32{1, 1e-38, 1e-44, 1e30 / 2}).Draw(t, "scale")
	for i := range l.Values {
		l.Values[i] *= scale
	}
	return l
}

// drawSize draws sizes on both sides of the size at which torch changes its kernel.
func drawSize(t *rapid.T) (width, height int) {
	return rapid.IntRange(1, 130).Draw(t, "width"), rapid.IntRange(1, 130).Draw(t, "height")
}

// Masks are computed from the corners of cells; they must equal the masks of all
// upsampled values.
func TestMask_EqualsUpsample(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLogits(t)
		width, height := drawSize(t)
		// The threshold of a logit that occurs, or any threshold.
		threshold := rapid.SampledFrom([]float64{0.5, 1 / (1 + math.Exp(-1)), 1 / (1 + math.Exp(1))}).Draw(t, "level")
		if rapid.Bool().Draw(t, "any threshold") {
			threshold = rapid.Float64Range(0.01, 0.99).Draw(t, "threshold")
		}
		got, err := postprocess.Segment(l, width, height, postprocess.Options{Threshold: threshold})
		if err != nil {
			t.Fatal(err)
		}
		values, err := postprocess.Upsample(l, width, height)
		if err != nil {
			t.Fatal(err)
		}
		area, sum := 0, 0.0
		pix := make([]uint8, len(values))
		for i, v := range values {
			if float64(v) >= math.Log(threshold/(1-threshold)) {
				pix[i] = 1
				area++
				sum += 1 / (1 + math.Exp(-float64(v)))
			}
		}
		if diff := cmp.Diff(postprocess.FromPixels(pix, width, height), got.Mask); diff != "" {
			t.Fatalf("mask differs (-want +got):\n%s", diff)
		}
		if got.Area != area {
			t.Fatalf("area %d, want %d", got.Area, area)
		}
		const tolerance = 1e-6
		if slices.Max(l.Values) > 1e6 || slices.Min(l.Values) < -1e6 {
			return // float32 has no digits left for probabilities
		}
		if area > 0 && math.Abs(got.Score-sum/float64(area)) > tolerance || area == 0 && got.Score != 0 {
			t.Fatalf("score %v of area %d, want the mean of %v", got.Score, area, sum)
		}
	})
}

func TestSegment_Threshold(t *testing.T) {
	hair := math.Nextafter32(0, -1)
	l := refersam.Logits{Width: 3, Height: 1, Values: []float32{hair, 0, 1}}
	got, err := postprocess.Segment(l, 3, 1, postprocess.Options{Threshold: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if score := (0.5 + 1/(1+math.Exp(-1))) / 2; math.Abs(got.Score-score) > 1e-6 {
		t.Errorf("score %v, want %v", got.Score, score)
	}
	got.Score = 0
	want := postprocess.Segmentation{
		Mask: &refersam.Mask{Width: 3, Height: 1, Runs: []uint32{1, 2}},
		Area: 2,
		Box:  refersam.Box{X: 1, Y: 0, W: 2, H: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSegment_Empty(t *testing.T) {
	l := refersam.Logits{Width: 2, Height: 2, Values: []float32{-1, -2, -3, -4}}
	got, err := postprocess.Segment(l, 5, 4, postprocess.Options{Threshold: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	want := postprocess.Segmentation{Mask: &refersam.Mask{Width: 5, Height: 4, Runs: []uint32{20}}}
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
		{"near infinity", one(3e38), 4, 4, 0.5},
		{"threshold 0", one(1), 4, 4, 0},
		{"threshold 1", one(1), 4, 4, 1},
		{"threshold NaN", one(1), 4, 4, math.NaN()},
		{"no width", one(1), 0, 4, 0.5},
		{"negative height", one(1), 4, -1, 0.5},
		{"more pixels than allowed", one(1), 1 << 15, 1 << 15, 0.5},
		{"no logits", refersam.Logits{}, 4, 4, 0.5},
		{"too few logits", refersam.Logits{Width: 2, Height: 2, Values: make([]float32, 3)}, 4, 4, 0.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := postprocess.Segment(tt.logits, tt.width, tt.height, postprocess.Options{Threshold: tt.threshold})
			if err == nil || refersam.ErrorCode(err) != refersam.CodeInternal {
				t.Errorf("got %v and error %v, want a plain error", got, err)
			}
			if _, err := postprocess.Stability(tt.logits, tt.width, tt.height, tt.threshold, 1); err == nil {
				t.Error("stability: no error")
			}
		})
	}
}

// A long column in one cell, where rounding errors could add up.
func TestMeanProbability_Long(t *testing.T) {
	l := refersam.Logits{Width: 1, Height: 1, Values: []float32{1}}
	s, err := postprocess.Segment(l, 3, 1<<20, postprocess.Options{Threshold: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	if want := 1 / (1 + math.Exp(-1)); math.Abs(s.Score-want) > 1e-6 {
		t.Errorf("score %v, want %v", s.Score, want)
	}
}

func TestStability(t *testing.T) {
	// The logits rise by 1 every 10 pixels: thresholds 2.1 apart move the edge by 21.
	l := refersam.Logits{Width: 2, Height: 1, Values: []float32{-5, 5}}
	got, err := postprocess.Stability(l, 101, 10, 0.5, 1.05)
	if err != nil {
		t.Fatal(err)
	}
	if want := 40.0 / 61; got != want {
		t.Errorf("stability %v, want %v", got, want)
	}
	empty := refersam.Logits{Width: 1, Height: 1, Values: []float32{-5}}
	if got, err := postprocess.Stability(empty, 7, 7, 0.5, 1); err != nil || got != 1 {
		t.Errorf("stability of nothing %v, %v; want 1", got, err)
	}
}

// Apart from the result, 12 megapixels take at most 4 MB. The test counts
// everything that is allocated, including memory that is freed before the end.
func TestMemory(t *testing.T) {
	const (
		width, height = 4032, 3024
		most          = 4 << 20
	)
	smooth, noise := blobLogits(112, 112), noiseLogits(256, 256, 1)
	picture := &refersam.Picture{Width: width, Height: height, Pix: make([]uint8, 3*width*height)}
	tint := postprocess.Tint{R: 255, Opacity: 0.5}
	mask := func(l refersam.Logits) *refersam.Mask {
		m, err := postprocess.Mask(l, width, height, postprocess.Options{Threshold: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	smoothMask, noiseMask := mask(smooth), mask(noise)
	for _, tt := range []struct {
		name string
		// run returns the bytes of its result; output that is written does not
		// count.
		run func() (int, error)
	}{
		{"mask", func() (int, error) { return 4 * len(mask(smooth).Runs), nil }},
		{"mask of noise", func() (int, error) { return 4 * len(mask(noise).Runs), nil }},
		{"segment", func() (int, error) {
			s, err := postprocess.Segment(smooth, width, height, postprocess.Options{Threshold: 0.5, FillHoles: 9, Largest: true})
			return 4 * len(s.Mask.Runs), err
		}},
		{"RLE", func() (int, error) { return len(postprocess.RLE(smoothMask)), nil }},
		{"RLE of noise", func() (int, error) { return len(postprocess.RLE(noiseMask)), nil }},
		{"polygons", func() (int, error) { return 0, keep(postprocess.Polygons(smoothMask, 0)) }},
		{"PNG", func() (int, error) { return 0, postprocess.EncodePNG(nowhere{}, smoothMask) }},
		{"PNG of noise", func() (int, error) { return 0, postprocess.EncodePNG(nowhere{}, noiseMask) }},
		{"8-bit PNG", func() (int, error) { return 0, postprocess.EncodePNG8(nowhere{}, smoothMask) }},
		{"probability", func() (int, error) { return 0, postprocess.EncodeProbability(nowhere{}, smooth, width, height) }},
		{"overlay PNG", func() (int, error) { return 0, postprocess.EncodeOverlayPNG(nowhere{}, picture, smoothMask, tint) }},
		{"overlay JPEG", func() (int, error) {
			return 0, postprocess.EncodeOverlayJPEG(nowhere{}, picture, smoothMask, tint, 85)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			result, err := tt.run()
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			beyond := int(after.TotalAlloc-before.TotalAlloc) - result
			t.Logf("%.2f MB beyond a result of %.2f MB", float64(beyond)/1e6, float64(result)/1e6)
			if beyond > most {
				t.Errorf("%d bytes beyond the result, want at most %d", beyond, most)
			}
		})
	}
}

func keep(any) error { return nil }

type nowhere struct{}

func (nowhere) Write(data []byte) (int, error) { return len(data), nil }
