package pipeline

import (
	"context"

	"github.com/refersam/refersam"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// beginSpan begins a step of the trace in ctx. The span does nothing if ctx has no
// trace.
func beginSpan(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer("github.com/refersam/refersam/pipeline").Start(ctx, name, options...)
}

// endSpan ends a step.
func endSpan(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		span.SetAttributes(attribute.String("error.type", string(refersam.ErrorCode(err))))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
