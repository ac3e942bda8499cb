package main

import (
	"context"
	"fmt"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
	"github.com/refersam/refersam/tests/ensembles"
)

const overloadDeadline = 500 * time.Millisecond

// plainFIFO are the settings of a gateway that accepts all requests in turn.
var plainFIFO = []string{"REFERSAM_BATCH_MODE=off", "REFERSAM_ADMISSION=false"}

// overload offers more than the capacity, with and without admission.
func (b *bench) overload(ctx context.Context) ([]row, error) {
	servers, err := b.startCalibrated(ctx, 1, gpu)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	capacity, err := b.capacity(ctx, servers[0].Address())
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, part := range []struct {
		name     string
		times    float64
		goodput  float64 // least part of the capacity, 0 if there is no target
		settings []string
	}{
		{"2× overload", 2, 0.90, nil},
		{"2× overload, first in first out without admission", 2, 0, plainFIFO},
		{"10× overload", 10, 0.85, nil},
	} {
		r, err := b.overloaded(ctx, addresses(servers), part.times*capacity, part.settings)
		if err != nil {
			return rows, err
		}
		rows = append(rows, r.rows(part.name, capacity, part.goodput)...)
	}
	return rows, nil
}

// capacity is the rate of ideal batches.
func (b *bench) capacity(ctx context.Context, address string) (float64, error) {
	best, err := newIdeal(address, ensembles.CalibratedVariant)
	if err != nil {
		return 0, err
	}
	defer best.close()
	inFlight, err := best.bestInFlight(ctx, b.lasting(2))
	if err != nil {
		return 0, err
	}
	return best.rate(ctx, inFlight, b.lasting(10))
}

// overloadResult is the result of an overload.
type overloadResult struct {
	Summary load.Summary `json:"summary"`
	// Memory is the gateway's memory at the end of each fifth of the load, in MB.
	Memory []float64 `json:"memory_mb"`
}

func (b *bench) overloaded(ctx context.Context, tritons []string, rate float64, settings []string) (*overloadResult, error) {
	gateway, err := b.startGateway(ctx, tritons, settings...)
	if err != nil {
		return nil, err
	}
	defer gateway.stop()
	requests := source(640, 480, 1).With(load.Request{Deadline: overloadDeadline})
	gateway.Open(ctx, newRandom(), load.Steady(rate/4), b.lasting(3), requests.Next) // until the scheduler has measured everything
	duration := b.lasting(15)
	result := &overloadResult{}
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		for range 5 {
			time.Sleep(duration / 5)
			result.Memory = append(result.Memory, float64(gateway.usage().Memory)/1e6)
		}
	}()
	outcomes := gateway.Open(ctx, newRandom(), load.Steady(rate), duration, requests.Next)
	<-sampled
	result.Summary = load.Summarize(outcomes, warmUp(duration), duration)
	return result, nil
}

func (r *overloadResult) rows(name string, capacity, least float64) []row {
	s := r.Summary
	goodput := s.Goodput / capacity
	first, last := r.Memory[1], r.Memory[len(r.Memory)-1]
	head := row{
		What: name + ", deadlines of 500 ms: goodput of the capacity",
		Measured: fmt.Sprintf("%.1f of %.1f rows/s, %.0f %%; of the accepted requests %d late or given up; %d failed",
			s.Goodput, capacity, 100*goodput, s.Late+s.Expired, s.Failed),
		Details: r,
	}
	p99 := row{What: name + ": p99 of requests that were not refused", Measured: fmt.Sprintf("%.0f ms", s.Accepted.P99)}
	if least == 0 {
		return []row{head, p99}
	}
	head.Target, head.Met = fmt.Sprintf("≥ %.0f %%", 100*least), met(goodput >= least)
	p99.Target, p99.Met = "≤ 500 ms", met(s.OK > 0 && s.Accepted.P99 <= float64(overloadDeadline.Milliseconds()))
	return []row{
		head, p99,
		{
			What:     name + ": time of a refusal, p50 and p99, as the client sees it",
			Measured: fmt.Sprintf("%.1f and %.1f ms", s.Refusal.P50, s.Refusal.P99),
			Target:   "< 5 ms, both", Met: met(s.Refused > 0 && s.Refusal.P99 < 5),
		},
		{
			What:     name + ": memory after two fifths and at the end",
			Measured: fmt.Sprintf("%.0f and %.0f MB", first, last),
			Target:   "flat: < 1.2×", Met: met(last < 1.2*first),
		},
	}
}
