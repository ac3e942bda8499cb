package tune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"github.com/refersam/refersam/triton/local"
)

// restoreTimeout is how long restoring the old instances may take. It is short
// because nothing waits for it.
const restoreTimeout = time.Minute

// Servers are the Triton servers that are tuned, with one of their ensembles. Call
// Close when done. They are not safe for concurrent use.
//
// Running servers change their instances through the repository API, one server
// after the other. So if others use such a server meanwhile, it is the only one
// that changes at that moment, and the tuner has no inference under way on it. A
// server that the tuner started itself is started again, which is the cleanest
// state to measure.
type Servers struct {
	fleet    *triton.Fleet
	contract triton.Contract
	configs  [][]*pb.ModelConfig // per replica and step, before any change
	counts   []int               // now in force
	kept     []int               // in force after Close
	own      *own                // nil: the servers were running before
}

// Connect finds a variant on servers that are already running; "" is the only one.
// Close restores the servers' state.
func Connect(ctx context.Context, cfg triton.Config, variant string, log *slog.Logger) (*Servers, error) {
	fleet, err := triton.NewFleet(cfg, log)
	if err != nil {
		return nil, err
	}
	s := &Servers{fleet: fleet}
	if err := fleet.Resolve(ctx); err != nil {
		return nil, errors.Join(err, fleet.Close())
	}
	if err := s.learn(ctx, variant); err != nil {
		return nil, errors.Join(err, fleet.Close())
	}
	return s, nil
}

// StartCopy starts a server on a copy of one ensemble of the repository that from
// names. Close removes both.
func StartCopy(ctx context.Context, cfg triton.Config, from local.Config, variant string, log *slog.Logger) (_ *Servers, err error) {
	ensemble, err := findEnsemble(&from, variant)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "refersam-tune-")
	if err != nil {
		return nil, err
	}
	s := &Servers{own: &own{dir: dir, fleet: cfg, log: log}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(ctx))
		}
	}()
	if err := copyEnsemble(dir, &from, ensemble); err != nil {
		return nil, err
	}
	if s.own.config, err = from.At(dir); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, s.learn(ctx, "")
}

// learn reads the contract of a variant and the configurations of its steps.
func (s *Servers) learn(ctx context.Context, variant string) error {
	contracts, err := s.fleet.Contracts(ctx)
	if err != nil {
		return err
	}
	variants := make([]string, len(contracts))
	for i := range contracts {
		variants[i] = contracts[i].Variant
	}
	i, err := pick(variants, variant)
	if err != nil {
		return err
	}
	s.contract = contracts[i]
	for _, r := range s.fleet.Replicas() {
		var configs []*pb.ModelConfig
		var counts []int
		for _, step := range s.contract.StepNames() {
			config, err := r.Config(ctx, step)
			if err != nil {
				return err
			}
			configs = append(configs, config)
			counts = append(counts, countOf(config))
		}
		if s.counts != nil && !slices.Equal(s.counts, counts) {
			return fmt.Errorf("the servers differ: %s has %v instances of the steps, another %v; make them equal first", r.Name(), counts, s.counts)
		}
		s.configs, s.counts = append(s.configs, configs), counts
	}
	s.kept = s.counts
	return nil
}

// countOf is how many instances a model has in each of its groups.
func countOf(config *pb.ModelConfig) int {
	if groups := config.GetInstanceGroup(); len(groups) > 0 {
		return max(1, int(groups[0].GetCount()))
	}
	return 1
}

// Contract describes the ensemble.
func (s *Servers) Contract() *triton.Contract { return &s.contract }

// Instances is how many instances each step has.
func (s *Servers) Instances() []int { return slices.Clone(s.counts) }

// replicas are the servers in the form that the scheduler expects.
func (s *Servers) replicas() []pipeline.Replica {
	var replicas []pipeline.Replica
	for _, r := range s.fleet.Replicas() {
		replicas = append(replicas, r)
	}
	return replicas
}

// apply gives each step its number of instances. If a running server refuses, all
// servers get their previous instances back; a server that the tuner started does
// not run then. The error says why.
func (s *Servers) apply(ctx context.Context, counts []int) error {
	if s.own != nil {
		if err := s.restart(ctx, counts); err != nil {
			return err
		}
		s.counts = slices.Clone(counts)
		return nil
	}
	touched, err := s.change(ctx, s.counts, counts)
	switch {
	case err == nil:
		s.counts = slices.Clone(counts)
		return nil
	case !touched:
		return err
	}
	background, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
	defer cancel()
	if _, back := s.change(background, nil, s.counts); back != nil {
		return &brokenError{errors.Join(err, fmt.Errorf("and restoring the previous instances failed: %w", back))}
	}
	return err
}

// brokenError says that servers could not be restored to a known state.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// change loads the changed steps on every server, one server after the other. It
// goes on to the next server when an inference has shown that this one serves. are
// is nil when the present state is not known. A model that a server refuses to load
// stays as it was; touched reports that others may have changed.
func (s *Servers) change(ctx context.Context, are, counts []int) (touched bool, err error) {
	for i, r := range s.fleet.Replicas() {
		for j, config := range s.configs[i] {
			if are != nil && are[j] == counts[j] {
				continue
			}
			if err := r.Load(ctx, triton.WithInstances(config, counts[j])); err != nil {
				return touched || ctx.Err() != nil, err
			}
			touched = true
		}
		if err := r.Probe(ctx, &s.contract); err != nil {
			return true, err
		}
	}
	return touched, nil
}

// Keep makes the servers keep these instances after Close.
func (s *Servers) Keep(counts []int) { s.kept = slices.Clone(counts) }

// Close restores the servers that were running before, or sets the instances of
// Keep on them, also after ctx has ended. It stops a server that the tuner started, and removes the copy.
func (s *Servers) Close(ctx context.Context) error {
	if s.own != nil {
		return errors.Join(s.stop(ctx), os.RemoveAll(s.own.dir))
	}
	var errs []error
	if !slices.Equal(s.counts, s.kept) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
		defer cancel()
		_, err := s.change(ctx, s.counts, s.kept)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.fleet.Close())...)
}
