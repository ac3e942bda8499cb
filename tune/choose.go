package tune

import (
	"errors"
	"fmt"
	"time"
)

// Dominated tells of each result whether another has at least its throughput
// and at most its p99, and more or less of one of the two. One without figures
// is dominated.
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

// Objective is what a setting is chosen for.
type Objective string

// The objectives.
const (
	// Throughput wants the most rows a second; settings within 3 % of the best
	// are equal, and then the lower p99 counts.
	Throughput Objective = "throughput"
	// Latency wants the lowest p99.
	Latency Objective = "latency"
	// Balanced wants the most rows a second for each second of p99.
	Balanced Objective = "balanced"
)

// ErrObjective is the error of an objective that is none.
var ErrObjective = fmt.Errorf("the objective must be %s, %s or %s", Throughput, Latency, Balanced)

// equalThroughput is how close to the best a throughput counts as equal.
const equalThroughput = 0.97

// Choose returns the index of the result that serves the objective best, among
// those with a p99 of at most maxP99, if that is not 0.
func Choose(results []Result, objective Objective, maxP99 time.Duration) (int, error) {
	var fastest float64
	lowest := time.Duration(-1)
	allowed := func(r *Result) bool { return r.Err == nil && (maxP99 == 0 || r.P99 <= maxP99) }
	for i := range results {
		r := &results[i]
		if r.Err == nil && (lowest < 0 || r.P99 < lowest) {
			lowest = r.P99
		}
		if allowed(r) {
			fastest = max(fastest, r.Throughput)
		}
	}
	var worth func(r *Result) float64
	switch objective {
	case Throughput:
		worth = func(r *Result) float64 {
			if r.Throughput < equalThroughput*fastest {
				return 0
			}
			return 1 / r.P99.Seconds()
		}
	case Latency:
		worth = func(r *Result) float64 { return 1 / r.P99.Seconds() }
	case Balanced:
		worth = func(r *Result) float64 { return r.Throughput / r.P99.Seconds() }
	default:
		return 0, fmt.Errorf("%w, not %q", ErrObjective, objective)
	}
	best, most := -1, 0.0
	for i := range results {
		if r := &results[i]; allowed(r) && worth(r) > most {
			best, most = i, worth(r)
		}
	}
	switch {
	case best >= 0:
		return best, nil
	case lowest >= 0:
		return 0, fmt.Errorf("no setting has a p99 of at most %v; the lowest is %v", maxP99, lowest.Round(time.Microsecond))
	default:
		return 0, errors.New("no setting was measured")
	}
}
