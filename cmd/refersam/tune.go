package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/tune"
)

type tuneCommand struct {
	Variant      string          `placeholder:"NAME" help:"The variant to tune; required if there are several."`
	Repository   string          `placeholder:"DIR" help:"Folder of the models. Default: REFERSAM_MODEL_REPOSITORY, else model_repository."`
	MaxInstances int             `default:"4" placeholder:"N" help:"Maximum of instances per stage. Default: 4."`
	Modes        []schedule.Mode `default:"adaptive,fixed,off" placeholder:"MODE" help:"Modes of batching. Default: adaptive,fixed,off."`
	FixedWait    time.Duration   `default:"5ms" placeholder:"DURATION" help:"How long a row waits for others in mode fixed. Default: 5ms."`
	Load         float64         `default:"0.7" placeholder:"PART" help:"Part of a setting's throughput at which its latency is measured. Default: 0.7."`
	Budget       time.Duration   `default:"5m" placeholder:"DURATION" help:"How long the whole sweep may take. Default: 5m."`
	Objective    tune.Objective  `default:"balanced" placeholder:"throughput|latency|balanced" help:"What to choose: the most rows per second, the lowest p99, or the most rows per second for each second of p99. Default: balanced."`
	MaxP99       time.Duration   `name:"max-p99" placeholder:"DURATION" help:"Choose no setting with a higher p99."`
	Plot         string          `placeholder:"FILE" help:"Write a plot, as SVG."`
	Write        bool            `help:"Write the chosen numbers of instances into the repository."`
}

// Run measures settings, prints the results and its choice, and with --write writes
// the choice into the repository. It restores the servers that REFERSAM_TRITON
// names, or with --write leaves them with the chosen setting. Without
// REFERSAM_TRITON it starts a server on a copy of the repository.
func (c *tuneCommand) Run(ctx context.Context, m *Main, cfg *Config) (err error) {
	if c.Repository != "" {
		cfg.Local.Repository = c.Repository
	}
	sweep := tune.DefaultConfig()
	sweep.MaxInstances, sweep.Modes, sweep.FixedWait = c.MaxInstances, c.Modes, c.FixedWait
	sweep.Load, sweep.Budget, sweep.Schedule = c.Load, c.Budget, cfg.Pipeline.Schedule
	if err := errors.Join(c.Objective.Validate(), sweep.Validate(), cfg.Local.Validate(), cfg.validateTriton()); err != nil {
		return err
	}
	// These messages are logged only as warnings here, because a sweep changes the
	// servers all the time.
	logging := cfg.Log
	logging.Level = max(logging.Level, slog.LevelWarn)
	log := telemetry.NewLogger(logging, m.Stderr)
	cfg.Local.Logger = log
	servers, err := c.servers(ctx, m, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Close(ctx)) }()

	results, failure := tune.Run(ctx, sweep, servers, log, func(p tune.Progress) { printProgress(m.Stderr, &p) })
	chosen, choice := tune.Choose(results, c.Objective, c.MaxP99)
	if choice != nil {
		chosen = -1
	}
	err = c.report(m, servers, results, chosen)
	switch {
	case errors.Is(failure, context.Canceled):
		return errors.Join(errors.New("stopped before the sweep was done; nothing was written"), err)
	case failure != nil:
		return errors.Join(failure, err)
	}
	if err = errors.Join(choice, err); err != nil {
		return err
	}
	return c.apply(m, cfg, servers, &results[chosen])
}

func (c *tuneCommand) servers(ctx context.Context, m *Main, cfg *Config, log *slog.Logger) (*tune.Servers, error) {
	if len(cfg.Triton.Addresses) > 0 {
		return tune.Connect(ctx, cfg.Triton, c.Variant, log)
	}
	fmt.Fprintln(m.Stderr, "starting a tritonserver with a copy of the repository")
	return tune.StartCopy(ctx, cfg.Triton, cfg.Local, c.Variant, log)
}

