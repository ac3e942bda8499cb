package tune_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/tune"
)

// machine is a pipeline of steps with a speed per instance. Larger batches are more
// efficient.
type machine struct {
	speed    []float64
	refuses  func(instances []int) bool
	settings []string
	left     int // measurements
}

func (m *machine) measure(s tune.Setting) (tune.Result, bool) {
	if m.left--; m.left < 0 {
		return tune.Result{}, false
	}
	m.settings = append(m.settings, s.String())
	if m.refuses != nil && m.refuses(s.Instances) {
		return tune.Result{Err: errors.New("out of memory")}, true
	}
	slowest := 1e9
	for i, n := range s.Instances {
		slowest = min(slowest, m.speed[i]*float64(n))
	}
	r := tune.Result{Throughput: slowest * float64(s.MaxRows)}
	for i, n := range s.Instances {
		r.Busy = append(r.Busy, slowest/(m.speed[i]*float64(n)))
	}
	return r, true
}

func TestSweep(t *testing.T) {
	space := tune.Space{
		Start: []int{1, 1, 1}, MaxInstances: 3, MaxRows: 4, FixedWait: time.Millisecond,
		Modes: []schedule.Mode{schedule.Adaptive, schedule.Fixed, schedule.Off},
	}
	adaptive := func(instances string, rows ...int) (settings []string) {
		for _, n := range rows {
			settings = append(settings, fmt.Sprintf("instances %s, adaptive, max rows %d", instances, n))
		}
		return settings
	}
	others := func(instances string) []string {
		var settings []string
		for _, n := range []int{4, 2, 1} {
			settings = append(settings, fmt.Sprintf("instances %s, fixed, max rows %d, max wait 1ms", instances, n))
		}
		return append(settings, fmt.Sprintf("instances %s, off, max rows 4", instances))
	}
	plain := func(instances ...string) (settings []string) {
		for _, i := range instances {
			settings = append(settings, adaptive(i, 4)...)
		}
		return settings
	}
	t.Run("all of it", func(t *testing.T) {
		m := machine{speed: []float64{9, 3, 9}, left: 100}
		tune.Sweep(space, m.measure)
		want := slices.Concat(
			plain("1·1·1", "1·2·1", "1·3·1"), // the slow step, until all are as fast
			plain("2·3·1"),                   // no faster
			plain("2·2·2", "3·3·3"),
			adaptive("1·3·1", 2, 1), others("1·3·1"), // as fast as 3·3·3
			adaptive("1·1·1", 2, 1), others("1·1·1"),
		)
		if diff := cmp.Diff(want, m.settings); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})

	t.Run("the servers refuse more instances", func(t *testing.T) {
		m := machine{speed: []float64{9, 3, 9}, left: 100, refuses: func(i []int) bool { return slices.Max(i) > 1 }}
		results := tune.Sweep(space, m.measure)
		want := slices.Concat(plain("1·1·1", "1·2·1", "2·2·2"), adaptive("1·1·1", 2, 1), others("1·1·1"))
		if diff := cmp.Diff(want, m.settings); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if results[1].Err == nil || results[0].Err != nil {
			t.Errorf("results %+v, want the reason in the second", results[:2])
		}
	})

	t.Run("there is no more time", func(t *testing.T) {
		m := machine{speed: []float64{9, 3, 9}, left: 4}
		if results := tune.Sweep(space, m.measure); len(results) != 4 {
			t.Errorf("%d results, want 4", len(results))
		}
	})

	t.Run("even the first fails", func(t *testing.T) {
		m := machine{speed: []float64{9, 3, 9}, left: 100, refuses: func([]int) bool { return true }}
		for _, r := range tune.Sweep(space, m.measure) {
			if r.Err == nil || !slices.Equal(r.Instances, space.Start) {
				t.Errorf("%v: error %v", &r.Setting, r.Err)
			}
		}
	})
}
