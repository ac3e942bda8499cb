package main

import (
	"context"
	"errors"
	"strings"

	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/triton"
)

type serveCommand struct {
	dataFlag
	keyFlag
	Listen string `placeholder:"HOST:PORT" help:"Where to listen. Default: REFERSAM_LISTEN, else 127.0.0.1:8080."`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	c.dataFlag.apply(cfg)
	c.keyFlag.apply(cfg)
	if c.Listen != "" {
		cfg.Gateway.Listen = c.Listen
	}
	errs := []error{cfg.validate(), cfg.validateTriton()}
	if len(cfg.Triton.Addresses) == 0 {
		errs = append(errs, errors.New(`REFERSAM_TRITON is "", allowed: at least one server, host:port or unix:/path; “refersam up” starts a server of its own`))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	log := telemetry.NewLogger(cfg.Log, m.Stderr)
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
	out.begin("waiting for the models of %s, and measuring how long they take", strings.Join(cfg.Triton.Addresses, ", "))
	return serve(ctx, cfg, ln, fleet, log, out)
}
