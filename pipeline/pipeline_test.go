package pipeline_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/postprocess"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/triton"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start returns a Segmenter that has learnt its variants, unless the model is
// down.
func start(t *testing.T, model pipeline.Model, change ...func(*pipeline.Config)) *pipeline.Segmenter {
	t.Helper()
	s := newSegmenter(t, model, change...)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := s.WaitReady(waiting); err != nil {
		t.Fatal(err)
	}
	return s
}

func newSegmenter(t *testing.T, model pipeline.Model, change ...func(*pipeline.Config)) *pipeline.Segmenter {
	t.Helper()
	return newSegmenterWithLog(t, model, slog.New(slog.DiscardHandler), change...)
}

func newSegmenterWithLog(t *testing.T, model pipeline.Model, log *slog.Logger, change ...func(*pipeline.Config)) *pipeline.Segmenter {
	t.Helper()
	decoder, err := preprocess.New(preprocess.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	cfg := pipeline.DefaultConfig()
	cfg.Schedule.Admission = false // else the model is measured, which the tests would see
	for _, c := range change {
		c(&cfg)
	}
	s, err := pipeline.New(cfg, decoder, model, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if colour, ok := model.(*pipelinetest.ColourModel); ok && colour.Held() != 0 {
			t.Errorf("%d pictures are still held", colour.Held())
		}
	})
	s.SetReplicas([]pipeline.Replica{model.(pipeline.Replica)})
	return s
}

func ask(phrases ...string) *refersam.Request {
	req := &refersam.Request{Image: pipelinetest.Squares(), Variant: "bert"}
	for i, p := range phrases {
		req.Phrases = append(req.Phrases, refersam.Phrase{ID: fmt.Sprint(i), Text: p})
	}
	return req
}

