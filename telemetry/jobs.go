package telemetry

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/refersam/refersam/jobs"
)

// Jobs counts the stored jobs; *jobs.Engine is one.
type Jobs interface {
	Backlog(ctx context.Context) (jobs.Backlog, error)
}

// jobsCollector queries the database at every scrape.
type jobsCollector struct {
	jobs Jobs
	log  *slog.Logger
}

var (
	jobItemsDesc = prometheus.NewDesc("refersam_job_items", "Items of jobs that have not ended, by status, for all gateways of the database.", []string{"status"}, nil)
	jobAgeDesc   = prometheus.NewDesc("refersam_job_oldest_seconds", "How long the oldest job with no item begun has waited.", nil, nil)
	webhooksDesc = prometheus.NewDesc("refersam_webhooks", "Webhooks of the stored jobs, by status.", []string{"status"}, nil)
)

// Describe implements prometheus.Collector.
func (m *jobsCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- jobItemsDesc
	ch <- jobAgeDesc
	ch <- webhooksDesc
}

// Collect implements prometheus.Collector. If the database cannot be reached, it
// sends no values.
func (m *jobsCollector) Collect(ch chan<- prometheus.Metric) {
	// The interface passes no context on, so a query is bounded by time alone.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	b, err := m.jobs.Backlog(ctx)
	if err != nil {
		m.log.Warn("the state of the jobs could not be read for the metrics", "cause", err)
		return
	}
	for status, n := range b.Items {
		ch <- prometheus.MustNewConstMetric(jobItemsDesc, prometheus.GaugeValue, float64(n), string(status))
	}
	for status, n := range b.Webhooks {
		ch <- prometheus.MustNewConstMetric(webhooksDesc, prometheus.GaugeValue, float64(n), string(status))
	}
	age := 0.0
	if !b.Oldest.IsZero() {
		age = time.Since(b.Oldest).Seconds()
	}
	ch <- prometheus.MustNewConstMetric(jobAgeDesc, prometheus.GaugeValue, age)
}
