package main

import (
	"context"
	"net"

	"github.com/refersam/refersam/triton"
)

type serveCommand struct {
	Listen string `placeholder:"HOST:PORT" help:"Where to listen. Default: REFERSAM_LISTEN, else 127.0.0.1:8080."`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	if c.Listen != "" {
		cfg.Gateway.Listen = c.Listen
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	client, err := triton.Dial(cfg.Triton)
	if err != nil {
		return err
	}
	defer client.Close()
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Gateway.Listen)
	if err != nil {
		return err
	}
	return serve(ctx, cfg, ln, client, cfg.Log.logger(m.Stderr), m.Stdout)
}
