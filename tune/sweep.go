package tune

import (
	"slices"
	"time"

	"github.com/refersam/refersam/schedule"
)

// Space is the range that a sweep searches.
type Space struct {
	// Start is how many instances each step has now.
	Start []int
	// MaxInstances is how many instances a step gets at most.
	MaxInstances int
	// MaxRows is how many rows the model accepts per batch.
	MaxRows int
	// Modes are the modes that are tried. The mode fixed uses a wait of FixedWait.
	Modes     []schedule.Mode
	FixedWait time.Duration
}

// worthwhile is the factor by which more instances must raise the throughput before
// the sweep tries still more. A smaller rise is noise.
const worthwhile = 1.05

// Sweep measures settings until it has tried all on its paths, or measure reports
// the end. Trying every combination takes too long. So Sweep follows two paths of
// instances as long as they raise the throughput, with batches as large as
// possible: one more instance for the busiest step, and one more for every step.
// Then it tries the ways to form batches with the present instances, and with the
// instances of the highest throughput.
func Sweep(space Space, measure func(Setting) (Result, bool)) []Result {
	s := sweep{space: space, measure: measure}
	start, ok := s.try(space.setting(space.Start))
	if ok && start.Err == nil {
		s.climb(start, raiseBusiest)
		s.climb(start, raiseAll)
	}
	for _, instances := range s.promising() {
		for _, setting := range space.batchings(instances) {
			s.try(setting)
		}
	}
	return s.results
}

type sweep struct {
	space   Space
	measure func(Setting) (Result, bool)
	results []Result
	over    bool
}

// try measures a setting, once.
func (s *sweep) try(setting Setting) (Result, bool) {
	for _, r := range s.results {
		if r.equal(&setting) {
			return r, true
		}
	}
	if s.over {
		return Result{}, false
	}
	r, ok := s.measure(setting)
	if !ok {
		s.over = true
		return Result{}, false
	}
	r.Setting = setting
	s.results = append(s.results, r)
	return r, true
}

// climb goes on to more instances as long as that is worthwhile.
func (s *sweep) climb(from Result, raise func(Result) []int) {
	for {
		instances := raise(from)
		if slices.Max(instances) > s.space.MaxInstances {
			return
		}
		next, ok := s.try(s.space.setting(instances))
		if !ok || next.Err != nil || next.Throughput < from.Throughput*worthwhile {
			return
		}
		from = next
	}
}

// raiseBusiest gives the busiest step one more instance.
func raiseBusiest(r Result) []int {
	instances := slices.Clone(r.Instances)
	busiest := 0
	for i := range r.Busy {
		if r.Busy[i] > r.Busy[busiest] {
			busiest = i
		}
	}
	instances[busiest]++
	return instances
}

// raiseAll gives every step one more instance than the smallest number of instances
// of a step, so that all steps become equal.
func raiseAll(r Result) []int {
	least := slices.Min(r.Instances)
	instances := slices.Clone(r.Instances)
	for i := range instances {
		instances[i] = max(instances[i], least+1)
	}
	return instances
}

// promising are the numbers of instances that are combined with the ways to form
// batches.
func (s *sweep) promising() [][]int {
	sets := [][]int{s.space.Start}
	best, err := Choose(s.results, Throughput, 0)
	if err == nil && !slices.Equal(s.results[best].Instances, s.space.Start) {
		sets = append([][]int{s.results[best].Instances}, sets...)
	}
	return sets
}

// setting is the setting that compares numbers of instances: with the largest
// batches and the first mode.
func (s *Space) setting(instances []int) Setting { return s.batchings(instances)[0] }

// batchings are the ways to form batches: every mode with batches of at most
// MaxRows, MaxRows / 2, … rows, the largest first.
func (s *Space) batchings(instances []int) []Setting {
	var settings []Setting
	for _, mode := range s.Modes {
		for rows := s.MaxRows; rows >= 1; rows /= 2 {
			setting := Setting{Instances: instances, Mode: mode, MaxRows: rows}
			switch mode {
			case schedule.Fixed:
				setting.MaxWait = s.FixedWait
			case schedule.Off:
				if rows < s.MaxRows {
					continue // this mode sends each request by itself, so the size does not matter
				}
			}
			settings = append(settings, setting)
		}
	}
	return settings
}

// most is how many settings a sweep measures if both paths are followed to their
// ends with the most steps.
func (s *Space) most() int {
	climbs := 2 * max(0, s.MaxInstances-slices.Min(s.Start))
	return climbs + 2*len(s.batchings(s.Start))
}
