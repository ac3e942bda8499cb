package schedule

import (
	"context"

	"github.com/refersam/refersam"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// rowTrace is a row's part of a trace: one span from when the row is sent until it
// is answered, and in it one span for the wait in the queue. Without a trace both
// are nil. The spans are set before the row is queued and never change.
type rowTrace struct {
	row, queue trace.Span
}

// traces begins the spans of a job's rows. It returns nil if the job belongs to no
// trace.
func (j *Job) traces() []rowTrace {
	if j.Span == nil || !j.Span.SpanContext().IsValid() {
		return nil
	}
	tracer := tracerOf(j.Span)
	all := make([]rowTrace, j.Rows)
	for i := range all {
		var ctx context.Context
		ctx, all[i].row = tracer.Start(trace.ContextWithSpan(context.Background(), j.Span), "row", trace.WithAttributes(
			attribute.String("refersam.model", j.Model), attribute.String("refersam.priority", j.Class.String()), attribute.Int("refersam.row", i)))
		_, all[i].queue = tracer.Start(ctx, "queue")
	}
	return all
}

func tracerOf(s trace.Span) trace.Tracer {
	return s.TracerProvider().Tracer("github.com/refersam/refersam/schedule")
}

// end ends a row's spans. err is why there is no answer; it is nil for rows that
// were answered or dropped.
func (t *rowTrace) end(dropped bool, err error) {
	if t.row == nil {
		return
	}
	if dropped {
		t.row.SetAttributes(attribute.Bool("refersam.dropped", true))
	}
	setError(t.row, err)
	t.queue.End()
	t.row.End()
}

func setError(s trace.Span, err error) {
	if err != nil {
		s.SetAttributes(attribute.String("error.type", string(refersam.ErrorCode(err))))
		s.SetStatus(codes.Error, "")
	}
}

// trace begins the span of a batch and returns a context with it, for the replica.
// The span belongs to the trace of one row, a recorded trace if there is one, and
// is linked with all rows. Without traces the span is a span that does nothing.
func (b *batch[R, A]) trace(ctx context.Context) (context.Context, trace.Span) {
	var parent trace.Span
	var links []trace.Link
	chosen := 0
	for i, row := range b.rows {
		s := row.trace.row
		if s == nil {
			continue
		}
		row.trace.queue.End(trace.WithTimestamp(b.sent))
		links = append(links, trace.Link{SpanContext: s.SpanContext()})
		if parent == nil || !parent.IsRecording() && s.IsRecording() {
			parent, chosen = s, i
		}
	}
	if parent == nil {
		return ctx, trace.SpanFromContext(ctx)
	}
	ctx, span := tracerOf(parent).Start(trace.ContextWithSpan(ctx, parent), "batch",
		trace.WithTimestamp(b.sent), trace.WithLinks(links...), trace.WithAttributes(
			attribute.String("refersam.model", b.queue.model), attribute.String("refersam.replica", b.replica.Name()),
			attribute.Int("refersam.rows", len(b.rows)), attribute.Bool("refersam.hedge", b.hedge)))
	for i, row := range b.rows { // spans cannot be compared
		if s := row.trace.row; s != nil && i != chosen {
			s.AddLink(trace.Link{SpanContext: span.SpanContext()})
		}
	}
	return ctx, span
}
