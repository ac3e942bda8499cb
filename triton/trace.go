package triton

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/metadata"
)

// traced adds the trace of ctx to the metadata of calls, as traceparent and
// tracestate (W3C Trace Context). A server with OpenTelemetry's mode of tracing
// continues the trace.
func traced(ctx context.Context) context.Context {
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	for key, value := range headers {
		ctx = metadata.AppendToOutgoingContext(ctx, key, value)
	}
	return ctx
}
