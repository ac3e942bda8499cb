package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refersam/refersam"
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

	// startPatience is for how long model servers may be away after the start
	// before that is a warning: as a rule they start at the same time.
	startPatience = 15 * time.Second

	// maxLogged bounds how many causes of failed looks are logged in a row.
	maxLogged = 32
)

// state is what the Segmenter knows of the served model: either variants, or why
// there are none. It never changes once stored.
type state struct {
	variants []variant // by name, those included that cannot be used
	aside    []triton.Aside
	err      *refersam.Error
}

// roster knows which variants are served. It learns them from the model, keeps
// knowing them, and passes them to the scheduler.
type roster struct {
	cfg       Config
	model     Model
	scheduler *Scheduler
	served    served
	log       *slog.Logger

	state     atomic.Pointer[state] // never nil
	ready     chan struct{}         // closed by readyOnce when Ready is first nil
	readyOnce sync.Once
	suspect   chan struct{} // capacity 1: the model failed, look at it
}

// variant is a variant that is loaded, or one that should be and is not.
type variant struct {
	contract  triton.Contract // if broken, only Model and Variant are sure to be there
	queue     string          // the scheduler's name of it
	tokenizer *tokenize.Tokenizer
	broken    *triton.Broken // nil: it can be used
}

// Unusable describes a variant that should be there and cannot be used.
type Unusable struct {
	Model, Variant string
	// Reason says which stage is broken and why, without addresses and folders.
	Reason string
}

// Ready returns nil when requests can be answered: a variant is known, has
// passed a real inference, and a server has it (see Run). Else it returns a
// *refersam.Error that says why not.
func (s *roster) Ready() error {
	st := s.state.Load()
	if st.err != nil {
		return st.err
	}
	var reasons []string
	for i := range st.variants {
		err := s.usable(&st.variants[i])
		if err == nil {
			return nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %s", st.variants[i].contract.Variant, reason(err)))
	}
	return &refersam.Error{Code: refersam.CodeUnavailable, Message: because(messageLost, strings.Join(reasons, "; "))}
}

// usable returns nil if a variant can answer now, else why not.
func (s *roster) usable(v *variant) error {
	if v.broken != nil {
		return refersam.Errorf(refersam.CodeNotReady, "%s", v.broken.String())
	}
	return s.scheduler.Trouble(v.queue)
}

// reason says why something of the model cannot be used, for people outside.
func reason(err error) string {
	var fault *triton.ReplicaError
	var e *refersam.Error
	switch {
	case errors.As(err, &fault) && fault.Fault == triton.Replaced:
		return "the model server has loaded another model"
	case errors.As(err, &fault) && fault.Fault == triton.Unreachable:
		return "the model server cannot be reached"
	case errors.As(err, &fault) && fault.Fault == triton.NotReady:
		return "the model server has not loaded it"
	case errors.As(err, &fault):
		return "the model server fails at it"
	case errors.As(err, &e):
		return strings.TrimSuffix(e.Message, ".")
	}
	return "it cannot be used; the log says why"
}

// because adds a reason to a message.
func because(message, reason string) string {
	if reason == "" {
		return message
	}
	return fmt.Sprintf("%s (%s)", message, reason)
}

// WaitReady waits until Ready returns nil for the first time. When ctx ends
// before that, it returns what Ready says.
func (s *roster) WaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-ctx.Done():
		return s.Ready()
	}
}

// Variants describes the variants that can be used, by name; none before the
// first was learnt and while the server is lost.
func (s *roster) Variants() []triton.Contract {
	st := s.state.Load()
	var variants []triton.Contract
	for i := range st.variants {
		if v := &st.variants[i]; s.usable(v) == nil {
			variants = append(variants, v.contract)
		}
	}
	return variants
}

// Loaded returns the names of the variants that a model server has loaded, in
// order, even if it cannot be reached at the moment.
func (s *roster) Loaded() []string {
	var names []string
	for _, c := range contracts(s.state.Load().variants) {
		names = append(names, c.Variant)
	}
	return names
}

// Unusable describes the variants that should be there and cannot be used, by
// name; none before the first variant was learnt and while the server is lost.
func (s *roster) Unusable() []Unusable {
	st := s.state.Load()
	var all []Unusable
	for i := range st.variants {
		v := &st.variants[i]
		if err := s.usable(v); err != nil {
			all = append(all, Unusable{v.contract.Model, v.contract.Variant, reason(err)})
		}
	}
	return all
}

// ErrBroken is below the error for a variant that should be there and cannot be
// used.
var ErrBroken = errors.New("the variant cannot be used")

// CheckVariant returns why Run could not ask a variant now, or nil.
func (s *roster) CheckVariant(name string) error {
	_, err := s.variant(name)
	return err
}

