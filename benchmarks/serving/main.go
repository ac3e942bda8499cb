// Command serving measures the gateway with real tritonservers. Their models cost
// nothing, a known time without CPU, or as much as the demo model. It prints each
// figure next to its target:
//
//	go run ./benchmarks/serving [-only saturation,idle] [-scale 1] [-json FILE]
//
// It needs bin/refersam (make build) and the virtual environment (make setup). It
// uses only loopback, and everything that it starts ends with it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// row is one line of the table.
type row struct {
	What     string `json:"what"`
	Measured string `json:"measured"`
	Target   string `json:"target"`
	// Met is empty if there is no target.
	Met string `json:"met"`
	// Details are the underlying figures.
	Details any `json:"details,omitempty"`
}

// met returns the text for a target that is met or missed.
func met(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

// measurement is one part of the table.
type measurement struct {
	name string
	run  func(*bench, context.Context) ([]row, error)
}

var measurements = []measurement{
	{"saturation", (*bench).saturation},
	{"demo", (*bench).demoSaturation},
	{"idle", (*bench).idle},
	{"overload", (*bench).overload},
	{"cost", (*bench).cost},
	{"traces", (*bench).traces},
	{"replicas", (*bench).replicas},
	{"shapes", (*bench).shapes},
	{"memory", (*bench).sharedMemory},
	{"stages", (*bench).stages},
}

func main() {
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	only := flag.String("only", strings.Join(names, ","), "the measurements to run")
	scale := flag.Float64("scale", 1, "factor for the duration of measurements; 1 gives reliable figures")
	out := flag.String("json", "", "file for the detailed figures")
	root := flag.String("root", ".", "the repository's root")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *root, strings.Split(*only, ","), *scale, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "serving:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root string, only []string, scale float64, out string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, root, scale)
	if err != nil {
		return err
	}
	defer b.close()
	fmt.Printf("%d CPUs, %s\n\n| what | measured | target | met |\n|---|---|---|---|\n", runtime.NumCPU(), runtime.Version())
	var all []row
	var errs []error
	for _, m := range measurements {
		if !slices.Contains(only, m.name) || ctx.Err() != nil {
			continue
		}
		rows, err := m.run(b, ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			rows = append(rows, row{What: m.name, Measured: err.Error()})
		}
		for _, r := range rows {
			fmt.Printf("| %s | %s | %s | %s |\n", r.What, r.Measured, r.Target, r.Met)
		}
		all = append(all, rows...)
	}
	if out != "" {
		text, err := json.MarshalIndent(all, "", "  ")
		errs = append(errs, err, os.WriteFile(out, text, 0o644))
	}
	return errors.Join(errs...)
}
