package gateway

import (
	"cmp"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/refersam/refersam"
)

// metrics are the gateway's own counters. If the values of a counter's labels are
// known, it is 0 before its first event, because a rate over a counter that appears
// with its first event misses that event.
type metrics struct {
	segmenter Segmenter
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	answers   *prometheus.CounterVec
}

func newMetrics(segmenter Segmenter) *metrics {
	return &metrics{
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

// expect creates the counters of all routes, with the statuses in their
// descriptions.
func (m *metrics) expect(routes gin.RoutesInfo, document *huma.OpenAPI) {
	for _, route := range routes {
		path := strings.ReplaceAll(route.Path, `\:`, ":") // as FullPath returns it
		m.seconds.WithLabelValues(path)
		for status := range operation(document, route.Method, path).Responses {
			m.requests.WithLabelValues(path, route.Method, status)
		}
	}
	m.seconds.WithLabelValues(noRoute)
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed} {
		m.requests.WithLabelValues(noRoute, anyMethod, strconv.Itoa(status))
	}
}

// routeParameter matches a parameter in the path of a route.
var routeParameter = regexp.MustCompile(`/[:*](\w+)`)

// operation returns the description of a route. A test checks that every route
// has one.
func operation(document *huma.OpenAPI, method, path string) *huma.Operation {
	item := document.Paths[routeParameter.ReplaceAllString(path, "/{$1}")]
	if item == nil {
		return &huma.Operation{}
	}
	var op *huma.Operation
	switch method {
	case http.MethodGet:
		op = item.Get
	case http.MethodHead:
		op = item.Head
	case http.MethodPost:
		op = item.Post
	case http.MethodDelete:
		op = item.Delete
	}
	return cmp.Or(op, &huma.Operation{})
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	m.requests.Describe(out)
	m.seconds.Describe(out)
	m.answers.Describe(out)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, v := range m.segmenter.Variants() {
		for _, origin := range []refersam.Origin{refersam.OriginModel, refersam.OriginShared, refersam.OriginCache} {
			m.answers.WithLabelValues(v.Variant, string(origin))
		}
	}
	m.requests.Collect(out)
	m.seconds.Collect(out)
	m.answers.Collect(out)
}

// The labels of requests without a route.
const (
	noRoute   = "none"
	anyMethod = "any"
)

// count is middleware that counts a request. Only existing routes and methods
// become labels, so a client cannot create new ones.
func (m *metrics) count(c *gin.Context) {
	begun := time.Now()
	c.Next()
	route, method := c.FullPath(), c.Request.Method
	if route == "" {
		route, method = noRoute, anyMethod
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(c.Writer.Status())).Inc()
	m.seconds.WithLabelValues(route).Observe(time.Since(begun).Seconds())
}

func (m *metrics) answered(resp *refersam.Response) {
	for i := range resp.Results {
		m.answers.WithLabelValues(resp.Variant, string(resp.Results[i].Origin)).Inc()
	}
}
