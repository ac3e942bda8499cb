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
	"github.com/refersam/refersam/telemetry"
)

// The labels of requests without a route.
const (
	noRoute   = "none"
	anyMethod = "any"
)

// expectRequests creates the series of all routes, with the statuses in their
// descriptions.
func expectRequests(m *telemetry.Metrics, routes gin.RoutesInfo, document *huma.OpenAPI) {
	for _, route := range routes {
		path := strings.ReplaceAll(route.Path, `\:`, ":") // as FullPath returns it
		for status := range operation(document, route.Method, path).Responses {
			m.Expect(path, route.Method, status)
		}
	}
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed} {
		m.Expect(noRoute, anyMethod, strconv.Itoa(status))
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

// countRequests counts requests. Only existing routes and methods become labels, so
// a client cannot create new ones.
func countRequests(m *telemetry.Metrics) gin.HandlerFunc {
	return func(c *gin.Context) {
		begun := time.Now()
		c.Next()
		route, method := c.FullPath(), c.Request.Method
		if route == "" {
			route, method = noRoute, anyMethod
		}
		m.Request(route, method, c.Writer.Status(), time.Since(begun))
	}
}
