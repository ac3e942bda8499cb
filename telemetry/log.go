package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// LogConfig says what is logged and how.
type LogConfig struct {
	// Level is the least important level that is logged: DEBUG, INFO, WARN or
	// ERROR. Default INFO.
	Level slog.Level `env:"REFERSAM_LOG_LEVEL"`
	// Format is "text" or "json". Default "text".
	Format string `env:"REFERSAM_LOG_FORMAT"`
}

// DefaultLogConfig returns the defaults.
func DefaultLogConfig() LogConfig { return LogConfig{Level: slog.LevelInfo, Format: "text"} }

// Validate reports all faults of c.
func (c *LogConfig) Validate() error {
	if c.Format != "text" && c.Format != "json" {
		return fmt.Errorf("REFERSAM_LOG_FORMAT is %q, allowed: text, json", c.Format)
	}
	return nil
}

// NewLogger makes a logger that writes to w. Lines that belong to a trace have its
// id as trace_id. c must be valid.
func NewLogger(c LogConfig, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(traced{slog.NewJSONHandler(w, options)})
	}
	return slog.New(traced{slog.NewTextHandler(w, options)})
}

// traced adds the id of the context's trace to each line.
type traced struct{ slog.Handler }

// Handle implements slog.Handler.
func (t traced) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()))
	}
	return t.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (t traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{t.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (t traced) WithGroup(name string) slog.Handler { return traced{t.Handler.WithGroup(name)} }
