package tune

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Dominated reports for each result whether another result has at least its
// throughput and at most its p99, and is better in one of the two. A result without
// figures is dominated.
func Dominated(results []Result) []bool {
	dominated := make([]bool, len(results))
	for i := range results {
		r := &results[i]
		dominated[i] = r.Err != nil
		for j := range results {
			if other := &results[j]; other.Err == nil && better(other, r) {
				dominated[i] = true
			}
		}
	}
	return dominated
}

func better(a, b *Result) bool {
	return a.Throughput >= b.Throughput && a.P99 <= b.P99 && (a.Throughput > b.Throughput || a.P99 < b.P99)
}

// Objective is the goal by which a setting is chosen.
type Objective string

// The objectives.
const (
	// Throughput prefers the most rows per second.
	Throughput Objective = "throughput"
	// Latency prefers the lowest p99.
	Latency Objective = "latency"
	// Balanced prefers the most rows per second for each second of p99.
	Balanced Objective = "balanced"
)

// worth is the figure that the objective maximises.
func (o Objective) worth(r *Result) float64 {
	switch o {
	case Throughput:
		return r.Throughput
	case Latency:
		return 1 / r.P99.Seconds()
	default:
		return r.Throughput / r.P99.Seconds()
	}
}

// Validate returns an error if o is not an objective.
func (o Objective) Validate() error {
	switch o {
	case Throughput, Latency, Balanced:
		return nil
	}
	return fmt.Errorf("the objective must be %s, %s or %s, not %q", Throughput, Latency, Balanced, o)
}

// noise is how close to the best a result must be to count as equally good, because
// another measurement could reverse the order.
const noise = 0.95

// Choose returns the index of the result that serves the objective best, among the
// results with a p99 of at most maxP99, if that is not 0. Among results that are
// nearly as good as the best it takes the one with the fewest instances, because
// instances cost memory, and then the one with the lowest p99.
func Choose(results []Result, objective Objective, maxP99 time.Duration) (int, error) {
	var candidates []int
	lowest, most := time.Duration(-1), 0.0
	for i := range results {
		r := &results[i]
		if r.Err != nil {
			continue
		}
		if lowest < 0 || r.P99 < lowest {
			lowest = r.P99
		}
		if maxP99 == 0 || r.P99 <= maxP99 {
			candidates = append(candidates, i)
			most = max(most, objective.worth(r))
		}
	}
	switch {
	case lowest < 0:
		return 0, errors.New("no setting was measured")
	case len(candidates) == 0:
		return 0, fmt.Errorf("no setting has a p99 of at most %v; the lowest is %v", maxP99, lowest.Round(time.Microsecond))
	}
	candidates = slices.DeleteFunc(candidates, func(i int) bool { return objective.worth(&results[i]) < noise*most })
	return slices.MinFunc(candidates, func(i, j int) int {
		a, b := &results[i], &results[j]
		return cmp.Or(cmp.Compare(total(a.Instances), total(b.Instances)), cmp.Compare(a.P99, b.P99))
	}), nil
}

func total(counts []int) int {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}
