package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
	"golang.org/x/sync/errgroup"
)

// stopTimeout is how long our own Triton server may take to stop.
const stopTimeout = 10 * time.Second

type upCommand struct {
	dataFlag
	keyFlag
	Listen     string `placeholder:"HOST:PORT" help:"Where to listen. Default: REFERSAM_LISTEN, else 127.0.0.1:8080."`
	Repository string `placeholder:"DIR" help:"Folder of the models. Default: REFERSAM_MODEL_REPOSITORY, else model_repository."`
}

// Run serves until ctx ends or Triton stops. The gateway answers from the start,
// with not_ready while Triton loads, and stops before Triton.
func (c *upCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	if len(cfg.Triton.Addresses) > 0 {
		return errors.New("REFERSAM_TRITON names servers that run already: use “refersam serve”, or unset it")
	}
	c.dataFlag.apply(cfg)
	c.keyFlag.apply(cfg)
	if c.Listen != "" {
		cfg.Gateway.Listen = c.Listen
	}
	if c.Repository != "" {
		cfg.Local.Repository = c.Repository
	}
	if c.Data != "" {
		cfg.Local.WorkDir = filepath.Join(c.Data, "triton")
	}
	if err := errors.Join(cfg.validate(), cfg.Local.Validate(), cfg.validateTriton()); err != nil {
		return err
	}
	// A mistyped folder of models must not leave a database behind.
	if _, _, err := triton.Ensembles(cfg.Local.Repository, cfg.Local.ConfigName); err != nil {
		return err
	}
	log := telemetry.NewLogger(cfg.Log, m.Stderr)
	cfg.Local.Logger = log
	if err := limitRows(cfg, log); err != nil {
		return err
	}
	fleet, err := triton.NewFleet(cfg.Triton, log)
	if err != nil {
		return err
	}
	defer fleet.Close()
	ln, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	out := newConsole(m.Stdout)
	out.begin("starting a Triton server with the models of %s", cfg.Local.Repository)

	served := make(chan struct{})
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(served)
		return serve(running, cfg, ln, fleet, log, out)
	})
	g.Go(func() error {
		server, err := local.Start(running, cfg.Local)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // stopped while it was loading
		}
		if err != nil {
			return err
		}
		out.begin("the models are loaded; trying them and measuring how long they take")
		if err := fleet.Add(server.Address()); err != nil {
			return errors.Join(err, stop(ctx, server))
		}
		select {
		case <-server.Done():
			return server.Err()
		case <-served:
			return stop(ctx, server)
		}
	})
	return g.Wait()
}

// limitRows makes batches small enough for the shared memory that is free.
func limitRows(cfg *Config, log *slog.Logger) error {
	limit, err := cfg.Local.RowLimit()
	if err != nil || limit == nil {
		return err
	}
	if settings := &cfg.Pipeline.Schedule.Settings; settings.MaxRows == 0 || settings.MaxRows > limit.Rows {
		settings.MaxRows = limit.Rows
		log.Warn(limit.String())
	}
	return nil
}

// stop stops our own Triton server, also after ctx has ended.
func stop(ctx context.Context, server *local.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	return server.Close(ctx)
}
