package telemetry

import (
	"fmt"
	"io"
	"log/slog"
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

// NewLogger makes a logger that writes to w. c must be valid.
func NewLogger(c LogConfig, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
