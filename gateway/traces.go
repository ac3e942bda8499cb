package gateway

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceScope names this package in traces.
const traceScope = "github.com/refersam/refersam/gateway"

// maxTraceState is the most bytes of a client's tracestate that are passed on. W3C
// asks for at least 512. A model server refuses calls with large headers, and a
// call may carry the rows of other clients.
const maxTraceState = 512

// traceparent reads the trace that a client's request belongs to (W3C Trace
// Context).
type traceparent http.Header

// Get implements propagation.TextMapCarrier. It returns "" for headers that must be
// ignored.
func (h traceparent) Get(key string) string {
	values := http.Header(h).Values(key)
	switch joined := strings.Join(values, ","); {
	case key == "traceparent" && len(values) != 1, len(joined) > maxTraceState:
		return ""
	default:
		return joined
	}
}

// Set implements propagation.TextMapCarrier.
func (traceparent) Set(string, string) { panic("gateway: a request is only read") }

// Keys implements propagation.TextMapCarrier.
func (traceparent) Keys() []string { panic("gateway: keys are known") }

// traceRequests begins the span of a request to the API. Its parent is the span
// that the client names.
func traceRequests(provider trace.TracerProvider) gin.HandlerFunc {
	tracer := provider.Tracer(traceScope)
	return func(c *gin.Context) {
		route := c.FullPath()
		if !strings.HasPrefix(route, "/v1/") {
			return
		}
		request := c.Request
		ctx, span := tracer.Start(propagation.TraceContext{}.Extract(request.Context(), traceparent(request.Header)), request.Method+" "+route,
			trace.WithSpanKind(trace.SpanKindServer))
		if !span.SpanContext().IsValid() {
			return // no traces, and the client has none
		}
		c.Request = request.WithContext(ctx)
		if !span.IsRecording() {
			return
		}
		defer span.End()
		c.Next()
		describeRequest(c, span)
	}
}

// describeRequest sets the attributes of a request's span.
func describeRequest(c *gin.Context, span trace.Span) {
	status := loggedStatus(c)
	span.SetAttributes(
		attribute.String("http.request.method", c.Request.Method),
		attribute.String("http.route", c.FullPath()),
		attribute.Int("http.response.status_code", status),
		attribute.String("refersam.request_id", requestID(c)),
	)
	if variant := c.GetString(keyVariant); variant != "" {
		span.SetAttributes(attribute.String("refersam.variant", variant))
	}
	if last := c.Errors.Last(); last != nil {
		span.SetAttributes(attribute.String("error.type", string(refersam.ErrorCode(last.Err))))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	}
}

// beginSpan begins a step of a request. The caller must end it.
func beginSpan(c *gin.Context, name string) trace.Span {
	ctx := c.Request.Context()
	_, span := trace.SpanFromContext(ctx).TracerProvider().Tracer(traceScope).Start(ctx, name)
	return span
}
