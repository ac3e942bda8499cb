package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
	"github.com/refersam/refersam/tests/ensembles"
	"github.com/refersam/refersam/triton/local"
)

// gpu is the default cost of the calibrated ensemble: full batches take 130 ms, 62
// rows per second, which leaves two cores idle.
var gpu = ensembles.Cost{Fixed: 10 * time.Millisecond, Row: 15 * time.Millisecond}

// fastGPU completes many batches in a short time, so that one batch more or less
// changes little. Full batches take 62 ms, 129 rows per second.
var fastGPU = ensembles.Cost{Fixed: 6 * time.Millisecond, Row: 7 * time.Millisecond}

// rounds is how often both sides of a comparison take turns.
const rounds = 3

// saturationClients keep a replica busy: three full batches in it and as many rows
// on their way.
const saturationClients = 6 * ensembles.MaxBatch

func (b *bench) saturation(ctx context.Context) ([]row, error) {
	servers, err := b.startCalibrated(ctx, 1, fastGPU)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	return b.againstIdeal(ctx, servers[0], ensembles.CalibratedVariant, 0.97)
}

func (b *bench) demoSaturation(ctx context.Context) ([]row, error) {
	server, err := b.startTriton(ctx, demoModels(b.root), runtime.NumCPU())
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, []*local.Server{server})
	return b.againstIdeal(ctx, server, "bert", 0.95)
}

// againstIdeal compares the rows per second of the gateway and of ideal batches, in
// turns.
func (b *bench) againstIdeal(ctx context.Context, server *local.Server, variant string, target float64) ([]row, error) {
	best, err := newIdeal(server.Address(), variant)
	if err != nil {
		return nil, err
	}
	defer best.close()
	inFlight, err := best.bestInFlight(ctx, b.lasting(3))
	if err != nil {
		return nil, err
	}
	gateway, err := b.startGateway(ctx, []string{server.Address()}, "REFERSAM_SPLIT="+variant+":1")
	if err != nil {
		return nil, err
	}
	defer gateway.stop()
	requests := source(640, 480, 1)
	duration := b.lasting(10)
	gateway.Closed(ctx, saturationClients, duration, requests.Next) // until the scheduler has measured everything
	var raw, own []float64
	for range rounds {
		rate, err := best.rate(ctx, inFlight, duration)
		if err != nil {
			return nil, err
		}
		raw = append(raw, rate)
		outcomes := gateway.Closed(ctx, saturationClients, duration, requests.Next)
		own = append(own, load.Throughput(outcomes, warmUp(duration), duration))
	}
	ratio := median(own) / median(raw)
	return []row{{
		What:     fmt.Sprintf("rows/s at saturation, %s, 640×480 JPEGs, against ideal batches (%d in flight)", variant, inFlight),
		Measured: fmt.Sprintf("%.1f of %.1f, %.1f %%", median(own), median(raw), 100*ratio),
		Target:   fmt.Sprintf("≥ %.0f %%", 100*target),
		Met:      met(ratio >= target),
		Details:  map[string][]float64{"gateway": own, "ideal": raw},
	}}, nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// idle compares requests that arrive one at a time with batches of one row that a
// raw client sends in between.
func (b *bench) idle(ctx context.Context) ([]row, error) {
	servers, err := b.startCalibrated(ctx, 1, gpu)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	gateway, err := b.startGateway(ctx, addresses(servers))
	if err != nil {
		return nil, err
	}
	defer gateway.stop()
	raw, err := newIdeal(servers[0].Address(), ensembles.CalibratedVariant)
	if err != nil {
		return nil, err
	}
	defer raw.close()
	single, err := raw.batch(1)
	if err != nil {
		return nil, err
	}
	requests := source(640, 480, 1)
	random := newRandom()
	var through, direct []time.Duration
	for begin := time.Now(); time.Since(begin) < b.lasting(20); {
		outcome := gateway.Do(ctx, requests.Next(), begin, time.Now())
		if !outcome.OK() {
			return nil, fmt.Errorf("status %d: %w", outcome.Status, outcome.Err)
		}
		through = append(through, outcome.Latency)
		time.Sleep(time.Duration(random.ExpFloat64() * float64(20*time.Millisecond)))
		sent := time.Now()
		if err := raw.send(ctx, 0, single); err != nil {
			return nil, err
		}
		direct = append(direct, time.Since(sent))
		time.Sleep(time.Duration(random.ExpFloat64() * float64(20*time.Millisecond)))
	}
	own, model := load.Percentile(through, 50), load.Percentile(direct, 50)
	return []row{{
		What:     "added p50 when idle, 640×480 JPEG, over a raw client's batch of one",
		Measured: fmt.Sprintf("%.2f ms (%.2f of which Triton %.2f)", own-model, own, model),
		Target:   "≤ 3 ms",
		Met:      met(own-model <= 3),
		Details:  map[string]float64{"gateway_p50_ms": own, "raw_p50_ms": model, "requests": float64(len(through))},
	}}, nil
}
