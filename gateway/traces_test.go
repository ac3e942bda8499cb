package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/tests/await"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// The trace and the span that clients of these tests name.
const (
	clientTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	clientSpan   = "00f067aa0ba902b7"
	clientParent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// recorded is a service with traces that the test can read.
type recorded struct {
	*service
	spans *tracetest.SpanRecorder
	lines bytes.Buffer
}

// startRecorded returns a service that records every span if on is true.
func startRecorded(t testing.TB, on bool) *recorded {
	t.Helper()
	s := &recorded{spans: tracetest.NewSpanRecorder()}
	s.service = assemble(t, openState(t, store.Config{Data: t.TempDir()}), openBlobs(t), pipelinetest.NewColourModel("bert", "clip"), func(parts *gatewaytest.Parts) {
		parts.Log = telemetry.NewLogger(telemetry.DefaultLogConfig(), &s.lines)
		if on {
			parts.Traces = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans))
		}
	})
	s.waitReady(t)
	s.lines.Reset()
	return s
}

// ended returns the ended spans with a name, after waiting for n of them.
func (s *recorded) ended(t *testing.T, name string, n int) []sdktrace.ReadOnlySpan {
	t.Helper()
	var all []sdktrace.ReadOnlySpan
	await.Until(t, 10*time.Second, func() error {
		all = slices.DeleteFunc(slices.Clone(s.spans.Ended()), func(span sdktrace.ReadOnlySpan) bool { return span.Name() != name })
		if len(all) < n {
			return fmt.Errorf("%d spans %q have ended, want %d", len(all), name, n)
		}
		return nil
	})
	if len(all) != n {
		t.Fatalf("%d spans %q have ended, want %d", len(all), name, n)
	}
	return all
}

func (s *recorded) one(t *testing.T, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	return s.ended(t, name, 1)[0]
}

func attributes(span sdktrace.ReadOnlySpan) map[string]string {
	all := make(map[string]string)
	for _, a := range span.Attributes() {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

func expectAttributes(t *testing.T, span sdktrace.ReadOnlySpan, want map[string]string) {
	t.Helper()
	got := attributes(span)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s: %s is %q, want %q", span.Name(), key, got[key], value)
		}
	}
}

func linked(span sdktrace.ReadOnlySpan, to trace.SpanContext) bool {
	return slices.ContainsFunc(span.Links(), func(l sdktrace.Link) bool {
		return l.SpanContext.TraceID() == to.TraceID() && l.SpanContext.SpanID() == to.SpanID()
	})
}

// A client's trace goes on through every step of its request, to the model server.
func TestTraces_Segment(t *testing.T) {
	s := startRecorded(t, true)
	var atModel trace.SpanContext
	s.model.SetBefore(func(ctx context.Context) error {
		atModel = trace.SpanContextFromContext(ctx)
		return nil
	})
	req := segmentForm(t, "red secretword")
	req.Header.Set("Traceparent", clientParent)
	req.Header.Set("Tracestate", "vendor=value")
	req.Header.Set("X-Request-Id", "traced-1")
	if w := s.do(req); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	root := s.one(t, "POST /v1/segment")
	if root.Parent().SpanID().String() != clientSpan || root.SpanKind() != trace.SpanKindServer {
		t.Errorf("the request's span is %v, a child of %s", root.SpanKind(), root.Parent().SpanID())
	}
	expectAttributes(t, root, map[string]string{
		"http.request.method": "POST", "http.route": "/v1/segment", "http.response.status_code": "200",
		"refersam.request_id": "traced-1", "refersam.variant": "bert",
	})
	row := s.one(t, "row")
	parents := map[string]sdktrace.ReadOnlySpan{"read": root, "decode": root, "row": root, "mask": root, "write": root, "queue": row, "batch": row}
	for name, parent := range parents {
		span := s.one(t, name)
		if span.SpanContext().TraceID().String() != clientTrace || span.Parent().SpanID() != parent.SpanContext().SpanID() {
			t.Errorf("%s is in the trace %s and below %s, want %s below %s", name,
				span.SpanContext().TraceID(), span.Parent().SpanID(), clientTrace, parent.Name())
		}
		if span.StartTime().Before(root.StartTime()) || span.EndTime().After(root.EndTime()) && name != "row" {
			t.Errorf("%s is not within the request", name)
		}
	}
	batch := s.one(t, "batch")
	expectAttributes(t, batch, map[string]string{"refersam.rows": "1", "refersam.replica": "colour", "refersam.model": "refersam_bert:1@00000000"})
	expectAttributes(t, row, map[string]string{"refersam.priority": "interactive", "refersam.model": "refersam_bert:1@00000000"})
	if !linked(batch, row.SpanContext()) {
		t.Error("the batch is not linked with its row")
	}
	if atModel.SpanID() != batch.SpanContext().SpanID() || atModel.TraceState().String() != "vendor=value" {
		t.Errorf("the model server sees %s and the state %q, want the batch %s", atModel.SpanID(), atModel.TraceState(), batch.SpanContext().SpanID())
	}
	for _, span := range s.spans.Ended() {
		if text := fmt.Sprint(span.Name(), span.Attributes(), span.Events(), span.Status()); strings.Contains(text, "secretword") {
			t.Errorf("a phrase is in a trace: %s", text)
		}
	}
	if !strings.Contains(s.lines.String(), "trace_id="+clientTrace) {
		t.Errorf("the log has no trace: %s", s.lines.String())
	}
}