func TestSegment(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert", "clip"))
	for _, variant := range []string{"bert", "clip"} {
		req := ask("the red square", "  a blue thing\n", "the elephant")
		req.Variant = variant
		resp, err := s.Segment(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Variant != variant || resp.Model != "refersam_"+variant || resp.Version != "1" {
			t.Errorf("%s was answered by %q, %q, %q", variant, resp.Model, resp.Variant, resp.Version)
		}
		if resp.Width != 320 || resp.Height != 240 {
			t.Errorf("size %d × %d, want 320 × 240", resp.Width, resp.Height)
		}
		for i, p := range req.Phrases {
			if got := resp.Results[i].Phrase; got != p.Text {
				t.Errorf("result %d answers the phrase %q, want %q", i, got, p.Text)
			}
		}
		expectSquare(t, &resp.Results[0], "0", pipelinetest.Red)
		expectSquare(t, &resp.Results[1], "1", pipelinetest.Blue)
		if r := resp.Results[2]; !r.Empty() || r.Score != 0 || r.Box != (refersam.Box{}) || r.Mask == nil {
			t.Errorf("an elephant was found: %+v", r)
		}
	}
}

// A model that reads padded pictures gives the same masks: its square is not
// stretched, and what it says of the padding is cut off.
func TestSegment_LongestSidePad(t *testing.T) {
	model := pipelinetest.NewColourModel("bert")
	model.SetContract(func(c *triton.Contract) { c.Resize = "longest_side_pad" })
	s := start(t, model)
	resp, err := s.Segment(t.Context(), ask("the red square", "a blue thing", "the elephant"))
	if err != nil {
		t.Fatal(err)
	}
	expectSquare(t, &resp.Results[0], "0", pipelinetest.Red)
	expectSquare(t, &resp.Results[1], "1", pipelinetest.Blue)
	if r := resp.Results[2]; !r.Empty() {
		t.Errorf("an elephant was found: %+v", r)
	}
}

// expectSquare accepts what the model's low resolution costs along the edges.
func expectSquare(t *testing.T, r *refersam.Result, id string, want image.Rectangle) {
	t.Helper()
	if r.PhraseID != id {
		t.Errorf("id %q, want %q", r.PhraseID, id)
	}
	var both, either int
	for i, v := range postprocess.Pixels(r.Mask) {
		inside := image.Pt(i%r.Mask.Width, i/r.Mask.Width).In(want)
		if inside && v == 1 {
			both++
		}
		if inside || v == 1 {
			either++
		}
	}
	if iou := float64(both) / float64(either); iou < 0.85 {
		t.Errorf("%s: IoU %.3f with %v; box %v", id, iou, want, r.Box)
	}
	if r.Score < 0.9 || r.Score > 1 {
		t.Errorf("%s: score %v", id, r.Score)
	}
}

func TestSegment_Batches(t *testing.T) {
	model := pipelinetest.NewColourModel("bert")
	s := start(t, model)
	words := []string{"red", "green", "blue"}
	var phrases []string
	for i := range 20 {
		phrases = append(phrases, fmt.Sprintf("%s %d", words[i%3], i))
	}
	resp, err := s.Segment(t.Context(), ask(phrases...))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := model.Batches(), []int{8, 8, 4}; !slices.Equal(got, want) {
		t.Errorf("batches of %v rows, want %v", got, want)
	}
	for i := range resp.Results {
		r := &resp.Results[i]
		switch i % 3 {
		case 0:
			expectSquare(t, r, fmt.Sprint(i), pipelinetest.Red)
		case 1:
			if !r.Empty() {
				t.Errorf("%d: something green was found", i)
			}
		case 2:
			expectSquare(t, r, fmt.Sprint(i), pipelinetest.Blue)
		}
	}
}

func TestSegment_Truncated(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"))
	resp, err := s.Segment(t.Context(), ask("red", strings.Repeat("very ", 20)+"red"))
	if err != nil {
		t.Fatal(err)
	}
	if r := resp.Results[0]; r.Truncated() || r.Tokens != 3 || r.Limit != 16 {
		t.Errorf("one word has %d tokens of %d", r.Tokens, r.Limit)
	}
	if r := resp.Results[1]; !r.Truncated() || r.Tokens != 23 || !r.Empty() {
		t.Errorf("21 words have %d tokens of %d, area %d", r.Tokens, r.Limit, r.Area)
	}
}

// A model's certainty is a logit of 8, a probability of 0.99966.
func TestSegment_Threshold(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"))
	req := ask("red", "red", "red")
	req.Phrases[1].Threshold = 0.01
	req.Phrases[2].Threshold = 0.9999
	resp, err := s.Segment(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if own, low := resp.Results[0].Area, resp.Results[1].Area; low <= own {
		t.Errorf("area %d with a low threshold, %d without", low, own)
	}
	if r := resp.Results[2]; !r.Empty() {
		t.Errorf("area %d above the model's certainty", r.Area)
	}
}

func TestSegment_BadRequests(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert", "clip"))
	many := make([]string, 33)
	for i := range many {
		many[i] = "red"
	}
	threshold := func(v float64) *refersam.Request {
		req := ask("red", "red")
		req.Phrases[1].Threshold = v
		return req
	}
	with := func(change func(*refersam.Request)) *refersam.Request {
		req := ask("red")
		change(req)
		return req
	}
	for _, tc := range []struct {
		name  string
		req   *refersam.Request
		code  refersam.Code
		field string
	}{
		{"no phrase", ask(), refersam.CodeInvalidRequest, "/prompts"},
		{"too many phrases", ask(many...), refersam.CodeInvalidRequest, "/prompts"},
		{"empty", ask("red", ""), refersam.CodePhraseEmpty, "/prompts/1/text"},
		{"blank", ask(" \t\n\u00a0\u3000"), refersam.CodePhraseEmpty, "/prompts/0/text"},
		{"invisible", ask("\u200b\u00ad\x07"), refersam.CodePhraseEmpty, "/prompts/0/text"},
		{"too long", ask(strings.Repeat("a", 1001)), refersam.CodePhraseTooLong, "/prompts/0/text"},
		{"far too long", ask(strings.Repeat("a", 10_000)), refersam.CodePhraseTooLong, "/prompts/0/text"},
		{"not UTF-8", ask("the d\xffck"), refersam.CodeInvalidRequest, "/prompts/0/text"},
		{"threshold 1", threshold(1), refersam.CodeInvalidRequest, "/prompts/1/threshold"},
		{"threshold -1", threshold(-1), refersam.CodeInvalidRequest, "/prompts/1/threshold"},
		{"threshold NaN", threshold(math.NaN()), refersam.CodeInvalidRequest, "/prompts/1/threshold"},
		{"unknown variant", with(func(r *refersam.Request) { r.Variant = "gpt" }), refersam.CodeUnknownVariant, "/variant"},
		{"no picture", with(func(r *refersam.Request) { r.Image = nil }), refersam.CodeInvalidImage, "/image"},
		{"not a picture", with(func(r *refersam.Request) { r.Image = []byte("hello") }), refersam.CodeUnsupportedMedia, "/image"},
		{"half a picture", with(func(r *refersam.Request) { r.Image = r.Image[:len(r.Image)/2] }), refersam.CodeInvalidImage, "/image"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := s.Segment(t.Context(), tc.req)
			expectError(t, err, tc.code, tc.field)
		})
	}
}

func TestSegment_LongestPhrase(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"))
	// 1,000 bytes once composed, 3,000 as they come.
	decomposed := strings.Repeat("\u1112\u1161\u11ab", 333) + "a"
	for _, phrase := range []string{strings.Repeat("a", 1000), decomposed} {
		if _, err := s.Segment(t.Context(), ask(phrase)); err != nil {
			t.Errorf("%d bytes: %v", len(phrase), err)
		}
	}
}

func TestSegment_MaskMemory(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"), func(c *pipeline.Config) { c.MaxMaskPixels = 2 * 320 * 240 })
	if _, err := s.Segment(t.Context(), ask("red", "blue")); err != nil {
		t.Error(err)
	}
	_, err := s.Segment(t.Context(), ask("red", "blue", "green"))
	expectError(t, err, refersam.CodeImageTooLarge, "/image")
}

// Masks are handed over one by one and dropped, and no more of them are made
// once nobody wants them.
func TestSegment_Encode(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"), func(c *pipeline.Config) { c.Workers = 1 })
	req := ask("red", "blue", "green", "red", "blue")
	areas := make([]int, len(req.Phrases))
	prepared := prepare(t, s, req)
	resp, err := prepared.Run(t.Context(), &pipeline.Sink{Encode: func(i int, r *refersam.Result, _ pipeline.Origin) error {
		areas[i] = postprocess.Area(r.Mask)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range resp.Results {
		if r.Mask != nil || r.Area != areas[i] || (r.Area > 0) != (i != 2) {
			t.Errorf("%d: area %d, the mask that was handed over has %d; kept: %t", i, r.Area, areas[i], r.Mask != nil)
		}
	}

	full := errors.New("disk full")
	sink := &pipeline.Sink{Encode: func(int, *refersam.Result, pipeline.Origin) error { return full }}
	if _, err := prepared.Run(t.Context(), sink); !errors.Is(err, full) {
		t.Errorf("error %v, want that of Encode", err)
	}

	ctx, leave := context.WithCancel(t.Context())
	calls := 0
	sink.Encode = func(int, *refersam.Result, pipeline.Origin) error {
		calls++
		leave()
		return nil
	}
	if _, err := prepared.Run(ctx, sink); !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("%d masks were encoded, want 1 before the caller left: %v", calls, err)
	}
}

// A picture that waits for memory keeps no place on the CPU from others.
func TestSegment_WaitsWithoutCPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := preprocess.DefaultConfig()
		limits.MaxPixels, limits.DecodeMemory = 320*240, 160<<20
		decoder, err := preprocess.New(limits)
		if err != nil {
			t.Fatal(err)
		}
		cfg := pipeline.DefaultConfig()
		cfg.Workers = 1
		model := pipelinetest.NewColourModel("bert")
		s, err := pipeline.New(cfg, decoder, model, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		s.SetReplicas([]pipeline.Replica{model})
		run(t, s)
		synctest.Wait()

		proceed := make(chan struct{})
		model.SetBefore(func(context.Context) error {
			<-proceed
			return nil
		})
		first, second := make(chan error, 1), make(chan error, 1)
		segment := func(phrase string, done chan<- error) {
			_, err := s.Segment(t.Context(), ask(phrase))
			done <- err
		}
		go segment("red", first)
		synctest.Wait() // it has been decoded

		var held []*preprocess.Encoded
		picture := pipelinetest.Squares()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			e, err := decoder.Open(ctx, picture)
			cancel()
			if err != nil {
				break
			}
			held = append(held, e)
		}
		go segment("blue", second)
		synctest.Wait()
		close(proceed)
		synctest.Wait()
		select {
		case err := <-first:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("a request that needs only the CPU waits for one that needs memory")
		}
		select {
		case err := <-second:
			t.Errorf("all memory is taken, and it is answered: %v", err)
		default:
		}
		for _, e := range held {
			e.Close()
		}
		if err := <-second; err != nil {
			t.Error(err)
		}
	})
}

