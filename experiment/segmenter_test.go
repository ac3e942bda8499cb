package experiment_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/triton"
)

// segmenter is an experiment around a real pipeline with a model made for tests.
type segmenter struct {
	*experiment.Segmenter
	inner *pipeline.Segmenter
	mu    sync.Mutex
	seen  []experiment.Exposure
}

func start(t *testing.T, split string, model *pipelinetest.ColourModel) *segmenter {
	t.Helper()
	decoder, err := preprocess.New(preprocess.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	config, cfg := pipeline.DefaultConfig(), experiment.Config{Split: split}
	config.Schedule.Admission = false
	cfg.Require(&config)
	s := &segmenter{}
	if s.inner, err = pipeline.New(config, decoder, model, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.inner.Close)
	s.inner.SetReplicas([]pipeline.Replica{model})
	s.Segmenter, err = experiment.New(cfg, s.inner, func(e experiment.Exposure) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seen = append(s.seen, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.inner.Learn(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(unit, variant string) *refersam.Request {
	return &refersam.Request{ID: "request-" + unit, Image: pipelinetest.Squares(), Phrases: []refersam.Phrase{{Text: "red"}}, Unit: unit, Variant: variant}
}

// Units keep their variant, and variants get their shares of the units.
func TestSegment_Split(t *testing.T) {
	for split, shares := range map[string]map[string]float64{
		"":              {"bert": 0.5, "clip": 0.5},
		"clip:1":        {"bert": 0, "clip": 1},
		"bert:3,clip:1": {"bert": 0.75, "clip": 0.25},
	} {
		s := start(t, split, pipelinetest.NewColourModel("bert", "clip"))
		n := make(map[string]float64)
		for i := range 200 {
			unit := fmt.Sprint("unit-", i)
			first, err := s.Segment(t.Context(), ask(unit, ""))
			if err != nil {
				t.Fatal(err)
			}
			if again := s.Assign("", unit); again != (experiment.Assignment{Variant: first.Variant}) {
				t.Errorf("%s got %s, then %+v", unit, first.Variant, again)
			}
			n[first.Variant]++
		}
		for _, v := range s.Variants() {
			if got, want := n[v.Variant]/200, shares[v.Variant]; got < want-0.1 || got > want+0.1 || v.Share != want {
				t.Errorf("split %q: %s got %v of the units and has the share %v, want %v", split, v.Variant, got, v.Share, want)
			}
		}
	}
}

// Every answer is reported, and the report says whether the client named the
// variant and whether the model made the answer for this request.
func TestExposures(t *testing.T) {
	s := start(t, "clip:1", pipelinetest.NewColourModel("bert", "clip"))
	for _, req := range []*refersam.Request{ask("one", ""), ask("two", ""), ask("three", "bert")} {
		if _, err := s.Segment(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Segment(t.Context(), ask("four", "gpt")); refersam.ErrorCode(err) != refersam.CodeUnknownVariant {
		t.Errorf("an unknown variant: %v", err)
	}
	type exposure struct {
		id, unit, variant string
		forced            bool
		origin            refersam.Origin
	}
	var got []exposure
	for _, e := range s.seen {
		got = append(got, exposure{e.Request.ID, e.Request.Unit, e.Variant, e.Forced, e.Response.Results[0].Origin})
		if e.Request.Variant != e.Variant || e.Response.Variant != e.Variant {
			t.Errorf("%s asked for %s and was answered by %s, not by %s", e.Request.ID, e.Request.Variant, e.Response.Variant, e.Variant)
		}
	}
	want := []exposure{
		{"request-one", "one", "clip", false, refersam.OriginModel},
		{"request-two", "two", "clip", false, refersam.OriginCache}, // the same picture and phrase
		{"request-three", "three", "bert", true, refersam.OriginModel},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(exposure{})); diff != "" {
		t.Errorf("exposures (-want +got):\n%s", diff)
	}
}

// A broken variant is never answered by another one if a split gives it units.
// Without a split its units go to the others.
func TestBrokenVariant(t *testing.T) {
	broken := triton.Broken{Model: "refersam_clip", Variant: "clip", Stage: "refersam_clip_vli", Reason: "no memory"}
	for split, share := range map[string]float64{"": 0, "bert:1,clip:1": 0.5} {
		model := pipelinetest.NewColourModel("bert", "clip")
		model.SetBroken(broken)
		s := start(t, split, model)
		if u := s.Unusable(); len(u) != 1 || u[0].Variant != "clip" || u[0].Share != share {
			t.Errorf("split %q: unusable %+v", split, u)
		}
		refused := 0
		for i := range 40 {
			resp, err := s.Segment(t.Context(), ask(fmt.Sprint("unit-", i), ""))
			switch {
			case err == nil && resp.Variant != "bert":
				t.Errorf("answered by %s", resp.Variant)
			case err != nil:
				refused++
				if refersam.ErrorCode(err) != refersam.CodeNotReady || !strings.Contains(err.Error(), "name another variant") {
					t.Errorf("refused: %v", err)
				}
			}
		}
		if split == "" && refused != 0 || split != "" && (refused < 8 || refused > 32) {
			t.Errorf("split %q: %d of 40 units were refused", split, refused)
		}
		_, err := s.Segment(t.Context(), ask("someone", "clip"))
		if refersam.ErrorCode(err) != refersam.CodeNotReady || !errors.Is(err, pipeline.ErrBroken) || strings.Contains(err.Error(), "The split gives it") {
			t.Errorf("a client that names the broken variant: %v", err)
		}
	}
}

// A split that names a variant that is not there is an error at the start.
func TestRequire(t *testing.T) {
	config, cfg := pipeline.DefaultConfig(), experiment.Config{Split: "bert:50,gpt:50"}
	cfg.Require(&config)
	decoder, err := preprocess.New(preprocess.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	model := pipelinetest.NewColourModel("bert", "clip")
	inner, err := pipeline.New(config, decoder, model, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inner.Close)
	inner.SetReplicas([]pipeline.Replica{model})
	want := `REFERSAM_SPLIT "bert:50,gpt:50" names the variant "gpt", which is not loaded; name one that is (bert, clip), or load it`
	if err := inner.Learn(t.Context()); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestConfig_Validate(t *testing.T) {
	for split, ok := range map[string]bool{"": true, "bert:1": true, "bert": false, "bert:-1": false, "bert:0": false} {
		cfg := experiment.Config{Split: split}
		if err := cfg.Validate(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "REFERSAM_SPLIT") {
			t.Errorf("%q: %v", split, err)
		}
	}
}
