// Package tune finds the best way to run a model. It measures how fast a Triton
// server answers with different numbers of instances and different settings of
// batching, through the scheduler that the gateway uses, and writes the chosen
// setting into the model repository.
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
	// Mode, MaxRows and MaxWait are settings of the gateway; MaxRows is never 0.
	Mode    schedule.Mode
	MaxRows int
	MaxWait time.Duration
}

func (s *Setting) equal(o *Setting) bool {
	return slices.Equal(s.Instances, o.Instances) && s.Mode == o.Mode && s.MaxRows == o.MaxRows && s.MaxWait == o.MaxWait
}

// String is short enough for a line of progress.
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

// Result is the measurement of a setting.
type Result struct {
	Setting
	// Throughput is in rows per second under saturation.
	Throughput float64
	// Batch is the mean number of rows of a batch under saturation.
	Batch float64
	// P50 and P99 are latencies of rows that are sent at random times at a part of
	// that rate, from when a row is due to its answer.
	P50, P99 time.Duration
	// Busy is the part of the time that the instances of each step worked.
	Busy []float64
	// Err is why there are no figures, in Triton's words.
	Err error
}

// Config says which settings are swept and for how long.
type Config struct {
	// MaxInstances is how many instances a step gets at most. Default 4.
	MaxInstances int
	// Modes are the modes of batching that are tried. Default all.
	Modes []schedule.Mode
	// FixedWait is REFERSAM_BATCH_MAX_WAIT in mode "fixed". Default 5ms.
	FixedWait time.Duration
	// Load is the part of the throughput at which latency is measured, in (0, 1).
	// Default 0.7.
	Load float64
	// Budget is about how long the whole sweep may take; settings that do not fit
	// are left out. Default 5m.
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

// Validate reports all faults of c.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxInstances < 1 || c.MaxInstances > 64 {
		errs = append(errs, errors.New("the maximum of instances must be from 1 to 64"))
	}
	if len(c.Modes) == 0 {
		errs = append(errs, errors.New("give at least one mode of batching to try"))
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
	// A setting is measured for its part of the budget, but for no shorter and no
	// longer time than this.
	minMeasure = 3 * time.Second
	maxMeasure = 30 * time.Second
	// reloadShare is the part of the budget that changing instances may take.
	reloadShare = 0.2
)

// Run measures settings on the servers until the sweep is done or the budget is
// spent. It calls progress before and after each setting. When ctx ends, or the
// servers fail beyond one setting, it returns the results so far with the error.
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

// Progress is the state of a sweep.
type Progress struct {
	Setting Setting
	// Done is how many settings have been measured, Most is how many there are if
	// every path is followed to its end.
	Done, Most int
	// Left is the part of the budget that is left.
	Left time.Duration
	// Result is nil before a setting is measured.
	Result *Result
}