func TestSegment_Deadline(t *testing.T) {
	model := pipelinetest.NewColourModel("bert")
	model.SetBefore(func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	s := start(t, model)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Segment(ctx, ask("red"))
	expectError(t, err, refersam.CodeDeadlineExceeded, "")

	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := s.Segment(ctx, ask("red")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that the caller went away", err)
	}
}

var errAway = &refersam.Error{Code: refersam.CodeUnavailable, Message: "away"}

func TestRun_Loading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		model.SetDown(errAway)
		s := newSegmenter(t, model)
		run(t, s)
		for range 3 {
			synctest.Wait()
			expectError(t, s.Ready(), refersam.CodeNotReady, "")
			_, err := s.Segment(t.Context(), ask("red"))
			expectError(t, err, refersam.CodeNotReady, "")
			if v := s.Variants(); len(v) != 0 {
				t.Errorf("variants %v while loading", v)
			}
			time.Sleep(time.Minute)
		}
		model.SetDown(nil)
		time.Sleep(5 * time.Second)
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if model.Probes() != 2 {
			t.Errorf("%d real inferences before ready, want one of the model and one of its replica", model.Probes())
		}
	})
}

func TestRun_LostAndFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		s := newSegmenter(t, model)
		run(t, s)
		synctest.Wait()
		if err := s.Ready(); err != nil {
			t.Fatal(err)
		}

		model.SetDown(errAway)
		_, err := s.Segment(t.Context(), ask("red"))
		expectError(t, err, refersam.CodeUnavailable, "")
		time.Sleep(time.Second)
		expectError(t, s.Ready(), refersam.CodeUnavailable, "")

		model.SetDown(nil)
		time.Sleep(5 * time.Second)
		if err := s.Ready(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Segment(t.Context(), ask("red")); err != nil {
			t.Error(err)
		}

		// Nobody asks, and it is noticed all the same.
		model.SetDown(errAway)
		time.Sleep(11 * time.Second)
		expectError(t, s.Ready(), refersam.CodeUnavailable, "")
	})
}

