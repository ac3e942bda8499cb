package gatewaytest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"

	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/telemetry"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Parts are what a Service is made of. Jobs and Fetcher may be nil if the test uses
// no route that needs them, and Metrics is made if it is nil.
type Parts struct {
	Model experiment.Inner
	// MaxImage is the size of the largest encoded picture that Model accepts.
	MaxImage int64
	State    State
	Blobs    images.Bucket
	Jobs     gateway.Jobs
	Fetcher  answer.Fetcher
	Metrics  *telemetry.Metrics
	// Traces is nil for no traces.
	Traces trace.TracerProvider
	Log    *slog.Logger
	// Experiment says which variant answers whom. The zero Config shares clients
	// out evenly.
	Experiment experiment.Config
}

// State is the state of a Service; *store.Store is one.
type State interface {
	access.State
	images.State
	gateway.State
}

// Service is a gateway with the parts that a program connects it to.
type Service struct {
	*gateway.Gateway
	Access    *access.Gate
	Answers   *answer.Service
	Segmenter *experiment.Segmenter
}

// Start makes a Service that serves nothing yet, and closes it at the end of the
// test.
func Start(t testing.TB, cfg gateway.Config, parts Parts) *Service {
	t.Helper()
	s, err := New(cfg, parts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Access.Close() })
	return s
}

// New is Start for a configuration that may be wrong. The caller must close Access.
func New(cfg gateway.Config, parts Parts) (*Service, error) {
	if parts.Metrics == nil {
		parts.Metrics = telemetry.NewMetrics(parts.Model)
	}
	if parts.Traces == nil {
		parts.Traces = noop.NewTracerProvider()
	}
	decoder, err := preprocess.New(preprocess.DefaultConfig())
	if err != nil {
		return nil, err
	}
	s := &Service{}
	observe := func(e experiment.Exposure) { parts.Metrics.Answer(e.Response) }
	if s.Segmenter, err = experiment.New(parts.Experiment, parts.Model, observe); err != nil {
		return nil, err
	}
	if s.Access, err = access.New(parts.State, rand.Text(), parts.Log); err != nil {
		return nil, err
	}
	keeper := images.New(cfg.Images, parts.MaxImage, parts.State, parts.Blobs, decoder, parts.Log)
	s.Answers = answer.New(cfg.Answers, answer.Parts{
		Segmenter: s.Segmenter, MaxImage: parts.MaxImage, Images: keeper, Fetcher: parts.Fetcher, Meter: s.Access.Meter,
		Traces: parts.Traces, Log: parts.Log,
	})
	s.Gateway, err = gateway.New(cfg, gateway.Parts{
		Segmenter: s.Segmenter, Access: s.Access, Images: keeper, Answers: s.Answers, Jobs: parts.Jobs, State: parts.State,
		Metrics: parts.Metrics, Traces: parts.Traces, Log: parts.Log,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// RunJobs does jobs until ctx ends.
func (s *Service) RunJobs(ctx context.Context, engine *jobs.Engine) error {
	return engine.Run(ctx, s.Answers.Work, answer.WebhookPayload)
}
