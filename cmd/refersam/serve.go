package main

import (
	"context"
	"errors"
	"net"

	"github.com/refersam/refersam/triton"
)

type serveCommand struct {
	dataFlag
	Listen string `placeholder:"HOST:PORT" help:"Where to listen. Default: REFERSAM_LISTEN, else 127.0.0.1:8080."`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	c.apply(cfg)
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
	log := cfg.Log.logger(m.Stderr)
	fleet, err := triton.NewFleet(cfg.Triton, log)
	if err != nil {
		return err
	}
	defer fleet.Close()
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Gateway.Listen)
	if err != nil {
		return err
	}
	return serve(ctx, cfg, ln, fleet, log, m.Stdout)
}