// One look that fails costs nothing; three in a row do, and so does one after
// an inference that failed (TestRun_LostAndFound).
func TestRun_Patience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		s := newSegmenter(t, model)
		run(t, s)
		synctest.Wait()

		model.SetDown(errAway)
		time.Sleep(10*time.Second + 100*time.Millisecond) // one look has failed, the next comes in 150 ms
		if err := s.Ready(); err != nil {
			t.Errorf("after one failed look: %v", err)
		}
		model.SetDown(nil)
		if _, err := s.Segment(t.Context(), ask("red")); err != nil {
			t.Errorf("after one failed look: %v", err)
		}
		time.Sleep(10 * time.Second) // a look succeeds, so that failures count from 0 again

		model.SetDown(errAway)
		time.Sleep(11 * time.Second)
		expectError(t, s.Ready(), refersam.CodeUnavailable, "")
	})
}

// Why the service is not ready can be read in the log, once for each cause.
func TestRun_Log(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		var log bytes.Buffer
		s := newSegmenterWithLog(t, model, slog.New(slog.NewTextHandler(&log, nil)))
		expectCauses := func(want map[string]int) {
			t.Helper()
			synctest.Wait()
			for cause, times := range want {
				if got := strings.Count(log.String(), cause); got != times {
					t.Errorf("%q was logged %d times, want %d:\n%s", cause, got, times, log.String())
				}
			}
		}

		refused := &refersam.Error{Code: refersam.CodeUnavailable, Message: "away", Err: errors.New("dial trition:8001: no such host")}
		model.SetDown(refused)
		run(t, s)
		time.Sleep(time.Minute)
		// Servers that start at the same time are away for a moment.
		expectCauses(map[string]int{"waiting for the model": 1, "level=WARN": 1, "no such host": 2})

		model.SetDown(&refersam.Error{Code: refersam.CodeNotReady, Message: "still loading"})
		time.Sleep(time.Minute)
		expectCauses(map[string]int{"level=WARN": 1, "still loading": 1})

		model.SetDown(nil)
		time.Sleep(time.Minute)
		model.SetDown(refused)
		time.Sleep(time.Minute)
		expectCauses(map[string]int{"level=WARN": 2, "msg=ready": 1, "the model was lost": 1})
	})
}

