package tune_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/tune"
)

func result(instances int, throughput float64, p99 time.Duration) tune.Result {
	return tune.Result{
		Setting:    tune.Setting{Instances: []int{1, instances}, Mode: schedule.Adaptive, MaxRows: 8},
		Throughput: throughput, P99: p99 * time.Millisecond,
	}
}

var results = []tune.Result{
	result(1, 100, 50),
	result(2, 200, 120),
	result(1, 90, 60), // worse at both than the first
	result(3, 204, 110),
	{Setting: tune.Setting{Instances: []int{1, 4}}, Err: errors.New("out of <memory>")},
	result(1, 40, 30),
	result(1, 40, 30), // equal to the one before: neither dominates
}

func TestDominated(t *testing.T) {
	want := []bool{false, true, true, false, true, false, false}
	if got := tune.Dominated(results); !slices.Equal(got, want) {
		t.Errorf("dominated %v, want %v", got, want)
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name      string
		objective tune.Objective
		maxP99    time.Duration
		want      int
	}{
		{"nearly as much with fewer instances", tune.Throughput, 0, 1},
		{"as much as is allowed", tune.Throughput, 115 * time.Millisecond, 3},
		{"less is allowed", tune.Throughput, 50 * time.Millisecond, 0},
		{"latency", tune.Latency, 0, 5},
		{"balanced", tune.Balanced, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tune.Choose(results, tc.objective, tc.maxP99)
			if err != nil || got != tc.want {
				t.Errorf("chose %d, %v, want %d", got, err, tc.want)
			}
		})
	}
	if _, err := tune.Choose(results, tune.Throughput, time.Millisecond); err == nil || !strings.Contains(err.Error(), "30ms") {
		t.Errorf("error %v, want the lowest p99", err)
	}
	if _, err := tune.Choose(results[4:5], tune.Latency, 0); err == nil {
		t.Error("it chose a setting that could not be loaded")
	}
	if err := tune.Objective("fast").Validate(); err == nil {
		t.Error("fast is no objective")
	}
}

func TestPlots(t *testing.T) {
	var svg, text bytes.Buffer
	if err := tune.SVG(&svg, "a < b", results, 3); err != nil {
		t.Fatal(err)
	}
	circles := 0
	for d := xml.NewDecoder(&svg); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
			circles++
		}
	}
	if circles != len(results)-1 {
		t.Errorf("%d circles for %d results of which one has no figures", circles, len(results))
	}
	if err := tune.TextPlot(&text, results, 3); err != nil {
		t.Fatal(err)
	}
	if plot := text.String(); strings.Count(plot, "#") != 1 || strings.Count(plot, "o")-strings.Count("rows", "o") != 2 || !strings.Contains(plot, "204 rows/s") {
		t.Errorf("plot\n%s", plot)
	}
	for _, none := range [][]tune.Result{nil, results[4:5]} {
		if err := errors.Join(tune.SVG(io.Discard, "", none, -1), tune.TextPlot(io.Discard, none, -1)); err != nil {
			t.Error(err)
		}
	}
}
