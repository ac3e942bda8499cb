package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
)

// Batching has the state of batching; *schedule.Scheduler is one.
type Batching interface {
	Snapshot() schedule.Snapshot
}

// batchingCollector is a prometheus.Collector of a scheduler's state.
type batchingCollector struct{ batching Batching }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("refersam_"+name, help, labels, nil)
}

var (
	descQueue     = describe("queue_rows", "Rows that wait, including rows with a picture that is still being decoded.", "model", "class")
	descQueueLate = describe("queue_late_ratio", "Factor by which rows take longer than predicted when they were admitted, at the configured percentile.", "model")
	descBytes     = describe("queue_bytes", "Memory of the pictures of rows that are not answered yet.")
	descAdmitted  = describe("rows_admitted_total", "Rows that were admitted.")
	descRefused   = describe("requests_refused_total", "Requests that were refused, by code.", "code")
	descFailed    = describe("rows_failed_total", "Admitted rows that failed, by code.", "code")
	descDropped   = describe("rows_dropped_total", "Rows dropped because their client disconnected.")
	descRetried   = describe("rows_retried_total", "Rows that were retried.")
	descBatches   = describe("batches_total", "Batches sent to model servers.")
	descBatchRows = describe("batch_rows_total", "Rows of the batches sent to model servers.")
	descHedged    = describe("batches_hedged_total", "Batches sent to a second model server because they were late.")
	descEjections = describe("replica_ejections_total", "How often a model server was taken out of use because it failed.")
	descUsable    = describe("replica_usable", "1 if the model server is used.", "replica")
	descServes    = describe("replica_model_usable", "1 if rows of the model are sent to the model server, because it has the model's checkpoint and has run it.", "replica", "model")
	descInFlight  = describe("replica_in_flight_batches", "Batches in flight on a model server.", "replica")
	descWindow    = describe("replica_window_batches", "Batches that a model server may have in flight at once.", "replica")
	descRows      = describe("replica_rows_total", "Rows that a model server has answered.", "replica")
	descFailures  = describe("replica_failed_batches_total", "Batches that failed on a model server.", "replica")
	descFixed     = describe("pace_fixed_seconds", "Estimated fixed time of a batch on an idle model server.", "replica", "model")
	descPerRow    = describe("pace_row_seconds", "Estimated time per row of a batch on an idle model server.", "replica", "model")
	descSpaced    = describe("pace_spaced_fixed_seconds", "Estimated fixed time between two batches of a busy model server.", "replica", "model")
	descSpacedRow = describe("pace_spaced_row_seconds", "Estimated time per row between two batches of a busy model server.", "replica", "model")
	descLate      = describe("pace_late_ratio", "Factor by which batches take longer than predicted, at the configured percentile.", "replica", "model")
	descMode      = describe("batching_mode", "1 for the mode in force.", "mode")
	descMaxRows   = describe("batching_max_rows", "Maximum of rows per batch; 0 uses the model's.")
	descMaxWait   = describe("batching_max_wait_seconds", "How long a row may wait for others.")
	descAdmission = describe("batching_admission", "1 if requests that would miss their deadline are refused.")
)

// Describe implements prometheus.Collector.
func (s *batchingCollector) Describe(out chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(s, out)
}

// Collect implements prometheus.Collector.
func (s *batchingCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	snap := s.batching.Snapshot()
	for _, q := range snap.Queues {
		gauge(descQueueLate, q.Late, q.Model)
		for class, rows := range q.Waiting {
			gauge(descQueue, float64(rows), q.Model, schedule.Class(class).String())
		}
	}
	countCodes(descRefused, snap.Refused, refusalCodes, counter)
	countCodes(descFailed, snap.Failed, failureCodes, counter)
	gauge(descBytes, float64(snap.QueueBytes))
	counter(descAdmitted, snap.Admitted)
	counter(descDropped, snap.Dropped)
	counter(descRetried, snap.Retried)
	counter(descBatches, snap.Batches)
	counter(descBatchRows, snap.BatchRows)
	counter(descHedged, snap.Hedged)
	counter(descEjections, snap.Ejections)
	for _, r := range snap.Replicas {
		gauge(descUsable, indicator(r.Usable), r.Name)
		gauge(descInFlight, float64(r.InFlight), r.Name)
		gauge(descWindow, float64(r.Window), r.Name)
		counter(descRows, r.Rows, r.Name)
		counter(descFailures, r.Failures, r.Name)
		for _, p := range r.Paces {
			gauge(descServes, indicator(p.Serves), r.Name, p.Model)
			fixed, perRow := p.Line()
			gauge(descFixed, fixed.Seconds(), r.Name, p.Model)
			gauge(descPerRow, perRow.Seconds(), r.Name, p.Model)
			fixed, perRow = p.SpacedLine()
			gauge(descSpaced, fixed.Seconds(), r.Name, p.Model)
			gauge(descSpacedRow, perRow.Seconds(), r.Name, p.Model)
			gauge(descLate, p.Late, r.Name, p.Model)
		}
	}
	for _, mode := range []schedule.Mode{schedule.Adaptive, schedule.Fixed, schedule.Off} {
		gauge(descMode, indicator(mode == snap.Settings.Mode), string(mode))
	}
	gauge(descMaxRows, float64(snap.Settings.MaxRows))
	gauge(descMaxWait, snap.Settings.MaxWait.Seconds())
	gauge(descAdmission, indicator(snap.Settings.Admission))
}

// The codes that package schedule refuses requests with, and the codes
// of failed rows. Another code appears with its first event.
var (
	refusalCodes = []refersam.Code{refersam.CodeDeadlineExceeded, refersam.CodeOverloaded, refersam.CodeUnavailable}
	failureCodes = []refersam.Code{refersam.CodeDeadlineExceeded, refersam.CodeNotReady, refersam.CodeUnavailable, refersam.CodeUpstream}
)

// countCodes writes a counter for each code, 0 for an expected code that never
// occurred.
func countCodes(d *prometheus.Desc, counts map[refersam.Code]uint64, expected []refersam.Code, counter func(*prometheus.Desc, uint64, ...string)) {
	for _, code := range expected {
		if _, occurred := counts[code]; !occurred {
			counter(d, 0, string(code))
		}
	}
	for code, n := range counts {
		counter(d, n, string(code))
	}
}

func indicator(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