// A failure that is not the whole server's must not make others wait.
func TestRun_DoubtPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		s := newSegmenter(t, model)
		run(t, s)
		synctest.Wait()
		model.SetBefore(func(context.Context) error { return errAway })
		for range 3 {
			before := model.Probes()
			_, err := s.Segment(t.Context(), ask("red"))
			expectError(t, err, refersam.CodeUnavailable, "")
			time.Sleep(time.Second)
			if err := s.Ready(); err != nil {
				t.Error(err)
			}
			if got := model.Probes() - before; got != 2 {
				t.Errorf("%d probes, want one of the model and one of the replica", got)
			}
		}
	})
}

func TestRun_NewCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		s := newSegmenter(t, model)
		run(t, s)
		synctest.Wait()
		before := model.Probes()
		time.Sleep(time.Minute)
		if got := model.Probes() - before; got != 0 {
			t.Errorf("%d more probes of an unchanged model", got)
		}
		model.SetContract(func(c *triton.Contract) { c.Version = "2" })
		time.Sleep(11 * time.Second)
		if v := s.Variants(); len(v) != 1 || v[0].Version != "2" {
			t.Errorf("variants %+v, want version 2", v)
		}
	})
}

func TestRun_Misfit(t *testing.T) {
	for _, tc := range []struct {
		name   string
		model  func() *pipelinetest.ColourModel
		config func(*pipeline.Config)
		want   string
	}{
		{
			"another variant is required",
			func() *pipelinetest.ColourModel { return pipelinetest.NewColourModel("bert") },
			func(c *pipeline.Config) { c.Required, c.RequiredBy = []string{"bert", "clip"}, "A_SETTING" },
			`A_SETTING names the variant "clip", which is not loaded; name one that is (bert)`,
		},
		{
			"unknown tokenizer",
			func() *pipelinetest.ColourModel {
				m := pipelinetest.NewColourModel("bert")
				m.SetContract(func(c *triton.Contract) { c.Tokenizer = "abacus" })
				return m
			},
			func(*pipeline.Config) {},
			"model refersam_bert: parameter tokenizer: ",
		},
		{
			"broken contract",
			func() *pipelinetest.ColourModel {
				m := pipelinetest.NewColourModel("bert")
				m.SetDown(errors.New("model refersam_bert: parameter max_tokens is missing"))
				return m
			},
			func(*pipeline.Config) {},
			"max_tokens is missing",
		},
		{
			"no variants",
			func() *pipelinetest.ColourModel { return pipelinetest.NewColourModel() },
			func(*pipeline.Config) {},
			"no model named refersam_<variant>",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSegmenter(t, tc.model(), tc.config)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := s.Run(ctx); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Run: %v, want %q", err, tc.want)
			}
		})
	}
}

