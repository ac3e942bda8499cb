package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/triton"
)

// Metrics count requests and answers. If the values of a counter's labels are
// known, it is 0 before its first event, because a rate over a counter that appears
// with its first event misses that event. All methods are safe for concurrent use.
type Metrics struct {
	segmenter Segmenter
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	answers   *prometheus.CounterVec
}

// Segmenter names the variants that can answer; *pipeline.Segmenter is one.
type Segmenter interface {
	Variants() []triton.Contract
}

// NewMetrics makes Metrics.
func NewMetrics(segmenter Segmenter) *Metrics {
	return &Metrics{
		segmenter: segmenter,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "refersam_http_requests_total",
			Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "refersam_http_request_seconds",
			Help:    "How long requests took, by route, including reading the request and writing the answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "refersam_answers_total",
			Help: "Phrases answered, by variant and by the origin of the model's answer: model, shared or cache.",
		}, []string{"variant", "origin"}),
	}
}

// Expect creates the series of a route, a method and a status.
func (m *Metrics) Expect(route, method, status string) {
	m.seconds.WithLabelValues(route)
	m.requests.WithLabelValues(route, method, status)
}

// Request counts a request. Each distinct route and method makes a series, so the
// caller must not pass on what a client makes up.
func (m *Metrics) Request(route, method string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// Answer counts the phrases of a response.
func (m *Metrics) Answer(resp *refersam.Response) {
	for i := range resp.Results {
		m.answers.WithLabelValues(resp.Variant, string(resp.Results[i].Origin)).Inc()
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	m.requests.Describe(out)
	m.seconds.Describe(out)
	m.answers.Describe(out)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, v := range m.segmenter.Variants() {
		for _, origin := range []refersam.Origin{refersam.OriginModel, refersam.OriginShared, refersam.OriginCache} {
			m.answers.WithLabelValues(v.Variant, string(origin))
		}
	}
	m.requests.Collect(out)
	m.seconds.Collect(out)
	m.answers.Collect(out)
}
