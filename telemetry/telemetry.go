// Package telemetry shows what the service does: metrics for Prometheus, logs, and
// traces for OpenTelemetry. It reads the state of other packages through their
// snapshots. No package that does the work imports it.
package telemetry

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves the metrics of the process, of requests, of batching and of jobs
// in Prometheus's formats.
func Handler(requests *Metrics, batching Batching, jobs Jobs, log *slog.Logger) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		requests, &batchingCollector{batching}, &jobsCollector{jobs, log},
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}
