package tune

import (
	"slices"
	"time"

	"github.com/refersam/refersam/schedule"
)

// Space is where a sweep looks.
type Space struct {
	// Start is how many instances each step has now.
	Start []int
	// MaxInstances is how many a step gets at most.
	MaxInstances int
	// MaxRows is how many rows the model takes.
	MaxRows int
	// Modes are tried, fixed with a wait of FixedWait.
	Modes     []schedule.Mode
	FixedWait time.Duration
}

// worthwhile is by how much more instances must raise the throughput for still
// more to be tried: less is noise.
const worthwhile = 1.05

// Sweep measures settings until it has been everywhere or measure says that it
// is over. Trying everything takes too long, so it follows two paths of
// instances for as long as they raise the throughput, with batches as large as
// they come: one more for the step that is busiest, and one more for every
// step. Then it tries the ways to form batches with the instances there are
// now, and with those of the highest throughput.
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

// climb goes on to more instances while that is worthwhile.
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

// raiseAll gives every step one more instance than the step with the fewest
// has, so that they get equal.
func raiseAll(r Result) []int {
	least := slices.Min(r.Instances)
	instances := slices.Clone(r.Instances)
	for i := range instances {
		instances[i] = max(instances[i], least+1)
	}
	return instances
}

// promising are the instances that batching is tried with.
func (s *sweep) promising() [][]int {
	sets := [][]int{s.space.Start}
	best, err := Choose(s.results, Throughput, 0)
	if err == nil && !slices.Equal(s.results[best].Instances, s.space.Start) {
		sets = append([][]int{s.results[best].Instances}, sets...)
	}
	return sets
}

// setting is how instances are compared: with batches as large as they come,
// and the first mode.
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
					continue // it sends each request by itself, whatever its size
				}
			}
			settings = append(settings, setting)
		}
	}
	return settings
}

// most is how many settings a sweep measures if both climbs go to their ends
// in as many steps as there are instances to add to one step.
func (s *Space) most() int {
	climbs := 2 * max(0, s.MaxInstances-slices.Min(s.Start))
	return climbs + 2*len(s.batchings(s.Start))
}