// variant returns the variant with a name, or the only one if the name is empty. A
// variant that cannot be used is an error, and never answered by another.
func (s *roster) variant(name string) (*variant, error) {
	st := s.state.Load()
	if st.err != nil {
		return nil, st.err
	}
	for i := range st.variants {
		v := &st.variants[i]
		if v.contract.Variant != name && (name != "" || len(st.variants) > 1) {
			continue
		}
		if v.broken == nil {
			return v, nil
		}
		return nil, &refersam.Error{
			Code:    refersam.CodeNotReady,
			Message: fmt.Sprintf("The variant %q cannot be used at the moment: %s.", v.contract.Variant, strings.TrimSuffix(v.broken.String(), ".")),
			Err:     ErrBroken,
		}
	}
	return nil, &refersam.Error{
		Code:    refersam.CodeUnknownVariant,
		Message: fmt.Sprintf("There is no variant %q; there is %s.", name, strings.Join(names(st.variants), ", ")),
		At:      refersam.AtVariant,
	}
}

// Learn learns the variants from the model, once. Its error is the model's, or
// says why this program cannot work with it.
func (s *roster) Learn(ctx context.Context) error { return s.learn(ctx, false) }

// Run learns the variants from the model and keeps knowing them, until ctx
// ends; then it returns nil. As long as it has never been ready, it ends at once
// with an error if a required variant is not there, or if this program cannot work
// with any variant. Later such a change only makes the Segmenter not ready. Call it
// once.
//
// The variants are kept while one look at the model fails: the model counts
// as lost when patience looks in a row have failed, or the one that followed a
// failed inference. Every cause is logged once until a look succeeds.
func (s *roster) Run(ctx context.Context) error {
	var (
		begun    = time.Now()
		wasReady bool // since Run began
		doubted  bool
		failures int // in a row
		logged   = make(map[string]bool)
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
			clear(logged)
			if len(s.Unusable()) > 0 {
				wait = min(wait, retryMax)
			}
		case !wasReady && !passing(err):
			return err
		default:
			level, message := severity(err), "cannot learn the model"
			if !wasReady && time.Since(begun) < startPatience {
				level, message = slog.LevelInfo, "waiting for the model"
			}
			if cause := message + err.Error(); !logged[cause] && len(logged) < maxLogged {
				logged[cause] = true
				s.log.Log(ctx, level, message, "cause", err)
			}
			failures++
			if doubted || failures >= patience || s.Ready() != nil {
				s.markLost(err, wasReady)
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
func (s *roster) pause(ctx context.Context, wait time.Duration) (doubted bool) {
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

// recheckSoon makes Run look at the model soon.
func (s *roster) recheckSoon() {
	select {
	case s.suspect <- struct{}{}:
	default:
	}
}

// markLost makes the Segmenter answer that it is not ready because of err.
func (s *roster) markLost(err error, wasReady bool) {
	next := &refersam.Error{Code: refersam.CodeNotReady, Message: because(messageLoading, reason(err)), Err: err}
	if wasReady {
		next.Code, next.Message = refersam.CodeUnavailable, because(messageLost, reason(err))
		if s.state.Load().err == nil {
			s.log.Error("the model was lost", "cause", err)
		}
	}
	s.state.Store(&state{err: next})
}

// learn asks the model for its variants. Each one that is new, or any if there
// is doubt, must pass a real inference. One that does not is broken, and the
// others are used; it is an error when there is no other.
func (s *roster) learn(ctx context.Context, doubted bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LearnTimeout)
	defer cancel()
	old := s.state.Load()
	catalog, err := s.model.Catalog(ctx, contracts(old.variants))
	if err != nil {
		return err
	}
	if len(catalog.Contracts) == 0 && len(catalog.Broken) == 0 {
		return errors.New("the inference server has no model named refersam_<variant>")
	}
	if len(catalog.Contracts) == 0 {
		return catalog.Err()
	}
	next := &state{aside: catalog.Aside}
	var failure error // of a variant that is broken by itself
	for _, c := range catalog.Contracts {
		v := variant{contract: c, queue: s.served.name(&c)}
		if err := s.try(ctx, old, &v, doubted); err != nil {
			if ctx.Err() != nil {
				return err
			}
			failure = errors.Join(failure, err)
			v.broken = &triton.Broken{Model: c.Model, Variant: c.Variant, Reason: reason(err)}
			s.log.Debug("a variant failed", "variant", c.Variant, "cause", err)
		}
		next.variants = append(next.variants, v)
	}
	for _, b := range catalog.Broken {
		next.variants = append(next.variants, brokenVariant(b))
	}
	if len(contracts(next.variants)) == 0 {
		return failure
	}
	if err := s.require(next, old.variants == nil && catalog.Complete); err != nil {
		return err
	}
	slices.SortFunc(next.variants, func(a, b variant) int { return strings.Compare(a.contract.Variant, b.contract.Variant) })
	changed := doubted || old.err != nil || !slices.EqualFunc(old.variants, next.variants, sameVariant)
	if changed {
		s.schedule(next.variants)
		if err := s.waitUsable(ctx, next); err != nil {
			return err
		}
	}
	s.report(old, next, failure)
	s.state.Store(next)
	s.readyOnce.Do(func() { close(s.ready) })
	return nil
}

// try makes a variant ready to be used: by a real inference, unless it is used
// already and nobody doubts it.
func (s *roster) try(ctx context.Context, old *state, v *variant, doubted bool) error {
	for i := range old.variants {
		if was := &old.variants[i]; was.broken == nil && was.contract == v.contract {
			v.tokenizer = was.tokenizer
			if !doubted {
				return nil
			}
		}
	}
	if v.tokenizer == nil {
		var err error
		if v.tokenizer, err = tokenize.New(v.contract.Tokenizer, v.contract.MaxTokens); err != nil {
			return fmt.Errorf("model %s: parameter tokenizer: %w", v.contract.Model, err)
		}
	}
	return s.model.Probe(ctx, &v.contract)
}

// waitUsable waits until rows of every variant can be sent to a server.
func (s *roster) waitUsable(ctx context.Context, next *state) error {
	var queues []string
	for i := range next.variants {
		if next.variants[i].broken == nil {
			queues = append(queues, next.variants[i].queue)
		}
	}
	return s.scheduler.WaitUsable(ctx, queues...)
}

// brokenVariant is the variant of an ensemble that cannot be served.
func brokenVariant(b triton.Broken) variant {
	return variant{contract: triton.Contract{Model: b.Model, Variant: b.Variant}, broken: &b}
}

// contracts returns the contracts of the variants that are not broken.
func contracts(variants []variant) []triton.Contract {
	var all []triton.Contract
	for i := range variants {
		if variants[i].broken == nil {
			all = append(all, variants[i].contract)
		}
	}
	return all
}

// report logs what has changed.
func (s *roster) report(old, next *state, failure error) {
	before := make(map[string]*variant)
	for i := range old.variants {
		before[old.variants[i].contract.Variant] = &old.variants[i]
	}
	ready := old.err != nil
	for i := range next.variants {
		v := &next.variants[i]
		was := before[v.contract.Variant]
		switch {
		case v.broken != nil:
			if was == nil || was.broken == nil || *was.broken != *v.broken {
				s.log.Warn("a variant cannot be used", "variant", v.contract.Variant, "model", v.contract.Model, "stage", v.broken.Stage,
					"reason", v.broken.Reason, "detail", v.broken.Detail, "cause", failure)
			}
		case was == nil || was.broken != nil:
			ready = true
		case was.contract != v.contract:
			ready = true
			s.log.Info("another checkpoint is taken over", "variant", v.contract.Variant,
				"version", v.contract.Version, "checkpoint", v.contract.Checkpoint, "before", was.contract.Checkpoint)
		}
	}
	for _, a := range next.aside {
		if !slices.Contains(old.aside, a) {
			s.log.Warn("a model server has another model under the same name and waits aside", "server", a.Server, "model", a.Model,
				"version", a.Version, "checkpoint", a.Checkpoint)
		}
	}
	if ready || len(old.variants) != len(next.variants) {
		s.log.Info("ready", "variants", names(next.variants))
	}
}

// schedule makes the scheduler know the variants.
func (s *roster) schedule(variants []variant) {
	contracts := make(map[string]*triton.Contract)
	models := make(map[string]int)
	for i := range variants {
		if v := &variants[i]; v.broken == nil {
			contracts[v.queue] = &v.contract
			models[v.queue] = v.contract.MaxBatch
		}
	}
	s.served.set(contracts)
	s.scheduler.SetModels(models)
}

// require adds the required variants that no server has loaded as broken ones, or
// returns an error if strict.
func (s *roster) require(next *state, strict bool) error {
	loaded := names(next.variants)
	for _, name := range s.cfg.Required {
		switch {
		case slices.Contains(loaded, name):
		case strict:
			return fmt.Errorf("%s names the variant %q, which is not loaded; name one that is (%s), or load it", s.cfg.RequiredBy, name, strings.Join(loaded, ", "))
		default:
			next.variants = append(next.variants, brokenVariant(triton.Broken{
				Model: triton.ModelPrefix + name, Variant: name, Reason: "no model server has loaded it",
			}))
		}
	}
	return nil
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

func sameVariant(a, b variant) bool {
	return a.contract == b.contract && (a.broken == nil) == (b.broken == nil) && (a.broken == nil || *a.broken == *b.broken)
}

func names(variants []variant) []string {
	names := make([]string, len(variants))
	for i, v := range variants {
		names[i] = v.contract.Variant
	}
	return names
}
