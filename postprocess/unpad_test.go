package postprocess_test

import (
	"math"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// Values and masks are the results of the same steps in torch: interpolate to the
// square, slice, interpolate to the picture.
func TestUnpad_Golden(t *testing.T) {
	cases := loadGolden(t).Unpad
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, g := range cases {
		inside, err := postprocess.Unpad(levelLogits(g.Side, g.Side, g.Seed, 5), 4*g.Side, g.Inside[0], g.Inside[1])
		if err != nil {
			t.Fatal(err)
		}
		if inside.Width != g.Inside[0] || inside.Height != g.Inside[1] || len(inside.Values) != g.Inside[0]*g.Inside[1] {
			t.Fatalf("%v: %d values for %d×%d", g.Inside, len(inside.Values), inside.Width, inside.Height)
		}
		for i, want := range g.Values {
			if got := inside.Values[i*97]; math.Float32bits(got) != math.Float32bits(want) && (want != 0 || got != 0) {
				t.Fatalf("%v: value %d is %v, want %v", g.Inside, i*97, got, want)
			}
		}
		m, err := postprocess.Mask(inside, g.Out[0], g.Out[1], postprocess.Options{Threshold: 0.5})
		if err != nil {
			t.Fatal(err)
		}
		if postprocess.RLE(m) != g.Counts {
			t.Errorf("%v to %v: mask differs", g.Inside, g.Out)
		}
	}
}

func TestUnpad_Err(t *testing.T) {
	good := refersam.Logits{Width: 2, Height: 2, Values: make([]float32, 4)}
	for name, tt := range map[string]struct {
		logits              refersam.Logits
		size, width, height int
	}{
		"no width":      {good, 8, 0, 8},
		"no height":     {good, 8, 8, 0},
		"too wide":      {good, 8, 9, 8},
		"too high":      {good, 8, 8, 9},
		"no square":     {good, 0, 0, 0},
		"no logits":     {refersam.Logits{}, 8, 8, 8},
		"missing value": {refersam.Logits{Width: 2, Height: 2, Values: make([]float32, 3)}, 8, 8, 8},
		"not a number":  {refersam.Logits{Width: 1, Height: 1, Values: []float32{float32(math.NaN())}}, 8, 8, 8},
	} {
		if _, err := postprocess.Unpad(tt.logits, tt.size, tt.width, tt.height); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