// A batch is in the trace of one request and linked with the rows of all.
func TestTraces_Batch(t *testing.T) {
	s := startRecorded(t, true)
	settings := s.segmenter.Scheduler().Settings()
	settings.Mode, settings.MaxWait = "fixed", 2*time.Second
	settings.MaxRows = 2 // the second row sends the batch
	if err := s.segmenter.Scheduler().Update(settings); err != nil {
		t.Fatal(err)
	}
	var clients sync.WaitGroup
	for i := range 2 {
		req := segmentForm(t, fmt.Sprintf("red %d", i))
		req.Header.Set("Traceparent", strings.Replace(clientParent, clientTrace[:1], fmt.Sprint(i+1), 1))
		clients.Go(func() { s.ServeHTTP(httptest.NewRecorder(), req) })
	}
	clients.Wait()
	batch, rows := s.one(t, "batch"), s.ended(t, "row", 2)
	expectAttributes(t, batch, map[string]string{"refersam.rows": "2"})
	traces := make(map[trace.TraceID]bool)
	for _, row := range rows {
		traces[row.SpanContext().TraceID()] = true
		if !linked(batch, row.SpanContext()) {
			t.Errorf("the batch is not linked with the row of %s", row.SpanContext().TraceID())
		}
		if own := row.SpanContext().SpanID() == batch.Parent().SpanID(); !own && !linked(row, batch.SpanContext()) {
			t.Errorf("the row of %s is not linked with its batch", row.SpanContext().TraceID())
		}
	}
	if len(traces) != 2 || !traces[batch.SpanContext().TraceID()] {
		t.Errorf("the rows are in %d traces", len(traces))
	}
}

// A request that waits for the answer to another request is linked with it.
func TestTraces_Shared(t *testing.T) {
	s := startRecorded(t, true)
	begun, goOn := make(chan struct{}), make(chan struct{})
	s.model.SetBefore(func(context.Context) error {
		close(begun)
		<-goOn
		return nil
	})
	var clients sync.WaitGroup
	clients.Go(func() { s.ServeHTTP(httptest.NewRecorder(), segmentForm(t, "red")) })
	<-begun
	clients.Go(func() { s.ServeHTTP(httptest.NewRecorder(), segmentForm(t, "red")) })
	shares := func() error {
		if !slices.ContainsFunc(s.spans.Started(), func(span sdktrace.ReadWriteSpan) bool { return span.Name() == "shared" }) {
			return errors.New("nothing is shared")
		}
		return nil
	}
	if err := await.Within(10*time.Second, shares); err != nil {
		t.Error(err) // the model goes on all the same
	}
	close(goOn)
	clients.Wait()
	shared := s.one(t, "shared")
	for _, root := range s.ended(t, "POST /v1/segment", 2) {
		if own := root.SpanContext().SpanID() == shared.Parent().SpanID(); !own && !linked(shared, root.SpanContext()) {
			t.Error("the wait is not linked with the request that began the work")
		}
	}
}

// Headers that break the standard, or could break calls to a model server, are
// ignored.
func TestTraces_Headers(t *testing.T) {
	s := startRecorded(t, true)
	long := "vendor=" + strings.Repeat("v", 600)
	for i, tc := range []struct {
		name           string
		parents        []string
		state          []string
		joins          bool
		stateContinues string
	}{
		{"good", []string{clientParent}, []string{"a=1", "b=2"}, true, "a=1,b=2"},
		{"long state", []string{clientParent}, []string{long}, true, ""},
		{"bad state", []string{clientParent}, []string{"no state"}, true, ""},
		{"future version", []string{"cc-" + clientTrace + "-" + clientSpan + "-01-more"}, nil, true, ""},
		{"two parents", []string{clientParent, clientParent}, nil, false, ""},
		{"no parent", nil, []string{"a=1"}, false, ""},
		{"text", []string{"trace me"}, nil, false, ""},
		{"zero", []string{"00-" + strings.Repeat("0", 32) + "-" + clientSpan + "-01"}, nil, false, ""},
		{"upper case", []string{strings.ToUpper(clientParent)}, nil, false, ""},
		{"version ff", []string{"ff" + clientParent[2:]}, nil, false, ""},
		{"long", []string{"cc" + clientParent[2:] + "-" + strings.Repeat("x", 10_000)}, nil, false, ""},
	} {
		req := httptest.NewRequest(http.MethodGet, "/v1/models", nil)
		req.Header["Traceparent"], req.Header["Tracestate"] = tc.parents, tc.state
		if w := s.do(req); w.Code != http.StatusOK {
			t.Errorf("%s: status %d", tc.name, w.Code)
		}
		span := s.ended(t, "GET /v1/models", i+1)[i].SpanContext()
		if joins := span.TraceID().String() == clientTrace; joins != tc.joins || span.TraceState().String() != tc.stateContinues {
			t.Errorf("%s: joins the client's trace: %t, with the state %q", tc.name, joins, span.TraceState())
		}
	}
}