func printProgress(w io.Writer, p *tune.Progress) {
	left := p.Left.Round(time.Second)
	switch r := p.Result; {
	case r == nil:
		fmt.Fprintf(w, "%d of at most %d, %v left: %v\n", p.Done+1, p.Most, left, &p.Setting)
	case r.Err != nil:
		fmt.Fprintf(w, "  %v\n", r.Err)
	default:
		fmt.Fprintf(w, "  %.1f rows/s, p50 %v, p99 %v\n", r.Throughput, short(r.P50), short(r.P99))
	}
}

// report prints the table and the plots.
func (c *tuneCommand) report(m *Main, servers *tune.Servers, results []tune.Result, chosen int) error {
	if len(results) == 0 {
		return nil
	}
	contract := servers.Contract()
	fmt.Fprintf(m.Stdout, "%s, instances of %s\n", contract.Model, strings.Join(stages(contract.Model, contract.StepNames()), "·"))
	table := tabwriter.NewWriter(m.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "\tinstances\tmode\tmax rows\tmax wait\trows/s\tbatch\tp50\tp99\tbusy\n")
	dominated := tune.Dominated(results)
	for i := range results {
		r := &results[i]
		mark := "o"
		switch {
		case i == chosen:
			mark = "#"
		case dominated[i]:
			mark = "·"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%v\t", mark, tune.FormatInstances(r.Instances), r.Mode, r.MaxRows, r.MaxWait)
		if r.Err != nil {
			fmt.Fprintf(table, "%s\n", strings.Join(strings.Fields(r.Err.Error()), " "))
			continue
		}
		fmt.Fprintf(table, "%.1f\t%.1f\t%v\t%v\t%s\n", r.Throughput, r.Batch, short(r.P50), short(r.P99), percents(r.Busy))
	}
	fmt.Fprintf(table, "\n")
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(m.Stdout, "#: chosen for %s, o: no setting is better at both, ·: another setting is. p50 and p99 at %g of the rows/s.\n\n", c.Objective, c.Load)
	if err := tune.TextPlot(m.Stdout, results, chosen); err != nil || c.Plot == "" {
		return err
	}
	return writeOutput(c.Plot, m.Stdout, func(w io.Writer) error { return tune.SVG(w, contract.Model, results, chosen) })
}

// apply prints the changes that the chosen setting requires, and with --write makes
// them.
func (c *tuneCommand) apply(m *Main, cfg *Config, servers *tune.Servers, r *tune.Result) error {
	fmt.Fprintf(m.Stdout, "\nREFERSAM_BATCH_MODE=%s\nREFERSAM_BATCH_MAX_ROWS=%d\nREFERSAM_BATCH_MAX_WAIT=%v\n\n", r.Mode, r.MaxRows, r.MaxWait)
	changes, err := servers.Changes(cfg.Local.Repository, cfg.Local.ConfigName, r.Instances)
	switch {
	case err != nil && c.Write:
		return err
	case err != nil: // the repository of other servers is not on this machine
		fmt.Fprintf(m.Stdout, "instances: %s\n", tune.FormatInstances(r.Instances))
		return nil
	case len(changes) == 0:
		fmt.Fprintln(m.Stdout, "the repository has these instances already")
	}
	verb := "--write would change"
	if c.Write {
		if err := tune.Write(changes); err != nil {
			return err
		}
		servers.Keep(r.Instances)
		verb = "changed"
	}
	for _, change := range changes {
		fmt.Fprintf(m.Stdout, "%s %s: instance_group count %d\n", verb, change.Path, change.Count)
	}
	return nil
}

// stages are the names of an ensemble's steps without the ensemble's name.
func stages(model string, steps []string) []string {
	names := make([]string, len(steps))
	for i, step := range steps {
		names[i] = strings.TrimPrefix(step, model+"_")
	}
	return names
}

func percents(parts []float64) string {
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = fmt.Sprintf("%.0f", 100*part)
	}
	return strings.Join(texts, "·") + " %"
}

// short rounds a duration to about three digits.
func short(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > 100*time.Millisecond:
		return d.Round(time.Millisecond)
	default:
		return d.Round(100 * time.Microsecond)
	}
}
