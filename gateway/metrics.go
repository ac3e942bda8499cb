package gateway

import (
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/refersam/refersam"
)

// metrics are what the gateway counts itself.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	answers  *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "refersam_http_requests_total",
			Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "refersam_http_request_seconds",
			Help:    "How long requests took, by route, reading them and writing the answer included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "refersam_answers_total",
			Help: "Phrases answered, by variant and by where the model's answer came from: model, shared or cache.",
		}, []string{"variant", "origin"}),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.answers}
}

// count is middleware that counts a request. Only routes and methods that
// exist are labels: a client cannot make up new ones.
func (m *metrics) count(c *gin.Context) {
	begun := time.Now()
	c.Next()
	route, method := c.FullPath(), c.Request.Method
	if route == "" {
		route, method = "none", "any"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(c.Writer.Status())).Inc()
	m.seconds.WithLabelValues(route).Observe(time.Since(begun).Seconds())
}

func (m *metrics) answered(resp *refersam.Response) {
	for i := range resp.Results {
		m.answers.WithLabelValues(resp.Variant, string(resp.Results[i].Origin)).Inc()
	}
}
