package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/triton"
	"golang.org/x/sync/errgroup"
)

// stopTimeout is how long a Triton of our own may take to stop.
const stopTimeout = 10 * time.Second

type upCommand struct {
	Listen     string `placeholder:"HOST:PORT" help:"Where to listen. Default: REFERSAM_LISTEN, else 127.0.0.1:8080."`
	Data       string `placeholder:"DIR" help:"Folder for working files. Default: var beside the repository."`
	Repository string `placeholder:"DIR" help:"Folder of the models. Default: REFERSAM_MODEL_REPOSITORY, else model_repository."`
}

// Run serves until ctx ends or Triton does. The gateway answers from the
// start, with not_ready while Triton loads, and stops before Triton does.
func (c *upCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	if len(cfg.Triton.Addresses) > 0 {
		return errors.New("REFERSAM_TRITON names servers that run already: use “refersam serve”, or unset it")
	}
	if c.Listen != "" {
		cfg.Gateway.Listen = c.Listen
	}
	if c.Repository != "" {
		cfg.Local.Repository = c.Repository
	}
	if c.Data != "" {
		cfg.Local.WorkDir = filepath.Join(c.Data, "triton")
	}
	if err := errors.Join(cfg.validate(), cfg.Local.Validate()); err != nil {
		return err
	}
	log := cfg.Log.logger(m.Stderr)
	cfg.Local.Logger = log
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Gateway.Listen)
	if err != nil {
		return err
	}

	var model startingModel
	served := make(chan struct{})
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(served)
		return serve(running, cfg, ln, &model, log, m.Stdout)
	})
	g.Go(func() error {
		local, client, err := startTriton(running, cfg)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // told to stop while it was loading
		}
		if err != nil {
			return err
		}
		defer client.Close()
		model.client.Store(client)
		select {
		case <-local.Done():
			return local.Err()
		case <-served:
			return stop(local)
		}
	})
	return g.Wait()
}

// startTriton starts a Triton on this machine and a client to it.
func startTriton(ctx context.Context, cfg *Config) (*triton.Local, *triton.Client, error) {
	local, err := triton.StartLocal(ctx, cfg.Local)
	if err != nil {
		return nil, nil, err
	}
	connection := cfg.Triton
	connection.Addresses = local.Addresses()
	client, err := triton.Dial(connection)
	if err != nil {
		return nil, nil, errors.Join(err, stop(local))
	}
	return local, client, nil
}

// stop stops a Triton of our own. It takes no context: that of its caller has
// ended as a rule.
func stop(local *triton.Local) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return local.Close(ctx)
}

// startingModel is a pipeline.Model that is not ready before it has a client.
type startingModel struct {
	client atomic.Pointer[triton.Client]
}

func (s *startingModel) ready() (*triton.Client, error) {
	if client := s.client.Load(); client != nil {
		return client, nil
	}
	return nil, refersam.Errorf(refersam.CodeNotReady, "The model server is starting.")
}

// Contracts implements pipeline.Model.
func (s *startingModel) Contracts(ctx context.Context) ([]triton.Contract, error) {
	client, err := s.ready()
	if err != nil {
		return nil, err
	}
	return client.Contracts(ctx)
}

// Probe implements pipeline.Model.
func (s *startingModel) Probe(ctx context.Context, c *triton.Contract) error {
	client, err := s.ready()
	if err != nil {
		return err
	}
	return client.Probe(ctx, c)
}

// Infer implements pipeline.Model.
func (s *startingModel) Infer(ctx context.Context, c *triton.Contract, rows []triton.Row) ([]refersam.Logits, error) {
	client, err := s.ready()
	if err != nil {
		return nil, err
	}
	return client.Infer(ctx, c, rows)
}
