package tune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
)

// restoreTimeout is how long putting back what was may take, as nobody waits
// for it.
const restoreTimeout = time.Minute

// Servers are the Triton servers that are tuned, with one ensemble of theirs.
// Close them. They are not safe for concurrent use.
//
// The numbers of instances are changed through the repository API, on one
// server after the other: a server that others use too is the only one that
// changes at that moment, and nothing of ours is under way on it.
type Servers struct {
	fleet    *triton.Fleet
	contract triton.Contract
	configs  [][]*pb.ModelConfig // of each replica, of each step: as they were found
	counts   []int               // in force
	kept     []int               // to be in force after Close
	local    *triton.Local       // nil: servers of others
	dir      string              // of the copy, if there is one
}

// Connect finds a variant on servers that run already; "" is the only one.
// Close leaves them as they were found.
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

// StartCopy starts a server of its own with a copy of one ensemble of the
// repository that local names. Close removes both.
func StartCopy(ctx context.Context, cfg triton.Config, local triton.LocalConfig, variant string, log *slog.Logger) (_ *Servers, err error) {
	ensemble, err := findEnsemble(&local, variant)
	if err != nil {
		return nil, err
	}
	s := &Servers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "refersam-tune-"); err != nil {
		return nil, err
	}
	if err := copyEnsemble(s.dir, &local, ensemble); err != nil {
		return nil, err
	}
	copied, err := local.At(s.dir)
	if err != nil {
		return nil, err
	}
	if s.local, err = triton.StartLocal(ctx, copied); err != nil {
		return nil, err
	}
	if s.fleet, err = triton.NewFleet(cfg, log); err != nil {
		return nil, err
	}
	if err := s.fleet.Add(s.local.Address()); err != nil {
		return nil, err
	}
	return s, s.learn(ctx, "")
}

// findEnsemble returns the name of the ensemble of a variant.
func findEnsemble(local *triton.LocalConfig, variant string) (string, error) {
	ensembles, err := triton.Ensembles(local.Repository, local.ConfigName)
	if err != nil {
		return "", err
	}
	variants := make([]string, len(ensembles))
	for i, name := range ensembles {
		variants[i] = strings.TrimPrefix(name, triton.ModelPrefix)
	}
	i, err := pick(variants, variant)
	if err != nil {
		return "", err
	}
	return ensembles[i], nil
}

// pick returns which of the variants is meant; "" means the only one.
func pick(variants []string, variant string) (int, error) {
	if variant == "" && len(variants) == 1 {
		return 0, nil
	}
	if i := slices.Index(variants, variant); i >= 0 {
		return i, nil
	}
	if variant == "" {
		return 0, fmt.Errorf("there are several variants, name one with --variant: %s", strings.Join(variants, ", "))
	}
	return 0, fmt.Errorf("there is no variant %q, only %s", variant, strings.Join(variants, ", "))
}

// copyEnsemble copies an ensemble and its steps.
func copyEnsemble(dir string, local *triton.LocalConfig, ensemble string) error {
	_, config, err := triton.ConfigFile(local.Repository, local.ConfigName, ensemble)
	if err != nil {
		return err
	}
	models := []string{ensemble}
	for _, step := range config.GetEnsembleScheduling().GetStep() {
		models = append(models, step.GetModelName())
	}
	slices.Sort(models)
	for _, model := range slices.Compact(models) {
		from, err := filepath.EvalSymlinks(filepath.Join(local.Repository, model))
		if err != nil {
			return fmt.Errorf("model repository: %w", err)
		}
		if err := copyFolder(filepath.Join(dir, model), from); err != nil {
			return fmt.Errorf("copying the model %s to tune it: %w", model, err)
		}
	}
	return nil
}

// copyFolder copies a folder with everything in it; links become what they
// point to.
func copyFolder(to, from string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, entry := range entries {
		source, target := filepath.Join(from, entry.Name()), filepath.Join(to, entry.Name())
		info, err := os.Stat(source)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = copyFolder(target, source)
		} else {
			err = copyFile(target, source)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}

// learn reads the contract of a variant, and how its steps are configured.
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

// replicas are the servers as the scheduler takes them.
func (s *Servers) replicas() []pipeline.Replica {
	var replicas []pipeline.Replica
	for _, r := range s.fleet.Replicas() {
		replicas = append(replicas, r)
	}
	return replicas
}

// apply gives each step so many instances. If a server refuses, all have those
// that they had before, and the error says why.
func (s *Servers) apply(ctx context.Context, counts []int) error {
	before := s.counts
	err := s.change(ctx, before, counts)
	if err == nil {
		s.counts = slices.Clone(counts)
		return nil
	}
	background, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
	defer cancel()
	if back := s.change(background, nil, before); back != nil {
		return &brokenError{errors.Join(err, fmt.Errorf("and what was cannot be put back: %w", back))}
	}
	return err
}

// brokenError says that servers are not as they should be.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// change loads the steps that differ from what they are on every server, one
// server after the other; it goes on to the next when an inference has shown
// that this one serves. are is nil when that is not known.
func (s *Servers) change(ctx context.Context, are, counts []int) error {
	for i, r := range s.fleet.Replicas() {
		for j, config := range s.configs[i] {
			if are != nil && are[j] == counts[j] {
				continue
			}
			if err := r.Load(ctx, triton.WithInstances(config, counts[j])); err != nil {
				return err
			}
		}
		if err := r.Probe(ctx, &s.contract); err != nil {
			return err
		}
	}
	return nil
}

// Keep makes the servers go on with these instances after Close.
func (s *Servers) Keep(counts []int) { s.kept = slices.Clone(counts) }

// Close puts back what was found, or what is to be kept, on servers of others;
// a server of its own it ends, and removes the copy.
func (s *Servers) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), restoreTimeout)
	defer cancel()
	var errs []error
	if s.local == nil && s.fleet != nil && !slices.Equal(s.counts, s.kept) {
		errs = append(errs, s.change(ctx, s.counts, s.kept))
	}
	if s.fleet != nil {
		errs = append(errs, s.fleet.Close())
	}
	if s.local != nil {
		errs = append(errs, s.local.Close(ctx))
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
