// Package tune finds out how a model is best run: it measures how fast a
// Triton server answers with other numbers of instances and other settings of
// batching, through the scheduler that the gateway uses, and writes what was
// chosen into the model repository.
package tune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/refersam/refersam/schedule"
)

// Setting is one way to run a variant.
type Setting struct {
	// Instances is how many instances each step of the ensemble has, in the
	// contract's order.
	Instances []int
	// Mode, MaxRows and MaxWait are the gateway's; MaxRows is never 0.
	Mode    schedule.Mode
	MaxRows int
	MaxWait time.Duration
}

func (s *Setting) equal(o *Setting) bool {
	return slices.Equal(s.Instances, o.Instances) && s.Mode == o.Mode && s.MaxRows == o.MaxRows && s.MaxWait == o.MaxWait
}

// String is as short as a line of progress needs it.
func (s *Setting) String() string {
	text := fmt.Sprintf("instances %s, %s, max rows %d", FormatInstances(s.Instances), s.Mode, s.MaxRows)
	if s.MaxWait > 0 {
		text += ", max wait " + s.MaxWait.String()
	}
	return text
}

// FormatInstances writes numbers of instances as 1·2·1·1·1.
func FormatInstances(counts []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(counts), " ", "·"), "[]")
}

// Result is what a setting gave.
type Result struct {
	Setting
	// Throughput is in rows a second while there is always more to do.
	Throughput float64
	// Batch is the mean number of rows of a batch at that.
	Batch float64
	// P50 and P99 are of rows that come at random moments at a part of that
	// rate, from when a row is due to its answer.
	P50, P99 time.Duration
	// Busy is which part of the time the instances of each step worked.
	Busy []float64
	// Err is why there are no such figures, in Triton's words.
	Err error
}

// Config says what is swept and for how long.
type Config struct {
	// MaxInstances is how many instances a step gets at most. Default 4.
	MaxInstances int
	// Modes are the modes of batching that are tried. Default all.
	Modes []schedule.Mode
	// FixedWait is REFERSAM_BATCH_MAX_WAIT in mode "fixed". Default 5ms.
	FixedWait time.Duration
	// Load is at which part of the throughput latency is measured, in (0, 1).
	// Default 0.7.
	Load float64
	// Budget is about how long all of it may take; what would not be measured
	// by then is left out. Default 5m.
	Budget time.Duration
	// Schedule is the rest of the scheduler's configuration.
	Schedule schedule.Config
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxInstances: 4,
		Modes:        []schedule.Mode{schedule.Adaptive, schedule.Fixed, schedule.Off},
		FixedWait:    5 * time.Millisecond,
		Load:         0.7,
		Budget:       5 * time.Minute,
		Schedule:     schedule.DefaultConfig(),
	}
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxInstances < 1 || c.MaxInstances > 64 {
		errs = append(errs, errors.New("the most instances must be from 1 to 64"))
	}
	if len(c.Modes) == 0 {
		errs = append(errs, errors.New("there is no mode of batching to try"))
	}
	for _, mode := range c.Modes {
		s := schedule.DefaultConfig().Settings
		s.Mode, s.MaxWait = mode, c.FixedWait
		errs = append(errs, s.Validate())
	}
	if !(c.Load > 0 && c.Load < 1) {
		errs = append(errs, errors.New("the part of the throughput at which latency is measured must be between 0 and 1"))
	}
	if c.Budget < minMeasure {
		errs = append(errs, fmt.Errorf("the budget must be at least %v", minMeasure))
	}
	return errors.Join(append(errs, c.Schedule.Validate())...)
}

const (
	// A setting is measured for its share of the budget, but not for less or
	// for more than this.
	minMeasure = 3 * time.Second
	maxMeasure = 30 * time.Second
	// reloadShare is which part of the budget changing instances may take.
	reloadShare = 0.2
)

// Run measures settings on the servers until the sweep is done or the budget is
// spent. progress is called before and after each. When ctx ends, or the
// servers fail beyond one setting, it returns what it has with the error.
func Run(ctx context.Context, cfg Config, servers *Servers, log *slog.Logger, progress func(Progress)) ([]Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	space := Space{
		Start:        servers.Instances(),
		MaxInstances: cfg.MaxInstances,
		MaxRows:      servers.Contract().MaxBatch,
		Modes:        cfg.Modes,
		FixedWait:    cfg.FixedWait,
	}
	most := space.most()
	each := time.Duration((1 - reloadShare) * float64(cfg.Budget) / float64(most))
	bench := &bench{
		cfg: cfg, servers: servers, log: log,
		duration: min(max(each, minMeasure), maxMeasure),
	}
	defer bench.close()
	end := time.Now().Add(cfg.Budget)
	done := 0
	var failure error
	results := Sweep(space, func(s Setting) (Result, bool) {
		if failure = ctx.Err(); failure != nil || time.Now().Add(bench.duration).After(end) {
			return Result{}, false
		}
		progress(Progress{Setting: s, Done: done, Most: most, Left: time.Until(end)})
		var r Result
		if r, failure = bench.measure(ctx, s); failure != nil {
			return Result{}, false
		}
		done++
		progress(Progress{Setting: s, Done: done, Most: most, Left: time.Until(end), Result: &r})
		return r, true
	})
	return results, failure
}

// Progress is where a sweep is.
type Progress struct {
	Setting Setting
	// Done is how many settings have been measured, Most how many there are if
	// every climb goes to its end.
	Done, Most int
	// Left is of the budget.
	Left time.Duration
	// Result is nil before a setting is measured.
	Result *Result
}
