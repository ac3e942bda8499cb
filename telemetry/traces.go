package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// The protocols of OTLP.
const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// TraceConfig says where traces are sent; see Traces of requests.
type TraceConfig struct {
	// Endpoint is the address of a collector, such as http://localhost:4318. Spans
	// are sent only if it or TracesEndpoint is set. Default none.
	Endpoint Endpoint `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
	// TracesEndpoint is the address for traces alone. With http/protobuf it includes
	// the path, as in http://localhost:4318/v1/traces. Default none.
	TracesEndpoint Endpoint `env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"`
	// Protocol is "http/protobuf" or "grpc". Default "http/protobuf".
	Protocol string `env:"OTEL_EXPORTER_OTLP_PROTOCOL"`
	// TracesProtocol is the protocol for traces alone. Default none.
	TracesProtocol string `env:"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"`
	// Exporter is "otlp" or "none". "none" sends no spans. Default "otlp".
	Exporter string `env:"OTEL_TRACES_EXPORTER"`
	// Disabled says that no spans are sent. Default false.
	Disabled bool `env:"OTEL_SDK_DISABLED"`
}

// DefaultTraceConfig returns the defaults.
func DefaultTraceConfig() TraceConfig { return TraceConfig{Protocol: protocolHTTP, Exporter: "otlp"} }

// Validate reports all faults of c. If no spans are sent there are none, because
// the variables may be meant for other programs.
func (c *TraceConfig) Validate() error {
	if !c.enabled() {
		return nil
	}
	var errs []error
	if c.Exporter != "otlp" {
		errs = append(errs, fmt.Errorf("OTEL_TRACES_EXPORTER is %q, allowed: otlp, none", c.Exporter))
	}
	for _, p := range []struct{ name, value string }{
		{"OTEL_EXPORTER_OTLP_PROTOCOL", c.Protocol}, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", c.TracesProtocol},
	} {
		if p.value != protocolGRPC && p.value != protocolHTTP && p.value != "" {
			errs = append(errs, fmt.Errorf("%s is %q, allowed: %s, %s", p.name, p.value, protocolGRPC, protocolHTTP))
		}
	}
	errs = append(errs, c.Endpoint.validate("OTEL_EXPORTER_OTLP_ENDPOINT"), c.TracesEndpoint.validate("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
	return errors.Join(errs...)
}

// enabled reports whether spans are sent.
func (c *TraceConfig) enabled() bool {
	return !c.Disabled && c.Exporter != "none" && (c.Endpoint != "" || c.TracesEndpoint != "")
}

// Endpoint is the address of a collector. Only string(e) shows a password.
type Endpoint string

// String returns the address without a password.
func (e Endpoint) String() string {
	u, err := url.Parse(string(e))
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}

func (e Endpoint) validate(name string) error {
	if e == "" {
		return nil
	}
	u, err := url.Parse(string(e))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%s is %q, allowed: http://host:port or https://host:port", name, e.String())
	}
	if u.User != nil {
		return fmt.Errorf("%s is %q, allowed: an address without a user; put credentials into OTEL_EXPORTER_OTLP_HEADERS", name, e.String())
	}
	return nil
}

// flushTimeout bounds how long Close waits for the collector.
const flushTimeout = 3 * time.Second

// Traces sends spans to a collector in the background. It keeps a bounded number of
// spans in memory and drops further ones. It never blocks a request.
type Traces struct {
	provider *sdktrace.TracerProvider // nil without a collector
	exporter *exporter
	log      *slog.Logger
}

// NewTraces makes Traces. The caller must close it. c must be valid. Without a
// collector no spans are made. version names the build of the program.
//
// It makes OpenTelemetry's library, which has one logger per process, log to log.
func NewTraces(ctx context.Context, c TraceConfig, version string, log *slog.Logger) (*Traces, error) {
	if !c.enabled() {
		return &Traces{}, nil
	}
	otel.SetLogger(logr.FromSlogHandler(libraryLog{log.Handler()}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("OpenTelemetry reports an error", "cause", err) }))
	sender, err := c.newSender(ctx)
	if err != nil {
		return nil, fmt.Errorf("start sending traces: %w", err)
	}
	described, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "refersam"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(), // overrides the name
	)
	if err != nil {
		log.Warn("a part of the service's description in traces is missing", "cause", err)
	}
	t := &Traces{exporter: &exporter{SpanExporter: sender, log: log}, log: log}
	t.exporter.stop, t.exporter.abandon = context.WithCancel(context.WithoutCancel(ctx))
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithBatcher(t.exporter), sdktrace.WithResource(described))
	log.Info("traces are sent to a collector", "endpoint", c.endpoint().String(), "protocol", c.protocol())
	return t, nil
}

func (c *TraceConfig) endpoint() Endpoint {
	if c.TracesEndpoint != "" {
		return c.TracesEndpoint
	}
	return c.Endpoint
}

func (c *TraceConfig) protocol() string {
	if c.TracesProtocol != "" {
		return c.TracesProtocol
	}
	return c.Protocol
}

// newSender makes the sender of a protocol. It does not connect.
func (c *TraceConfig) newSender(ctx context.Context) (sdktrace.SpanExporter, error) {
	if c.protocol() == protocolGRPC {
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(string(c.endpoint())))
	}
	address := string(c.TracesEndpoint)
	if address == "" {
		var err error
		if address, err = url.JoinPath(string(c.Endpoint), "v1", "traces"); err != nil {
			return nil, err
		}
	}
	return otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(address))
}

// Provider returns the maker of spans.
func (t *Traces) Provider() trace.TracerProvider {
	if t.provider == nil {
		return noop.NewTracerProvider()
	}
	return t.provider
}

// Close sends the remaining spans, for at most 3 seconds. It also does so after ctx
// has ended.
func (t *Traces) Close(ctx context.Context) {
	if t.provider == nil {
		return
	}
	timer := time.AfterFunc(flushTimeout, t.exporter.abandon)
	defer timer.Stop()
	defer t.exporter.abandon()
	if err := t.provider.Shutdown(context.WithoutCancel(ctx)); err != nil {
		t.log.Warn("the connection to the collector of traces was not closed cleanly", "cause", err)
	}
}

// exporter sends spans, and logs when the collector stops and starts to accept them.
type exporter struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	stop    context.Context // ends each ExportSpans
	abandon context.CancelFunc
	failing bool // used by ExportSpans alone, which never runs twice at once
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.stop, cancel)()
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !e.failing:
		e.log.Warn("the collector does not accept traces; spans are dropped until it does", "spans", len(spans), "cause", brief(err))
	case err == nil && e.failing:
		e.log.Info("the collector accepts traces again")
	}
	e.failing = err != nil
	return nil
}

// brief returns an error's text without the body of the collector's answer, because
// the body may repeat the request's headers.
func brief(err error) string {
	const most = 300
	text, _, _ := strings.Cut(err.Error(), "body: ")
	if len(text) > most {
		text = text[:most]
	}
	return text
}

// libraryLog passes on the errors of OpenTelemetry's library, without their
// details, because these include the values of variables.
type libraryLog struct{ slog.Handler }

// Enabled implements slog.Handler.
func (l libraryLog) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError && l.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (l libraryLog) Handle(ctx context.Context, r slog.Record) error {
	return l.Handler.Handle(ctx, slog.NewRecord(r.Time, slog.LevelWarn, "OpenTelemetry cannot use a setting: "+r.Message, r.PC))
}

// WithAttrs implements slog.Handler.
func (l libraryLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l libraryLog) WithGroup(string) slog.Handler { return l }
