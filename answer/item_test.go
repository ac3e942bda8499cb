package answer_test

import (
	"bytes"
	"context"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/triton"
)

// service is a gateway that runs no jobs until the test does.
type service struct {
	*gatewaytest.Service
	model     *pipelinetest.ColourModel
	segmenter *pipeline.Segmenter
	engine    *jobs.Engine
}

func start(t *testing.T, split string) *service {
	t.Helper()
	s := &service{model: pipelinetest.NewColourModel("bert", "clip")}
	decoderConfig := preprocess.DefaultConfig()
	decoder, err := preprocess.New(decoderConfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg := pipeline.DefaultConfig()
	cfg.RefreshInterval = time.Millisecond // the test breaks a variant and waits until the pipeline has seen it
	if s.segmenter, err = pipeline.New(cfg, decoder, s.model, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.segmenter.Close)
	s.segmenter.SetReplicas([]pipeline.Replica{s.model})
	background(t, s.segmenter.Run)

	folder := t.TempDir()
	state, err := store.Open(t.Context(), store.Config{Data: folder})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, state.Close()) })
	bucket, err := blobs.Open(t.Context(), blobs.Config{}, folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, bucket.Close()) })
	if s.engine, err = jobs.Open(t.Context(), jobs.DefaultConfig(), state, nil, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	gatewayConfig := gateway.DefaultConfig()
	gatewayConfig.Auth = gateway.AuthOff
	s.Service = gatewaytest.Start(t, gatewayConfig, gatewaytest.Parts{
		Model: s.segmenter, MaxImage: decoderConfig.MaxBytes, State: state, Blobs: bucket, Jobs: s.engine,
		Experiment: experiment.Config{Split: split}, Log: slog.New(slog.DiscardHandler),
	})
	await.Until(t, 10*time.Second, s.segmenter.Ready)
	return s
}

// background runs a function until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		closed(t, <-done)
	})
}

func closed(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// accept submits a job of one item.
func (s *service) accept(t *testing.T, fields map[string]string) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	image, err := form.CreateFormFile("image", "picture.png")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = image.Write(pipelinetest.Squares())
	for name, value := range fields {
		if err := form.WriteField(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/segment", &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.Header.Set("Prefer", "respond-async")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != http.StatusAccepted {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
}

// A try of an item fails if the variant broke after the job was accepted. The error
// advises to name another variant if the split drew this one, and does not if the
// client named it.
func TestWork_ReportsDrawnVariant(t *testing.T) {
	const advice = "The split gives it to this client"
	for _, tt := range []struct {
		name   string
		fields map[string]string
		drawn  bool
	}{
		{"drawn", map[string]string{"phrase": "red"}, true},
		{"named", map[string]string{"phrase": "red", "variant": "clip"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, "clip:1")
			s.accept(t, tt.fields)
			s.model.SetBroken(triton.Broken{Model: "refersam_clip", Variant: "clip", Stage: "refersam_clip_vli", Reason: "no memory"})
			await.True(t, 10*time.Second, "clip is broken", func() bool { return len(s.segmenter.Unusable()) == 1 })

			tried := make(chan error, 1)
			background(t, func(ctx context.Context) error {
				work := func(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
					result, err := s.Answers.Work(ctx, w)
					select {
					case tried <- err:
					default: // a later try
					}
					return result, err
				}
				return s.engine.Run(ctx, work, answer.WebhookPayload)
			})
			select {
			case err := <-tried:
				if refersam.ErrorCode(err) != refersam.CodeNotReady || !strings.Contains(err.Error(), "no memory") {
					t.Fatalf("a broken variant: %v", err)
				}
				if got := strings.Contains(err.Error(), advice); got != tt.drawn {
					t.Errorf("advice is given: %v, want %v: %v", got, tt.drawn, err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the item was not tried")
			}
		})
	}
}
