package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
	"github.com/refersam/refersam/tests/ensembles"
)

// slowGPU is so slow that two cores suffice for eight of its kind: full batches
// take 260 ms, 31 rows per second.
var slowGPU = ensembles.Cost{Fixed: 20 * time.Millisecond, Row: 30 * time.Millisecond}

// phrasesOfMany reduces the cores' work on pictures where the figure is rows.
const phrasesOfMany = 4

// replicas compares 2, 4 and 8 servers with one.
func (b *bench) replicas(ctx context.Context) ([]row, error) {
	counts := []int{1, 2, 4, 8}
	targets := []float64{1, 1.95, 3.85, 7.5}
	servers, err := b.startCalibrated(ctx, counts[len(counts)-1], slowGPU)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	requests := source(640, 480, phrasesOfMany)
	var rows []row
	var one float64
	for i, n := range counts {
		rate, err := b.replicaRate(ctx, addresses(servers[:n]), requests)
		if err != nil {
			return rows, err
		}
		if n == 1 {
			one = rate
			continue
		}
		rows = append(rows, row{
			What:     fmt.Sprintf("%d calibrated replicas, rows/s of one", n),
			Measured: fmt.Sprintf("%.1f of %.1f, %.2f×", rate, one, rate/one),
			Target:   fmt.Sprintf("≥ %.2f×", targets[i]),
			Met:      met(rate/one >= targets[i]),
		})
	}
	return rows, nil
}

func (b *bench) replicaRate(ctx context.Context, tritons []string, requests *load.Source) (float64, error) {
	gateway, err := b.startGateway(ctx, tritons)
	if err != nil {
		return 0, err
	}
	defer gateway.stop()
	duration := b.lasting(40)
	clients := len(tritons) * saturationClients / phrasesOfMany
	outcomes := gateway.Closed(ctx, clients, duration, requests.Next)
	return load.Throughput(outcomes, warmUp(duration), duration), nil
}

// batching is a way to form batches.
type batching struct {
	name     string
	settings []string
}

func fixed(rows int, wait time.Duration) batching {
	return batching{
		fmt.Sprintf("fixed, %d rows, %v", rows, wait),
		[]string{"REFERSAM_BATCH_MODE=fixed", fmt.Sprintf("REFERSAM_BATCH_MAX_ROWS=%d", rows), "REFERSAM_BATCH_MAX_WAIT=" + wait.String()},
	}
}

// shapes compares adaptive batches with fixed ones by the rows answered in
// time, under loads that change.
func (b *bench) shapes(ctx context.Context) ([]row, error) {
	servers, err := b.startCalibrated(ctx, 1, gpu)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	capacity, err := b.capacity(ctx, servers[0].Address())
	if err != nil {
		return nil, err
	}
	duration := b.lasting(20)
	loads := []load.Shape{
		load.Steady(0.8 * capacity),
		load.Bursts(0.3*capacity, 2*capacity, duration/5),
		load.Ramp(0.1*capacity, 1.5*capacity, duration),
	}
	ways := []batching{
		{"adaptive", nil},
		fixed(1, 0), fixed(4, 10*time.Millisecond), fixed(8, 5*time.Millisecond), fixed(8, 20*time.Millisecond), fixed(8, 100*time.Millisecond),
	}
	summaries := make([][]load.Summary, len(loads)) // by shape, then by way
	for _, way := range ways {
		for i, shape := range loads {
			s, err := b.shaped(ctx, addresses(servers), way, shape, duration)
			if err != nil {
				return nil, err
			}
			summaries[i] = append(summaries[i], s)
		}
	}
	return shapeRows(loads, ways, summaries), nil
}

// shapedDeadline is so close to the time of a full batch that waiting in vain costs
// answers.
const shapedDeadline = 300 * time.Millisecond

func (b *bench) shaped(ctx context.Context, tritons []string, way batching, shape load.Shape, duration time.Duration) (load.Summary, error) {
	gateway, err := b.startGateway(ctx, tritons, way.settings...)
	if err != nil {
		return load.Summary{}, err
	}
	defer gateway.stop()
	requests := source(640, 480, 1).With(load.Request{Deadline: shapedDeadline})
	gateway.Open(ctx, newRandom(), load.Steady(shape.Rate(0)), b.lasting(2), requests.Next)
	outcomes := gateway.Open(ctx, newRandom(), shape, duration, requests.Next)
	return load.Summarize(outcomes, 0, duration), nil
}

func shapeRows(loads []load.Shape, ways []batching, summaries [][]load.Summary) []row {
	overall := make([]float64, len(ways))
	var rows []row
	for i, shape := range loads {
		var others []string
		best := 0.0
		for j, s := range summaries[i] {
			overall[j] += s.Goodput
			if j > 0 {
				best = max(best, s.Goodput)
				others = append(others, fmt.Sprintf("%s: %.1f (p50 %.0f ms)", ways[j].name, s.Goodput, s.Accepted.P50))
			}
		}
		own := summaries[i][0]
		rows = append(rows, row{
			What: "adaptive beside fixed batches, " + shape.Name + " load, deadlines of 300 ms: rows/s in time",
			Measured: fmt.Sprintf("%.1f (p50 %.0f ms) of %.1f offered, %.0f %% of the best fixed; %s",
				own.Goodput, own.Accepted.P50, own.Offered, 100*own.Goodput/best, strings.Join(others, "; ")),
			Target:  "≥ 95 % of the best",
			Met:     met(own.Goodput >= 0.95*best),
			Details: summaries[i],
		})
	}
	best := 0.0
	for _, sum := range overall[1:] {
		best = max(best, sum)
	}
	return append(rows, row{
		What:     "adaptive beside fixed batches, all three loads",
		Measured: fmt.Sprintf("%.1f, the best fixed setting %.1f", overall[0]/float64(len(loads)), best/float64(len(loads))),
		Target:   "above every fixed one", Met: met(overall[0] > best),
	})
}
