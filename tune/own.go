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

	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
)

// stopTimeout is how long the tuner's own server may take to stop.
const stopTimeout = 15 * time.Second

// own is a server that the tuner starts on a copy of a repository.
type own struct {
	dir    string       // of the copy
	config local.Config // of the server
	fleet  triton.Config
	log    *slog.Logger
	server *local.Server // nil: it does not run
}

// start starts the server on the copy as it is.
func (s *Servers) start(ctx context.Context) error {
	server, err := local.Start(ctx, s.own.config)
	if err != nil {
		return err
	}
	s.own.server = server
	if s.fleet, err = triton.NewFleet(s.own.fleet, s.own.log); err != nil {
		return err
	}
	return s.fleet.Add(server.Address())
}

// stop ends the server, if it runs.
func (s *Servers) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	var errs []error
	if s.fleet != nil {
		errs = append(errs, s.fleet.Close())
		s.fleet = nil
	}
	if s.own.server != nil {
		errs = append(errs, s.own.server.Close(ctx))
		s.own.server = nil
	}
	return errors.Join(errs...)
}

// ended returns why the server has ended, or nil if it runs.
func (s *Servers) ended() error {
	if s.own == nil || s.own.server == nil {
		return nil
	}
	return s.own.server.Err()
}

// runs reports whether there are servers to measure.
func (s *Servers) runs() bool {
	return s.own == nil || s.own.server != nil && s.own.server.Err() == nil
}

// restart changes the copy and starts the server again.
func (s *Servers) restart(ctx context.Context, counts []int) error {
	if err := s.stop(ctx); err != nil {
		return err
	}
	for i, step := range s.contract.StepNames() {
		if err := s.own.edit(step, counts[i]); err != nil {
			return fmt.Errorf("the model %s: %w", step, err)
		}
	}
	return s.start(ctx)
}

// edit changes the copy of a model's configuration.
func (o *own) edit(step string, count int) error {
	path, _, err := triton.ConfigFile(o.dir, o.config.ConfigName, step)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if text, err = SetInstances(text, count); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// findEnsemble returns the name of the ensemble of a variant.
func findEnsemble(from *local.Config, variant string) (string, error) {
	ensembles, _, err := triton.Ensembles(from.Repository, from.ConfigName)
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

// pick returns the index of the variant with this name; "" selects the only one.
func pick(variants []string, variant string) (int, error) {
	if variant == "" && len(variants) == 1 {
		return 0, nil
	}
	if i := slices.Index(variants, variant); i >= 0 {
		return i, nil
	}
	if variant == "" {
		return 0, fmt.Errorf("there are several variants; choose one with --variant: %s", strings.Join(variants, ", "))
	}
	return 0, fmt.Errorf("there is no variant %q, only %s", variant, strings.Join(variants, ", "))
}

// copyEnsemble copies an ensemble and its steps.
func copyEnsemble(dir string, from *local.Config, ensemble string) error {
	_, config, err := triton.ConfigFile(from.Repository, from.ConfigName, ensemble)
	if err != nil {
		return err
	}
	models := []string{ensemble}
	for _, step := range config.GetEnsembleScheduling().GetStep() {
		models = append(models, step.GetModelName())
	}
	slices.Sort(models)
	for _, model := range slices.Compact(models) {
		path, err := filepath.EvalSymlinks(filepath.Join(from.Repository, model))
		if err != nil {
			return fmt.Errorf("model repository: %w", err)
		}
		if err := copyFolder(filepath.Join(dir, model), path); err != nil {
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