// Without a collector the client's trace still reaches the model server and the log.
func TestTraces_Off(t *testing.T) {
	s := startRecorded(t, false)
	var atModel []trace.SpanContext
	s.model.SetBefore(func(ctx context.Context) error {
		atModel = append(atModel, trace.SpanContextFromContext(ctx))
		return nil
	})
	req := segmentForm(t, "red")
	req.Header.Set("Traceparent", clientParent)
	for _, r := range []*http.Request{segmentForm(t, "blue"), req} {
		if w := s.do(r); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	if len(atModel) != 2 || atModel[0].IsValid() {
		t.Fatalf("the model server sees %v", atModel)
	}
	if got := atModel[1]; got.TraceID().String() != clientTrace || got.SpanID().String() != clientSpan || !got.IsSampled() {
		t.Errorf("the model server sees %s-%s", got.TraceID(), got.SpanID())
	}
	if got := strings.Count(s.lines.String(), "trace_id="); got != 1 {
		t.Errorf("%d lines of the log name a trace: %s", got, s.lines.String())
	}
}

// Failures are marked: the service's own as errors, a client's by their code alone.
// Probes and pages make no spans.
func TestTraces_Failures(t *testing.T) {
	s := startRecorded(t, true)
	s.do(segmentForm(t, "red", part{"priority", "urgent"}))
	for _, path := range []string{"/readyz", "/", "/nowhere"} {
		s.get(path)
	}
	if got := s.spans.Ended(); len(got) != 2 { // the request and its read
		t.Errorf("%d spans", len(got))
	}
	span := s.one(t, "POST /v1/segment")
	expectAttributes(t, span, map[string]string{"http.response.status_code": "422", "error.type": "invalid_request"})
	if span.Status().Code != codes.Unset {
		t.Errorf("status %v", span.Status())
	}
	s.spans.Reset()
	s.model.SetBefore(func(context.Context) error { return fmt.Errorf("boom") })
	if w := s.do(segmentForm(t, "red")); w.Code < 500 {
		t.Fatalf("status %d", w.Code)
	}
	for _, name := range []string{"POST /v1/segment", "row", "batch"} {
		span := s.ended(t, name, 1)[0]
		if span.Status().Code != codes.Error || attributes(span)["error.type"] == "" || span.Status().Description != "" {
			t.Errorf("%s: status %v, %v", name, span.Status(), span.Attributes())
		}
	}
}

// The trace of a job's item is linked with the request for the job.
func TestTraces_Job(t *testing.T) {
	s := startRecorded(t, true)
	req := async(segmentForm(t, "red"))
	req.Header.Set("Traceparent", clientParent)
	j := decodeJob(t, s.do(req), http.StatusAccepted)
	if j = s.finish(t, j.ID); j.Status != "succeeded" {
		t.Fatalf("the job ended as %+v", j)
	}
	root, item := s.one(t, "POST /v1/segment"), s.one(t, "item")
	if root.SpanContext().TraceID().String() != clientTrace || item.SpanContext().TraceID().String() == clientTrace || !linked(item, root.SpanContext()) {
		t.Errorf("the item is in the trace %s with links %v", item.SpanContext().TraceID(), item.Links())
	}
	expectAttributes(t, item, map[string]string{"refersam.variant": "bert", "refersam.request_id": j.RequestID})
	if batch := s.one(t, "batch"); batch.SpanContext().TraceID() != item.SpanContext().TraceID() {
		t.Error("the batch is not in the item's trace")
	}
}

// Fetching a picture is a step, and its address is not in the trace.
func TestTraces_Fetch(t *testing.T) {
	s := startRecorded(t, true)
	id := decodeImage(t, s.do(upload()), http.StatusCreated).ID
	if w := s.do(form(part{"image_id", id}, part{"phrase", "red"})); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	if fetch, root := s.one(t, "fetch"), s.one(t, "POST /v1/segment"); fetch.Parent().SpanID() != root.SpanContext().SpanID() {
		t.Error("the step is not in the request's trace")
	}
}
