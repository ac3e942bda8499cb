package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/tokenize"
	"github.com/refersam/refersam/triton"
)

const (
	messageLoading = "The model is still loading; try again soon."
	messageLost    = "The inference server is not available at the moment; try again soon."

	retryMin = 250 * time.Millisecond
	retryMax = time.Second

	// patience is how many looks at the model must fail in a row before a
	// Segmenter that was ready is no longer.
	patience = 3

	// maxTold bounds how many causes of failed looks are logged in a row.
	maxTold = 32
)

// state is what the Segmenter knows of the served model: either variants and
// a split over them, or why there are none. It never changes once stored.
type state struct {
	variants []variant // by name
	split    experiment.Split
	err      *refersam.Error
}

type variant struct {
	contract  triton.Contract
	queue     string // the scheduler's name of it
	tokenizer *tokenize.Tokenizer
}

// Variant describes a variant that is loaded.
type Variant struct {
	triton.Contract
	// Share is the part of the units that gets this variant, in [0, 1].
	Share float64
}

// Ready returns nil when a request can be answered: every variant is known and
// has passed a real inference, and the server is not lost (see Run). Else it
// returns a *refersam.Error that says why not.
func (s *Segmenter) Ready() error {
	if err := s.state.Load().err; err != nil {
		return err
	}
	if !s.scheduler.Usable() {
		return &refersam.Error{Code: refersam.CodeUnavailable, Message: messageLost}
	}
	return nil
}

// WaitReady waits until Ready returns nil for the first time. When ctx ends
// before that, it returns what Ready says.
func (s *Segmenter) WaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return s.Ready()
	}
}

// Variants describes the variants that are loaded, by name; none before the
// first was learnt and while the server is lost.
func (s *Segmenter) Variants() []Variant {
	st := s.state.Load()
	variants := make([]Variant, len(st.variants))
	for i, v := range st.variants {
		variants[i] = Variant{Contract: v.contract, Share: st.split.Share(v.contract.Variant)}
	}
	return variants
}

// Choose describes the variant that would answer req now, or returns the error
// that Segment would for it.
func (s *Segmenter) Choose(req *refersam.Request) (Variant, error) {
	v, err := s.choose(req)
	if err != nil {
		return Variant{}, err
	}
	return Variant{Contract: v.contract}, nil
}

// Check returns the error that Segment would for anything but the picture.
func (s *Segmenter) Check(req *refersam.Request) error {
	if _, err := s.normalize(req.Phrases); err != nil {
		return err
	}
	_, err := s.choose(req)
	return err
}

// choose returns the variant the request forces, or else that of its unit.
func (s *Segmenter) choose(req *refersam.Request) (*variant, error) {
	st := s.state.Load()
	if st.err != nil {
		return nil, st.err
	}
	name := req.Variant
	if name == "" {
		name = st.split.Assign(req.Unit)
	}
	for i := range st.variants {
		if st.variants[i].contract.Variant == name {
			return &st.variants[i], nil
		}
	}
	return nil, &refersam.Error{
		Code:    refersam.CodeUnknownVariant,
		Message: fmt.Sprintf("There is no variant %q; there is %s.", name, strings.Join(names(st.variants), ", ")),
		Field:   "/variant",
	}
}

// Learn learns the variants from the model, once. Its error is the model's, or
// says why this program cannot work with it or with the split.
func (s *Segmenter) Learn(ctx context.Context) error { return s.learn(ctx, false) }

// Run learns the variants from the model and keeps knowing them, until ctx
// ends; then it returns nil. A model or a split that this program cannot work
// with ends it at once with an error, as long as it has never been ready;
// later such a change only makes the Segmenter not ready. Call it once.
//
// What was learnt is kept while one look at the model fails: the model counts
// as lost when patience looks in a row have failed, or the one that followed a
// failed inference. Every cause is logged once until a look succeeds.
func (s *Segmenter) Run(ctx context.Context) error {
	var (
		wasReady bool // since Run began
		doubted  bool
		failures int // in a row
		told     = make(map[string]bool)
		retry    = retryMin
	)
	for {
		wait := s.cfg.RefreshInterval
		err := s.learn(ctx, doubted)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wasReady, failures, retry = true, 0, retryMin
			clear(told)
		case !wasReady && !passing(err):
			return err
		default:
			if cause := err.Error(); !told[cause] && len(told) < maxTold {
				told[cause] = true
				s.log.Log(ctx, severity(err), "cannot learn the model", "cause", cause)
			}
			failures++
			if doubted || failures >= patience || s.Ready() != nil {
				s.lose(err, wasReady)
			}
			wait, retry = retry, min(2*retry, retryMax)
		}
		if doubted = s.pause(ctx, wait); ctx.Err() != nil {
			return nil
		}
	}
}

