package answer

import (
	"context"

	"github.com/refersam/refersam"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const traceScope = "github.com/refersam/refersam/answer"

// traceparent returns the trace of ctx as a job stores it, or "".
func traceparent(ctx context.Context) string {
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	return headers["traceparent"]
}

// beginItem begins the trace of a job's item. It is linked with the request that
// submitted the job. It is no part of the request's trace, because the item may be
// answered hours later.
func (s *Service) beginItem(ctx context.Context, requestID, submitted string) (context.Context, trace.Span) {
	from := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": submitted}))
	options := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithAttributes(attribute.String("refersam.request_id", requestID))}
	if from.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: from}))
	}
	return s.Traces.Tracer(traceScope).Start(ctx, "item", options...)
}

// endSpan ends a span. err is why its step failed.
func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetAttributes(attribute.String("error.type", string(refersam.ErrorCode(err))))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
