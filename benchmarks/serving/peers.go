package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
	"github.com/refersam/refersam/tests/ensembles"
)

// startPeer starts a script of benchmarks/peers. uv makes the environment that the
// script's first lines describe.
func (b *bench) startPeer(ctx context.Context, script, ready string, args ...string) (*service, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	port := address[len("127.0.0.1:"):]
	cmd := exec.CommandContext(ctx, filepath.Join(b.root, ".venv", "bin", "uv"), append([]string{
		"run", "--quiet", "--no-project", "--script", filepath.Join(b.root, "benchmarks", "peers", script), "--port", port,
	}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "BENTOML_DO_NOT_TRACK=True",
		"RAY_USAGE_STATS_ENABLED=0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV=0", "RAY_AUTH_MODE=disabled",
		"PYTHONPATH="+filepath.Join(b.root, "benchmarks", "peers"))
	return start(cmd, address, ready)
}

// costClients keep a service busy without a queue that hides its latency.
const costClients = 8

// spent is the cost of a service per request.
type spent struct {
	CPU    float64 `json:"cpu_ms_per_request"`
	Rate   float64 `json:"requests_per_second"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Memory float64 `json:"peak_memory_mb"`
}

// spend keeps a service busy and measures its cost.
func spend(ctx context.Context, s *service, clients int, duration time.Duration, next func() load.Request) (spent, error) {
	s.Closed(ctx, clients, duration/4, next) // until everything is warm
	before := s.usage()
	begin := time.Now()
	outcomes := s.Closed(ctx, clients, duration, next)
	took := time.Since(begin)
	after := s.usage()
	summary := load.Summarize(outcomes, 0, took)
	if summary.OK < summary.Requests {
		return spent{}, fmt.Errorf("%v", summary)
	}
	return spent{
		CPU:    float64((after.CPU - before.CPU).Microseconds()) / 1000 / float64(summary.OK),
		Rate:   float64(summary.OK) / took.Seconds(),
		P50:    summary.Accepted.P50,
		P99:    summary.Accepted.P99,
		Memory: float64(after.Peak) / 1e6,
	}, nil
}

// cost compares the CPU time per request with the null ensemble.
func (b *bench) cost(ctx context.Context) ([]row, error) {
	servers, err := b.startTritons(ctx, 1, ensembles.WriteNull)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	peers := []struct{ name, script string }{
		{"FastAPI + Pillow + tokenizers + tritonclient + torch/pycocotools", "fastapi_pillow.py"},
		{"FastAPI + OpenCV + orjson", "fastapi_opencv.py"},
	}
	sizes := []struct {
		width, height int
		targets       []float64
	}{{640, 480, []float64{3, 2.5}}, {1920, 1080, []float64{2.7, 1.8}}}

	gateway, err := b.startGateway(ctx, addresses(servers))
	if err != nil {
		return nil, err
	}
	services := []*service{gateway}
	defer func() {
		for _, s := range services {
			s.stop()
		}
	}()
	for _, peer := range peers {
		s, err := b.startPeer(ctx, peer.script, "/readyz", "--triton", addresses(servers)[0])
		if err != nil {
			return nil, err
		}
		services = append(services, s)
	}
	var rows []row
	for _, size := range sizes {
		all, err := costs(ctx, services, b.lasting(6), source(size.width, size.height, 1).Next)
		if err != nil {
			return rows, err
		}
		for i, peer := range peers {
			ratio := all[i+1].CPU / all[0].CPU
			rows = append(rows, row{
				What: fmt.Sprintf("CPU a request, null ensemble, %d×%d JPEG, beside %s", size.width, size.height, peer.name),
				Measured: fmt.Sprintf("%.2f ms and %.2f ms, %.2f×; %.0f and %.0f requests/s, p99 %.0f and %.0f ms, peak %.0f and %.0f MB",
					all[0].CPU, all[i+1].CPU, ratio, all[0].Rate, all[i+1].Rate, all[0].P99, all[i+1].P99, all[0].Memory, all[i+1].Memory),
				Target:  fmt.Sprintf("≥ %.1f×", size.targets[i]),
				Met:     met(ratio >= size.targets[i]),
				Details: []spent{all[0], all[i+1]},
			})
		}
	}
	return rows, nil
}

// traces compares the CPU time per request without traces and with a trace of every
// request, which goes to a collector that does nothing.
func (b *bench) traces(ctx context.Context) ([]row, error) {
	servers, err := b.startTritons(ctx, 1, ensembles.WriteNull)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer collector.Close()
	off, err := b.startGateway(ctx, addresses(servers))
	if err != nil {
		return nil, err
	}
	defer off.stop()
	on, err := b.startGateway(ctx, addresses(servers), "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL)
	if err != nil {
		return nil, err
	}
	defer on.stop()
	all, err := costs(ctx, []*service{off, on}, b.lasting(6), source(640, 480, 1).Next)
	if err != nil {
		return nil, err
	}
	return []row{{
		What:     "CPU a request, null ensemble, 640×480 JPEG, without traces and with a trace of each",
		Measured: fmt.Sprintf("%.3f ms and %.3f ms (%+.1f %%); p50 %.1f and %.1f ms", all[0].CPU, all[1].CPU, 100*(all[1].CPU/all[0].CPU-1), all[0].P50, all[1].P50),
		Target:   "–",
		Details:  all,
	}}, nil
}

// costs measures services in turns and returns, for each, the round with the median
// CPU time.
func costs(ctx context.Context, services []*service, seconds time.Duration, next func() load.Request) ([]spent, error) {
	all := make([][]spent, len(services))
	for range rounds {
		for i, s := range services {
			result, err := spend(ctx, s, costClients, seconds, next)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], result)
		}
	}
	middle := make([]spent, len(services))
	for i, results := range all {
		var cpu []float64
		for _, r := range results {
			cpu = append(cpu, r.CPU)
		}
		for _, r := range results {
			if r.CPU == median(cpu) {
				middle[i] = r
			}
		}
	}
	return middle, nil
}

// stages compares services that run the demo model's five stages on this machine's
// CPUs: refersam with its Triton, and others in Python.
func (b *bench) stages(ctx context.Context) ([]row, error) {
	var rows []row
	for _, peer := range []struct {
		name  string
		start func() (*service, error)
	}{
		{"refersam and Triton", func() (*service, error) { return b.startUp(ctx) }},
		{"FastAPI, ONNX Runtime in process", b.onnxPeer(ctx, "fastapi_onnx.py", "/readyz")},
		{"LitServe", b.onnxPeer(ctx, "litserve_onnx.py", "/readyz")},
		{"BentoML", b.onnxPeer(ctx, "bentoml_onnx.py", "/readyz")},
		{"Ray Serve", b.onnxPeer(ctx, "ray_onnx.py", "/v1/segment")},
	} {
		r := row{What: "the demo model's stages, 640×480 JPEGs: " + peer.name, Target: "–"}
		result, err := b.stage(ctx, peer.start)
		if result.Rate > 0 {
			r.Measured = fmt.Sprintf("%.1f requests/s at a p99 of %.0f ms; CPU %.0f ms per request; peak %.0f MB",
				result.Rate, result.P99, result.CPU, result.Memory)
			r.Details = result
		}
		if err != nil {
			r.Measured += "; " + err.Error()
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// stageP99 is the latency limit for every service.
const stageP99 = 1000

func (b *bench) onnxPeer(ctx context.Context, script, ready string) func() (*service, error) {
	return func() (*service, error) {
		return b.startPeer(ctx, script, ready, "--threads", strconv.Itoa(runtime.NumCPU()))
	}
}

// startUp starts bin/refersam with its own Triton.
func (b *bench) startUp(ctx context.Context) (*service, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program(b.root), "up", "--repository", demoModels(b.root), "--listen", address, "--data", filepath.Join(b.work, "up"))
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "REFERSAM_LOG_LEVEL=ERROR", "REFERSAM_ADMIN_LISTEN=127.0.0.1:0", "REFERSAM_SPLIT=bert:1,clip:0",
		"REFERSAM_TRITON_START_TIMEOUT="+startTimeout.String())
	return start(cmd, address, "/readyz")
}

// stage finds the maximum of requests per second at which a service keeps stageP99,
// with more and more clients. If requests fail it stops, with an error and the best
// rate so far.
func (b *bench) stage(ctx context.Context, start func() (*service, error)) (spent, error) {
	s, err := start()
	if err != nil {
		return spent{}, err
	}
	defer s.stop()
	requests := source(640, 480, 1)
	var best spent
	for _, clients := range []int{2, 4, 8, 16, 24} {
		result, err := spend(ctx, s, clients, b.lasting(6), requests.Next)
		if err != nil {
			return best, fmt.Errorf("with %d clients: %w", clients, err)
		}
		if result.P99 <= stageP99 && result.Rate > best.Rate {
			best = result
		}
	}
	return best, nil
}

// sharedMemory compares pixels that go to Triton in shared memory with bytes
// of gRPC, in the CPU time of the gateway and of Triton together.
func (b *bench) sharedMemory(ctx context.Context) ([]row, error) {
	servers, err := b.startTritons(ctx, 1, ensembles.WriteNull)
	if err != nil {
		return nil, err
	}
	defer closeTritons(ctx, servers)
	var results []spent
	for _, setting := range []string{"auto", "off"} {
		gateway, err := b.startGateway(ctx, addresses(servers), "REFERSAM_SHARED_MEMORY="+setting)
		if err != nil {
			return nil, err
		}
		result, err := spend(ctx, gateway.with(servers[0]), costClients, b.lasting(10), source(640, 480, 1).Next)
		gateway.stop()
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return []row{{
		What: "shared memory beside gRPC bytes, null ensemble, 640×480 JPEG: CPU of gateway and Triton, p50",
		Measured: fmt.Sprintf("%.2f and %.2f ms per request; %.1f and %.1f ms with %d clients",
			results[0].CPU, results[1].CPU, results[0].P50, results[1].P50, costClients),
		Target:  "–",
		Details: results,
	}}, nil
}