// pause waits, at least for retryMin, until the time is up or the model is
// doubted, and reports the latter.
func (s *Segmenter) pause(ctx context.Context, wait time.Duration) (doubted bool) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return false
	case <-s.suspect:
	}
	select {
	case <-ctx.Done():
	case <-time.After(retryMin):
	}
	return true
}

// doubt makes Run look at the model soon.
func (s *Segmenter) doubt() {
	select {
	case s.suspect <- struct{}{}:
	default:
	}
}

// lose makes the Segmenter answer that it is not ready because of err.
func (s *Segmenter) lose(err error, wasReady bool) {
	next := &refersam.Error{Code: refersam.CodeNotReady, Message: messageLoading, Err: err}
	if wasReady {
		next.Code, next.Message = refersam.CodeUnavailable, messageLost
		if s.state.Load().err == nil {
			s.log.Error("the model was lost", "cause", err)
		}
	}
	s.state.Store(&state{err: next})
}

// learn asks the model for its variants. Unless they are those already known
// and nothing casts doubt on them, each must pass a real inference.
func (s *Segmenter) learn(ctx context.Context, doubted bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LearnTimeout)
	defer cancel()
	contracts, err := s.model.Contracts(ctx)
	if err != nil {
		return err
	}
	if len(contracts) == 0 {
		return errors.New("the inference server has no model named refersam_<variant>")
	}
	slices.SortFunc(contracts, func(a, b triton.Contract) int { return strings.Compare(a.Variant, b.Variant) })
	if old := s.state.Load(); !doubted && old.err == nil && slices.EqualFunc(old.variants, contracts, sameContract) {
		return nil
	}

	next := &state{variants: make([]variant, len(contracts))}
	for i, c := range contracts {
		tokenizer, err := tokenize.New(c.Tokenizer, c.MaxTokens)
		if err != nil {
			return fmt.Errorf("model %s: parameter tokenizer: %w", c.Model, err)
		}
		next.variants[i] = variant{contract: c, queue: queueName(&c), tokenizer: tokenizer}
	}
	if next.split, err = s.splitOver(names(next.variants)); err != nil {
		return err
	}
	for i := range next.variants {
		if err := s.model.Probe(ctx, &next.variants[i].contract); err != nil {
			return err
		}
	}
	s.schedule(next.variants)
	if err := s.scheduler.WaitUsable(ctx); err != nil {
		return err
	}
	s.state.Store(next)
	s.readyOnce.Do(func() { close(s.ready) })
	s.log.Info("ready", "variants", names(next.variants), "split", next.split.String())
	return nil
}

// schedule makes the scheduler know the variants.
func (s *Segmenter) schedule(variants []variant) {
	contracts := make(map[string]*triton.Contract)
	models := make(map[string]int)
	for i := range variants {
		v := &variants[i]
		contracts[v.queue] = &v.contract
		models[v.queue] = v.contract.MaxBatch
	}
	s.served.set(contracts)
	s.scheduler.SetModels(models)
}

// splitOver returns the configured split, or equal shares, of the variants.
func (s *Segmenter) splitOver(variants []string) (experiment.Split, error) {
	if s.cfg.Split == "" {
		equal := make(map[string]int)
		for _, name := range variants {
			equal[name] = 1
		}
		return experiment.NewSplit(equal)
	}
	split, err := experiment.ParseSplit(s.cfg.Split)
	if err != nil {
		return experiment.Split{}, err
	}
	for _, name := range split.Variants() {
		if !slices.Contains(variants, name) {
			return experiment.Split{}, fmt.Errorf("REFERSAM_SPLIT %q names the variant %q, which is not loaded; loaded: %s",
				s.cfg.Split, name, strings.Join(variants, ", "))
		}
	}
	return split, nil
}

// severity is how an error of a look at the model is logged: that it loads is
// as it should be.
func severity(err error) slog.Level {
	if refersam.ErrorCode(err) == refersam.CodeNotReady {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// passing reports whether an error of the model may go away by itself.
func passing(err error) bool {
	switch refersam.ErrorCode(err) {
	case refersam.CodeUnavailable, refersam.CodeNotReady, refersam.CodeOverloaded, refersam.CodeDeadlineExceeded:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

func sameContract(v variant, c triton.Contract) bool { return reflect.DeepEqual(v.contract, c) }

func names(variants []variant) []string {
	names := make([]string, len(variants))
	for i, v := range variants {
		names[i] = v.contract.Variant
	}
	return names
}
