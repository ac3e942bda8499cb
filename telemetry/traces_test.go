package telemetry_test

import (
	"strings"
	"testing"

	"github.com/refersam/refersam/telemetry"
)

func TestTraceConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*telemetry.TraceConfig)
		fault  string
	}{
		"off":                {func(c *telemetry.TraceConfig) {}, ""},
		"http":               {func(c *telemetry.TraceConfig) { c.Endpoint = "http://localhost:4318" }, ""},
		"grpc":               {func(c *telemetry.TraceConfig) { c.TracesEndpoint, c.TracesProtocol = "https://c:4317", "grpc" }, ""},
		"no scheme":          {func(c *telemetry.TraceConfig) { c.Endpoint = "localhost:4318" }, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"no host":            {func(c *telemetry.TraceConfig) { c.TracesEndpoint = "http:///v1/traces" }, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		"password":           {func(c *telemetry.TraceConfig) { c.Endpoint = "http://me:topsecret@c:4318" }, "OTEL_EXPORTER_OTLP_HEADERS"},
		"protocol":           {func(c *telemetry.TraceConfig) { c.Endpoint, c.Protocol = "http://c:4318", "http/json" }, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"exporter":           {func(c *telemetry.TraceConfig) { c.Endpoint, c.Exporter = "http://c:4318", "jaeger" }, "OTEL_TRACES_EXPORTER"},
		"for other programs": {func(c *telemetry.TraceConfig) { c.Protocol, c.Exporter = "http/json", "jaeger" }, ""},
		"disabled":           {func(c *telemetry.TraceConfig) { c.Endpoint, c.Disabled = "not a URL", true }, ""},
	} {
		cfg := telemetry.DefaultTraceConfig()
		tc.change(&cfg)
		err := cfg.Validate()
		switch {
		case tc.fault == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.fault != "" && (err == nil || !strings.Contains(err.Error(), tc.fault)):
			t.Errorf("%s: %v, want a fault of %s", name, err, tc.fault)
		case err != nil && strings.Contains(err.Error(), "topsecret"), strings.Contains(cfg.Endpoint.String(), "topsecret"):
			t.Errorf("%s: a password is shown: %v, %s", name, err, cfg.Endpoint)
		}
	}
}
