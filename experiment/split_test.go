package experiment_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/refersam/refersam/experiment"
	"pgregory.net/rapid"
)

func TestParseSplit(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"bert:50,clip:50", "bert:50,clip:50"},
		{" clip : 10 , bert : 90 ", "bert:90,clip:10"},
		{"bert:1", "bert:1"},
		{"bert:0,clip:3", "bert:0,clip:3"},
	} {
		s, err := experiment.ParseSplit(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
		} else if got := s.String(); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
		}
	}
}

func TestParseSplit_Errors(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", `"" is not of the form name:weight`},
		{"bert", `"bert" is not of the form`},
		{"bert:50,", `"" is not of the form`},
		{":50", `":50" is not of the form`},
		{"bert:50,bert:50", `"bert" is named twice`},
		{"bert:half", `the weight of "bert" is "half"`},
		{"bert:-1,clip:2", `the weight of "bert" is "-1"`},
		{"bert:0.5", `the weight of "bert" is "0.5"`},
		{"bert:0,clip:0", "at least one weight must be positive"},
		{"bert:99999999999999999999", "want an integer"},
	} {
		if _, err := experiment.ParseSplit(tc.in); err == nil {
			t.Errorf("%q: no error", tc.in)
		} else if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: error %q does not say %q", tc.in, err, tc.want)
		}
	}
}

// Assignments made by one release must hold in the next: these were written
// down once.
func TestSplit_Assign_Stable(t *testing.T) {
	s := mustParse(t, "bert:50,clip:50")
	got := ""
	for i := range 16 {
		got += s.Assign(fmt.Sprintf("unit-%d", i))[:1]
	}
	if want := "cbcbbbcbccbbccbc"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSplit_Assign_Distribution(t *testing.T) {
	s := mustParse(t, "a:1,b:2,c:7,off:0")
	const units = 50_000
	count := make(map[string]float64)
	for i := range units {
		count[s.Assign(fmt.Sprintf("10.0.%d.%d", i/256, i%256))]++
	}
	for _, name := range append(s.Variants(), "") {
		p := s.Share(name)
		if got, slack := count[name]/units, 5*math.Sqrt(p*(1-p)/units); math.Abs(got-p) > slack {
			t.Errorf("%q got %.4f of the units, want %.4f ± %.4f", name, got, p, slack)
		}
	}
}

func TestSplit_Assign_Properties(t *testing.T) {
	weights := rapid.MapOfN(rapid.StringMatching(`[a-e]`), rapid.IntRange(0, 100), 1, 5).
		Filter(func(m map[string]int) bool {
			for _, w := range m {
				if w > 0 {
					return true
				}
			}
			return false
		})
	rapid.Check(t, func(t *rapid.T) {
		before := weights.Draw(t, "weights")
		unit := rapid.String().Draw(t, "unit")
		split := must(t, before)
		was := split.Assign(unit)
		if before[was] == 0 {
			t.Fatalf("%q went to %q, which has no weight in %s", unit, was, split)
		}
		again, err := experiment.ParseSplit(split.String())
		if err != nil {
			t.Fatal(err)
		}
		if got := again.Assign(unit); got != was {
			t.Fatalf("%q moved from %q to %q with the same weights", unit, was, got)
		}

		changed := rapid.SampledFrom(split.Variants()).Draw(t, "changed")
		after := make(map[string]int)
		for name, w := range before {
			after[name] = w
		}
		after[changed] += rapid.IntRange(1, 100).Draw(t, "raise")
		if is := must(t, after).Assign(unit); is != was && is != changed {
			t.Fatalf("raising %q moved %q from %q to %q", changed, unit, was, is)
		}
	})
}

func TestSplit_Zero(t *testing.T) {
	var s experiment.Split
	if got := s.Assign("anyone"); got != "" {
		t.Errorf("the zero Split assigned %q", got)
	}
	if got := s.Share("bert"); got != 0 {
		t.Errorf("the zero Split shares %v", got)
	}
}

func must(t *rapid.T, weights map[string]int) experiment.Split {
	s, err := experiment.NewSplit(weights)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustParse(t *testing.T, s string) experiment.Split {
	t.Helper()
	split, err := experiment.ParseSplit(s)
	if err != nil {
		t.Fatal(err)
	}
	return split
}

// Splits with different salts draw independently: of the units that one gives to a,
// the other gives a its own share.
func TestSplit_WithSalt(t *testing.T) {
	one, err := experiment.ParseSplit("a:30,b:70")
	if err != nil {
		t.Fatal(err)
	}
	other := one.WithSalt("another experiment")
	var first, both float64
	const units = 20_000
	for i := range units {
		unit := fmt.Sprint("unit-", i)
		if one.Assign(unit) == "a" {
			first++
			if other.Assign(unit) == "a" {
				both++
			}
		}
	}
	// The standard deviation of both/first is 0.006.
	if got := both / first; math.Abs(got-0.3) > 0.025 {
		t.Errorf("%.3f of the units of one split get the same variant by the other, want 0.3", got)
	}
	if got := first / units; math.Abs(got-0.3) > 0.015 {
		t.Errorf("the share of a is %.3f, want 0.3", got)
	}
}