func TestConfig_Validate(t *testing.T) {
	cfg := pipeline.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	bad := pipeline.Config{Workers: -1}
	err := bad.Validate()
	for _, name := range []string{"WORKERS", "MAX_PHRASES", "MAX_PHRASE_BYTES", "MAX_MASK_PIXELS", "REFRESH_INTERVAL", "LEARN_TIMEOUT"} {
		if err == nil || !strings.Contains(err.Error(), "REFERSAM_"+name) {
			t.Errorf("%v does not name REFERSAM_%s", err, name)
		}
	}
}

// run runs s in the bubble of a synctest.
func run(t *testing.T, s *pipeline.Segmenter) {
	go func() {
		if err := s.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
}

func expectError(t *testing.T, err error, code refersam.Code, pointer string) {
	t.Helper()
	var e *refersam.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want %s", err, code)
	}
	if e.Code != code || e.At.Pointer("") != pointer || e.Message == "" {
		t.Errorf("error %v, want code %s at %q", e, code, pointer)
	}
}

func prepare(t *testing.T, s *pipeline.Segmenter, req *refersam.Request) *pipeline.Prepared {
	t.Helper()
	prepared, err := s.Prepare(req, pipeline.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return prepared
}

// A sink that asks for it gets the decoded picture with each mask and its logits.
func TestSegment_Picture(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"))
	var seen atomic.Int32
	prepared := prepare(t, s, &refersam.Request{ // its variant is the only one
		Image:   pipelinetest.Squares(),
		Phrases: []refersam.Phrase{{Text: "red"}, {Text: "blue", Largest: true}},
		Quality: true,
	})
	resp, err := prepared.Run(t.Context(), &pipeline.Sink{
		Picture: true,
		Encode: func(_ int, r *refersam.Result, from pipeline.Origin) error {
			if p := from.Picture; p != nil && p.Width == 320 && len(p.Pix) == 3*320*240 && len(from.Logits.Values) > 0 && r.Mask != nil {
				seen.Add(1)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen.Load() != 2 {
		t.Errorf("%d results had the picture, want 2", seen.Load())
	}
	for _, r := range resp.Results {
		if r.Mask != nil {
			t.Errorf("the response keeps the mask: %+v", r)
		}
		if r.Components != 1 || r.Stability <= 0.5 {
			t.Errorf("%d components, stability %v", r.Components, r.Stability)
		}
	}
	if resp.Timings.Decode <= 0 || resp.Timings.Model <= 0 || resp.Timings.Mask <= 0 {
		t.Errorf("%+v", resp.Timings)
	}
}

// One broken variant stops no other, and comes back.
func TestRun_OneVariantIsBroken(t *testing.T) {
	broken := triton.Broken{Model: "refersam_clip", Variant: "clip", Stage: "refersam_clip_vli", Reason: "no memory"}
	const why = "its stage refersam_clip_vli is not loaded: no memory"
	for _, required := range [][]string{nil, {"bert", "clip"}} {
		synctest.Test(t, func(t *testing.T) {
			model := pipelinetest.NewColourModel("bert", "clip")
			model.SetBroken(broken)
			var log bytes.Buffer
			s := newSegmenterWithLog(t, model, slog.New(slog.NewTextHandler(&log, nil)), func(c *pipeline.Config) { c.Required = required })
			run(t, s)
			time.Sleep(5 * time.Second)
			if err := s.Ready(); err != nil {
				t.Fatal(err)
			}
			want := []pipeline.Unusable{{Model: "refersam_clip", Variant: "clip", Reason: why}}
			if diff := cmp.Diff(want, s.Unusable()); diff != "" {
				t.Errorf("unusable (-want +got):\n%s", diff)
			}
			if v := s.Variants(); len(v) != 1 || v[0].Variant != "bert" || !slices.Equal(s.Loaded(), []string{"bert"}) {
				t.Errorf("variants %+v, loaded %v", v, s.Loaded())
			}
			if got := strings.Count(log.String(), "a variant cannot be used"); got != 1 || !strings.Contains(log.String(), "refersam_clip_vli") {
				t.Errorf("the log says it %d times:\n%s", got, log.String())
			}
			req := ask("red")
			req.Variant = "clip"
			prepared := prepare(t, s, req) // it can be answered later
			_, err := prepared.Run(t.Context(), nil)
			expectError(t, err, refersam.CodeNotReady, "")
			if !strings.Contains(err.Error(), why) || !errors.Is(err, pipeline.ErrBroken) {
				t.Errorf("asked for the broken variant: %v", err)
			}
			if _, err := s.Segment(t.Context(), ask("red")); err != nil {
				t.Errorf("the other variant: %v", err)
			}

			model.SetBroken()
			time.Sleep(5 * time.Second)
			if v := s.Unusable(); len(v) != 0 {
				t.Errorf("after it was mended: %+v", v)
			}
			if _, err := prepared.Run(t.Context(), nil); err != nil {
				t.Errorf("after it was mended: %v", err)
			}
		})
	}
}

// A request without a variant is answered by the only one, or by none.
func TestPrepare_NoVariant(t *testing.T) {
	req := ask("red")
	req.Variant = ""
	if resp, err := start(t, pipelinetest.NewColourModel("clip")).Segment(t.Context(), req); err != nil || resp.Variant != "clip" {
		t.Errorf("%+v, %v", resp, err)
	}
	_, err := start(t, pipelinetest.NewColourModel("bert", "clip")).Prepare(req, pipeline.Options{})
	expectError(t, err, refersam.CodeUnknownVariant, "/variant")
}

// The header of a picture shows what Run would refuse.
func TestPrepare_Header(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"), func(c *pipeline.Config) { c.MaxMaskPixels = 2 * 320 * 240 })
	h, err := prepare(t, s, ask("red", "blue")).Header()
	if want := (preprocess.Header{Width: 320, Height: 240, MediaType: "image/png"}); err != nil || h != want {
		t.Errorf("%+v, %v, want %+v", h, err, want)
	}
	_, err = prepare(t, s, ask("red", "blue", "green")).Header()
	expectError(t, err, refersam.CodeImageTooLarge, "/image")
	damaged := ask("red")
	damaged.Image = []byte("hello")
	_, err = prepare(t, s, damaged).Header()
	expectError(t, err, refersam.CodeUnsupportedMedia, "/image")
}

// Answers that are kept belong to one contract: neither another checkpoint nor
// another threshold of the same one is answered with them.
func TestRun_AnotherContractHasItsOwnAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		s := newSegmenter(t, model)
		run(t, s)
		synctest.Wait()
		expect := func(origin refersam.Origin, checkpoint string) {
			t.Helper()
			resp, err := s.Segment(t.Context(), ask("red"))
			if err != nil {
				t.Fatal(err)
			}
			if resp.Results[0].Origin != origin || resp.Checkpoint != checkpoint {
				t.Errorf("origin %s, checkpoint %s, want %s, %s", resp.Results[0].Origin, resp.Checkpoint, origin, checkpoint)
			}
		}
		// The same 8 digits at the beginning, by which logs and metrics name it.
		first, second := strings.Repeat("0", 64), strings.Repeat("0", 63)+"1"
		expect(refersam.OriginModel, first)
		expect(refersam.OriginCache, first)
		model.SetContract(func(c *triton.Contract) { c.Checkpoint = second })
		time.Sleep(11 * time.Second)
		expect(refersam.OriginModel, second)
		model.SetContract(func(c *triton.Contract) { c.Threshold = 0.6 })
		time.Sleep(11 * time.Second)
		expect(refersam.OriginModel, second)
		model.SetContract(func(c *triton.Contract) { c.Checkpoint, c.Threshold = first, 0.5 })
		time.Sleep(11 * time.Second)
		expect(refersam.OriginCache, first)
	})
}
