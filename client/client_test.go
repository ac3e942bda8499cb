package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/client"
	"github.com/refersam/refersam/fetch"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
)

var _ refersam.Segmenter = (*client.Client)(nil)

// service is a real gateway with a model made for tests.
type service struct {
	segmenter *pipeline.Segmenter
	state     *store.Store
	gateway   http.Handler
	url       string
	// before sees each request first. It returns true if it has answered the
	// request itself.
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
	outside := fetch.DefaultConfig()
	outside.WebhookHosts = []string{"*"}
	fetcher, err := fetch.New(outside)
	fatal(err)
	engine, err := jobs.Open(t.Context(), jobs.DefaultConfig(), s.state, fetcher, log)
	fatal(err)
	settings := gateway.DefaultConfig()
	settings.Auth = gateway.AuthOn
	gw := gatewaytest.Start(t, settings, gatewaytest.Parts{
		Model: s.segmenter, MaxImage: preprocess.DefaultConfig().MaxBytes, State: s.state, Blobs: bucket, Jobs: engine, Fetcher: fetcher, Log: log,
	})
	s.gateway = gw
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- s.segmenter.Run(ctx) }()
	go func() { done <- gw.RunJobs(ctx, engine) }()
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
	c, err := client.New(s.url, client.WithKey(s.key(t)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *service) key(t *testing.T) string {
	t.Helper()
	token, err := s.state.CreateKey(t.Context(), store.Key{Name: "a", Scopes: []store.Scope{store.ScopeSegment, store.ScopeFeedback, store.ScopeAdmin}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token.Reveal()
}

func request() *refersam.Request {
	return &refersam.Request{
		Image: pipelinetest.Squares(), Variant: "clip", Quality: true, Unit: "u",
		Phrases: []refersam.Phrase{{ID: "r", Text: "red"}, {Text: "green", Threshold: 0.4, MinArea: 3, FillHoles: 2, Largest: true}, {Text: "nothing at all"}},
	}
}

// A Segmenter gives the same answers over HTTP as without it.
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
			cmpopts.IgnoreFields(refersam.Result{}, "Tokens", "Limit", "ModelTime", "Origin")); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// Errors are errors of the domain.
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
		if !errors.As(err, &e) || e.Code != tc.code || e.At.String() != tc.field {
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
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // too little for a second try
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

// The error for a picture or a request that is too large gives its size and the
// limit.
func TestTooLarge(t *testing.T) {
	c := start(t).client(t)
	most := preprocess.DefaultConfig().MaxBytes
	picture := func(size int64) []byte { return append(bytes.Clone(request().Image), make([]byte, size)...) }
	segment := func(size int64) error {
		req := request()
		req.Image = picture(size)
		_, err := c.Segment(t.Context(), req)
		return err
	}
	keep := func(size int64) error {
		_, err := c.KeepImage(t.Context(), client.Picture{Data: picture(size)})
		return err
	}
	for name, err := range map[string]error{
		"a picture a little too large": segment(most),
		"a picture":                    segment(2 * most),
		"a kept picture":               keep(2 * most),
	} {
		if refersam.ErrorCode(err) != refersam.CodeImageTooLarge || !strings.Contains(err.Error(), fmt.Sprint(most, " bytes")) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "a picture a little too large" && !regexp.MustCompile(`has \d{8} bytes, but this route accepts at most \d{8}\.`).MatchString(err.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// All faults of a request are reported at once, under the request's id.
func TestFaults(t *testing.T) {
	s := start(t)
	c := s.client(t)
	req := request()
	req.ID = "mine.1"
	req.Phrases[0].Threshold, req.Phrases[1].MinArea = 2, -1
	_, err := c.Segment(t.Context(), req)
	var e *refersam.Error
	if !errors.As(err, &e) || e.At != refersam.Named("/prompts/0/threshold") || e.RequestID != "mine.1" || len(e.Also) != 1 {
		t.Fatalf("%+v", err)
	}
	if also := e.Also[0]; also.At != refersam.Named("/prompts/1/min_area") || also.Message == "" || also.Code != refersam.CodeInvalidRequest || also.RequestID != "mine.1" {
		t.Errorf("%+v", also)
	}
	for name, try := range map[string]func() error{
		"a shadow": func() error {
			r := request()
			r.Priority = refersam.PriorityShadow
			_, err := c.Segment(t.Context(), r)
			return err
		},
		"an empty id":          func() error { _, err := c.Job(t.Context(), ""); return err },
		"an id that goes up":   func() error { return c.DeleteImage(t.Context(), "..") },
		"a header of controls": func() error { _, err := c.Models(client.WithRequestID(t.Context(), "a\nb")); return err },
	} {
		if err := try(); refersam.ErrorCode(err) != refersam.CodeInvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A value that JSON cannot express is reported with its place, in the same form in
// which the service reports places.
func TestUnwritable(t *testing.T) {
	c, tr := through(t, func(int, *http.Request) (*http.Response, error) { return reply(200, "{}"), nil })
	ctx := t.Context()
	item := client.Item{ID: "a", Picture: client.Picture{ID: "img_1"}, Phrases: []refersam.Phrase{{Text: "red"}, {Text: "r\xffd"}}}
	for field, try := range map[string]func() error{
		"/prompts/1/text": func() error { _, err := c.SegmentItem(ctx, item, client.RequestOptions{}); return err },
		"/prompts/0/id": func() error {
			_, err := c.Segment(ctx, &refersam.Request{Phrases: []refersam.Phrase{{ID: "\xff", Text: "red"}}})
			return err
		},
		"/prompts/0/threshold": func() error {
			_, err := c.Segment(ctx, &refersam.Request{Phrases: []refersam.Phrase{{Text: "red", Threshold: math.NaN()}}})
			return err
		},
		"/items/0/prompts/1/text": func() error { _, err := c.SegmentBatch(ctx, []client.Item{item}, client.RequestOptions{}); return err },
		"/webhook/url":            func() error { _, err := c.Submit(ctx, nil, client.JobOptions{Webhook: "https://\xff"}); return err },
		"/image/url":              func() error { _, err := c.KeepImage(ctx, client.Picture{URL: "https://\xff"}); return err },
		"/comment":                func() error { _, err := c.SendFeedback(ctx, client.Feedback{Comment: "\xff"}); return err },
	} {
		var e *refersam.Error
		if err := try(); !errors.As(err, &e) || e.Code != refersam.CodeInvalidRequest || e.At.String() != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if tr.tries != 0 {
		t.Errorf("%d requests were sent", tr.tries)
	}
}

// A batch is answered item by item, in order.
func TestBatch(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	image, err := c.KeepImage(ctx, client.Picture{Data: pipelinetest.Squares()})
	if err != nil {
		t.Fatal(err)
	}
	want, err := c.Segment(ctx, request())
	if err != nil {
		t.Fatal(err)
	}
	items := []client.Item{
		{ID: "kept", Picture: client.Picture{ID: image.ID}, Phrases: request().Phrases, Quality: true},
		{ID: "damaged", Picture: client.Picture{Data: []byte("none")}, Phrases: request().Phrases},
		{Picture: client.Picture{Data: pipelinetest.Squares()}, Phrases: request().Phrases[:1], Size: refersam.SizeModel},
		{ID: "fetched", Picture: client.Picture{URL: "https://example.com/a.png"}, Phrases: request().Phrases},
	}
	results, err := c.SegmentBatch(client.WithRequestID(ctx, "b1"), items, client.RequestOptions{Variant: "clip"})
	if err != nil || len(results) != len(items) {
		t.Fatalf("%+v, %v", results, err)
	}
	first := results[0]
	if first.Err != nil || first.ID != "kept" || first.Answer.RequestID != "b1" {
		t.Fatalf("%+v", first)
	}
	if diff := cmp.Diff(want.Results, first.Answer.Results, cmpopts.IgnoreFields(refersam.Result{}, "Origin")); diff != "" {
		t.Error(diff)
	}
	var e *refersam.Error
	if second := results[1]; !errors.As(second.Err, &e) || e.Code != refersam.CodeUnsupportedMedia || e.At != refersam.Named("/items/1/image/data") || e.RequestID != "b1" || second.Answer != nil {
		t.Errorf("%+v", second)
	}
	if third := results[2]; third.Err != nil || third.ID != "" || len(third.Answer.Results) != 1 || third.Answer.MaskWidth >= want.MaskWidth {
		t.Errorf("%+v", third)
	}
	if refersam.ErrorCode(results[3].Err) != refersam.CodeFetchRefused {
		t.Errorf("%+v", results[3])
	}
	if _, err := c.SegmentBatch(ctx, nil, client.RequestOptions{}); refersam.ErrorCode(err) != refersam.CodeInvalidRequest {
		t.Errorf("%v", err)
	}
}

// Pictures are stored, listed, returned and deleted.
func TestImages(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	image, err := c.KeepImage(ctx, client.Picture{Data: pipelinetest.Squares()})
	if err != nil || !strings.HasPrefix(image.ID, "img_") || image.Width == 0 || image.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", image, err)
	}
	known, err := c.Image(ctx, image.ID)
	if err != nil || *known != *image {
		t.Errorf("%+v, %v", known, err)
	}
	content, err := c.ImageContent(ctx, image.ID)
	if err != nil || !bytes.Equal(content, pipelinetest.Squares()) {
		t.Errorf("%d bytes, %v", len(content), err)
	}
	a, err := c.SegmentItem(client.WithRequestID(ctx, "mine"), client.Item{Picture: client.Picture{ID: image.ID}, Phrases: request().Phrases}, client.RequestOptions{})
	if err != nil || a.RequestID != "mine" || a.Results[0].Area == 0 {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := c.KeepImage(ctx, client.Picture{URL: "https://example.com/a.png"}); refersam.ErrorCode(err) != refersam.CodeFetchRefused {
		t.Errorf("%v", err)
	}
	for i := range 103 { // more than a page
		picture := append(bytes.Clone(pipelinetest.Squares()), byte(i))
		if _, err := c.KeepImage(ctx, client.Picture{Data: picture}); err != nil {
			t.Fatal(err)
		}
	}
	ids := map[string]bool{}
	for i, err := range c.Images(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		ids[i.ID] = true
	}
	if len(ids) != 104 || !ids[image.ID] {
		t.Errorf("%d images are listed", len(ids))
	}
	if err := c.DeleteImage(ctx, image.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Image(ctx, image.ID); refersam.ErrorCode(err) != refersam.CodeImageNotFound {
		t.Errorf("%v", err)
	}
	if err := c.DeleteImage(ctx, image.ID); refersam.ErrorCode(err) != refersam.CodeImageNotFound {
		t.Errorf("%v", err)
	}
	wrong, err := client.New(s.url, client.WithKey("rsk_hidden"))
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range wrong.Images(ctx) {
		if i != nil || refersam.ErrorCode(err) != refersam.CodeUnauthorized {
			t.Errorf("%+v, %v", i, err)
		}
	}
}

// Models, usage and feedback.
func TestService(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	models, err := c.Models(ctx)
	if err != nil || len(models.Models) != 2 || models.Models[1].Variant != "clip" || models.Models[1].ImageSize != 128 {
		t.Fatalf("%+v, %v", models, err)
	}
	if diff := cmp.Diff(api.Formats, models.Formats); diff != "" {
		t.Error(diff)
	}
	most := s.segmenter.Limits()
	timeout := gateway.DefaultConfig().Answers.RequestTimeout
	want := client.Limits{Limits: api.Limits{
		MaxImageBytes: most.MaxImageBytes, MaxImagePixels: most.MaxImagePixels, MaxImageSide: most.MaxImageSide, MaxImageFrames: most.MaxImageFrames,
		MaxPhrases: most.MaxPhrases, MaxPhraseBytes: most.MaxPhraseBytes,
		MaxMaskPixels: most.MaxMaskPixels, MaxBatchItems: 64, MaxBatchBytes: 100 << 20, RequestTimeoutMS: timeout.Milliseconds(),
	}, RequestTimeout: timeout}
	if diff := cmp.Diff(want, models.Limits); diff != "" {
		t.Error(diff)
	}
	resp, err := c.Segment(client.WithRequestID(ctx, "r1"), request())
	if err != nil {
		t.Fatal(err)
	}
	sent := client.Feedback{RequestID: "r1", Item: 3, Result: 1, Verdict: "bad", Rating: 2, CorrectedMask: resp.Results[0].Mask, Comment: "the other one"}
	kept, err := c.SendFeedback(ctx, sent)
	if err != nil || kept.ID == "" || kept.Key == "" || kept.CreatedAt.IsZero() {
		t.Fatalf("%+v, %v", kept, err)
	}
	if diff := cmp.Diff(&sent, kept, cmpopts.IgnoreFields(client.Feedback{}, "ID", "Key", "CreatedAt")); diff != "" {
		t.Error(diff)
	}
	if _, err := c.SendFeedback(ctx, client.Feedback{RequestID: "r2", Verdict: "good"}); err != nil {
		t.Error(err)
	}
	for requestID, want := range map[string]int{"": 2, "r1": 1, "r3": 0} {
		n := 0
		for f, err := range c.Feedback(ctx, requestID) {
			if err != nil || requestID != "" && !cmp.Equal(kept, f, cmpopts.EquateApproxTime(time.Millisecond)) {
				t.Errorf("%+v, %v", f, err)
			}
			n++
		}
		if n != want {
			t.Errorf("%d about %q", n, requestID)
		}
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	for name, q := range map[string]client.UsageQuery{"all": {}, "today": {From: today, To: today}, "a key": {Key: kept.Key}} {
		used, err := c.Usage(ctx, q)
		if err != nil || len(used) != 1 || used[0].Requests != 1 || used[0].Pictures != 1 || used[0].Key != kept.Key || used[0].Day.Before(today) {
			t.Errorf("%s: %+v, %v", name, used, err)
		}
	}
	if used, err := c.Usage(ctx, client.UsageQuery{To: today.AddDate(0, 0, -1)}); err != nil || len(used) != 0 {
		t.Errorf("%+v, %v", used, err)
	}
}
