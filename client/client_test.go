package client_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/client"
	"github.com/refersam/refersam/fetch"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
)

var _ refersam.Segmenter = (*client.Client)(nil)

// service is a real gateway before a model of the tests.
type service struct {
	segmenter *pipeline.Segmenter
	state     *store.Store
	url       string
	// before sees requests first, and answers those that it returns true for.
	before func(w http.ResponseWriter, r *http.Request) bool
}

func start(t *testing.T) *service {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	decoder, err := preprocess.New(preprocess.DefaultConfig())
	fatal(err)
	model := pipelinetest.NewColourModel("bert", "clip")
	cfg := pipeline.DefaultConfig()
	cfg.Schedule.Admission = false
	s := &service{}
	s.segmenter, err = pipeline.New(cfg, decoder, model, log)
	fatal(err)
	t.Cleanup(s.segmenter.Close)
	s.segmenter.SetReplicas([]pipeline.Replica{model})
	s.state, err = store.Open(t.Context(), store.Config{Data: t.TempDir()})
	fatal(err)
	t.Cleanup(func() { _ = s.state.Close() })
	bucket, err := blobs.Open(t.Context(), blobs.Config{}, t.TempDir())
	fatal(err)
	t.Cleanup(func() { _ = bucket.Close() })
	fetcher, err := fetch.New(fetch.DefaultConfig())
	fatal(err)
	engine, err := jobs.Open(t.Context(), jobs.DefaultConfig(), s.state, fetcher, log)
	fatal(err)
	settings := gateway.DefaultConfig()
	settings.Auth = gateway.AuthOn
	gw, err := gateway.New(settings, gateway.Parts{
		Segmenter: s.segmenter, MaxImage: preprocess.DefaultConfig().MaxBytes, State: s.state, Blobs: bucket, Jobs: engine, Fetcher: fetcher, Log: log,
	})
	fatal(err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.segmenter.Run(ctx) }()
	go func() { done <- engine.Run(ctx, gw.Work, gw.Payload) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	fatal(s.segmenter.WaitReady(t.Context()))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.before == nil || !s.before(w, r) {
			gw.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *service) client(t *testing.T) *client.Client {
	t.Helper()
	token, err := s.state.CreateKey(t.Context(), store.Key{Name: "a", Scopes: []store.Scope{store.ScopeSegment}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(s.url, client.WithKey(token.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request() *refersam.Request {
	return &refersam.Request{
		Image: pipelinetest.Squares(), Variant: "clip", Quality: true, Unit: "u",
		Phrases: []refersam.Phrase{{ID: "r", Text: "red"}, {Text: "green", Threshold: 0.4, MinArea: 3, FillHoles: 2, Largest: true}, {Text: "nothing at all"}},
	}
}

// Over HTTP a Segmenter answers what it answers without.
func TestSegment(t *testing.T) {
	s := start(t)
	c := s.client(t)
	for name, req := range map[string]*refersam.Request{
		"original": request(),
		"model":    func() *refersam.Request { r := request(); r.Size = refersam.SizeModel; return r }(),
	} {
		want, err := s.segmenter.Segment(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		got, err := c.Segment(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(refersam.Response{}, "Checkpoint", "Timings"),
			cmpopts.IgnoreFields(refersam.Result{}, "Tokens", "Limit", "ModelTime", "Origin", "Logits")); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	seen := 0
	req := request()
	req.Encode = func(i int, r *refersam.Result) error { seen += r.Area; return nil }
	got, err := c.Segment(t.Context(), req)
	if err != nil || seen == 0 || got.Results[0].Mask != nil {
		t.Errorf("%d pixels, %v", seen, err)
	}
}

// Errors are those of the domain.
func TestErrors(t *testing.T) {
	s := start(t)
	c := s.client(t)
	for name, tc := range map[string]struct {
		change func(*refersam.Request)
		code   refersam.Code
		field  string
	}{
		"no picture":     {func(r *refersam.Request) { r.Image = []byte("none") }, refersam.CodeUnsupportedMedia, "/image/data"},
		"a blank phrase": {func(r *refersam.Request) { r.Phrases[1].Text = " " }, refersam.CodePhraseEmpty, "/prompts/1/text"},
		"no variant":     {func(r *refersam.Request) { r.Variant = "gpt" }, refersam.CodeUnknownVariant, "/variant"},
	} {
		req := request()
		tc.change(req)
		_, err := c.Segment(t.Context(), req)
		var e *refersam.Error
		if !errors.As(err, &e) || e.Code != tc.code || e.Field != tc.field {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong, err := client.New(s.url, client.WithKey("rsk_hidden"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.Models(t.Context()); refersam.ErrorCode(err) != refersam.CodeUnauthorized || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%v", err)
	}
	gone, err := client.New("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := gone.Models(ctx); refersam.ErrorCode(err) != refersam.CodeUnavailable {
		t.Errorf("%v", err)
	}
	for _, address := range []string{"", "masks.example.com", "ftp://masks.example.com"} {
		if _, err := client.New(address); err == nil {
			t.Errorf("%q is an address", address)
		}
	}
}

// What may pass is tried again when the service says, and no later than ctx
// allows; what may not is not.
func TestRetries(t *testing.T) {
	s := start(t)
	c := s.client(t)
	var tries atomic.Int64
	refuse := func(n int64, status int, code string) {
		tries.Store(0)
		s.before = func(w http.ResponseWriter, _ *http.Request) bool {
			if tries.Add(1) > n {
				return false
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"code": "` + code + `", "detail": "no"}`))
			return true
		}
	}
	refuse(2, http.StatusServiceUnavailable, "overloaded")
	if _, err := c.Segment(t.Context(), request()); err != nil || tries.Load() != 3 {
		t.Errorf("%d tries: %v", tries.Load(), err)
	}
	refuse(9, http.StatusUnprocessableEntity, "invalid_request")
	if _, err := c.Segment(t.Context(), request()); refersam.ErrorCode(err) != refersam.CodeInvalidRequest || tries.Load() != 1 {
		t.Errorf("%d tries: %v", tries.Load(), err)
	}
	refuse(9, http.StatusServiceUnavailable, "overloaded")
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	begun := time.Now()
	if _, err := c.Segment(ctx, request()); refersam.ErrorCode(err) != refersam.CodeOverloaded || time.Since(begun) > 700*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
}

// Pictures are kept, and jobs done.
func TestKept(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	image, err := c.KeepImage(ctx, pipelinetest.Squares())
	if err != nil || !strings.HasPrefix(image.ID, "img_") || image.Width == 0 || image.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", image, err)
	}
	want, err := c.Segment(ctx, request())
	if err != nil {
		t.Fatal(err)
	}
	same := func(got *refersam.Response, err error) {
		t.Helper()
		if err != nil || got.Results[0].Area != want.Results[0].Area {
			t.Errorf("%+v, %v", got, err)
		}
	}
	same(c.SegmentImage(ctx, image.ID, request()))
	if err := c.DeleteImage(ctx, image.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Image(ctx, image.ID); refersam.ErrorCode(err) != refersam.CodeImageNotFound {
		t.Errorf("%v", err)
	}
	j, err := c.Submit(ctx, request(), "")
	if err != nil {
		t.Fatal(err)
	}
	if j, err = c.Wait(ctx, j.ID); err != nil || j.Status != "succeeded" || j.Err() != nil || j.Progress.Succeeded != 1 || j.FinishedAt.IsZero() {
		t.Fatalf("%+v, %v", j, err)
	}
	same(c.Result(ctx, j.ID, request()))
	if j, err = c.Cancel(ctx, j.ID); err != nil || j.Status != "succeeded" {
		t.Errorf("%+v, %v", j, err)
	}
	models, err := c.Models(ctx)
	if err != nil || len(models) != 2 || models[1].Variant != "clip" || models[1].ImageSize != 128 {
		t.Errorf("%+v, %v", models, err)
	}
}
