// Package experiment decides which variant of the model answers whom. It wraps a
// pipeline.Segmenter, which asks the variant that a request names.
package experiment

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// defaultSalt separates the assignment of REFERSAM_SPLIT from every other one made
// from the same units. Changing it reshuffles everybody.
const defaultSalt = "refersam/variant"

// Split shares units out among variants in proportion to integer weights.
//
// Assignment is weighted rendezvous hashing: it needs no store, is the same in
// every process, depends on neither the order nor the scale of the weights,
// and a changed weight moves no more units than it must (a raised one only
// attracts units, a lowered one only lets them go).
//
// The zero Split has no variants. A Split is safe for concurrent use.
type Split struct {
	arms []arm
	salt string
}

type arm struct {
	name   string
	weight int
}

// ParseSplit reads "name:weight,name:weight", for example "bert:90,clip:10".
// Weights are integers ≥ 0 with a positive sum; blanks around names and
// weights do not matter.
func ParseSplit(s string) (Split, error) {
	weights := make(map[string]int)
	for _, part := range strings.Split(s, ",") {
		name, number, found := strings.Cut(part, ":")
		name, number = strings.TrimSpace(name), strings.TrimSpace(number)
		if !found || name == "" {
			return Split{}, fmt.Errorf("split %q: %q is not of the form name:weight", s, strings.TrimSpace(part))
		}
		if _, twice := weights[name]; twice {
			return Split{}, fmt.Errorf("split %q: %q is named twice", s, name)
		}
		weight, err := strconv.Atoi(number)
		if err != nil || weight < 0 {
			return Split{}, fmt.Errorf("split %q: the weight of %q is %q, want an integer ≥ 0", s, name, number)
		}
		weights[name] = weight
	}
	split, err := NewSplit(weights)
	if err != nil {
		return Split{}, fmt.Errorf("split %q: %w", s, err)
	}
	return split, nil
}

// NewSplit makes a Split of weights by variant: integers ≥ 0 with a positive
// sum.
func NewSplit(weights map[string]int) (Split, error) {
	s := Split{salt: defaultSalt}
	positive := false
	for name, weight := range weights {
		if weight < 0 {
			return Split{}, fmt.Errorf("the weight of %q is %d, want an integer ≥ 0", name, weight)
		}
		positive = positive || weight > 0
		s.arms = append(s.arms, arm{name, weight})
	}
	if !positive {
		return Split{}, errors.New("at least one weight must be positive")
	}
	slices.SortFunc(s.arms, func(a, b arm) int { return strings.Compare(a.name, b.name) })
	return s, nil
}

// WithSalt returns a split with the same weights that draws independently of
// splits with other salts: what one split gives a unit says nothing about what the
// other gives it. Each experiment has its own salt.
func (s Split) WithSalt(salt string) Split {
	s.salt = salt
	return s
}

// Variants returns the names in the split, in alphabetical order, those with
// weight 0 included.
func (s Split) Variants() []string {
	names := make([]string, len(s.arms))
	for i, a := range s.arms {
		names[i] = a.name
	}
	return names
}

// Share returns the part of all units that gets the variant, in [0, 1].
func (s Split) Share(variant string) float64 {
	var sum, own float64
	for _, a := range s.arms {
		sum += float64(a.weight)
		if a.name == variant {
			own = float64(a.weight)
		}
	}
	if sum == 0 {
		return 0
	}
	return own / sum
}

// Assign returns the variant of a unit, always the same for the same unit and
// weights. It returns "" when the Split is the zero Split.
func (s Split) Assign(unit string) string {
	best, bestScore := "", 0.0
	for _, a := range s.arms {
		if a.weight == 0 {
			continue
		}
		if score := float64(a.weight) / -math.Log(s.uniform(a.name, unit)); score > bestScore {
			best, bestScore = a.name, score
		}
	}
	return best
}

// String returns the split in the form ParseSplit reads.
func (s Split) String() string {
	parts := make([]string, len(s.arms))
	for i, a := range s.arms {
		parts[i] = a.name + ":" + strconv.Itoa(a.weight)
	}
	return strings.Join(parts, ",")
}

// uniform hashes a variant and a unit to a number in (0, 1), both ends
// excluded so that its logarithm is finite and not zero.
func (s Split) uniform(variant, unit string) float64 {
	sum := sha256.Sum256([]byte(s.salt + "\x00" + variant + "\x00" + unit))
	return (float64(binary.BigEndian.Uint64(sum[:])>>12) + 0.5) / (1 << 52)
}
