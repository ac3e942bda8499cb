package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/triton"
	"golang.org/x/sync/errgroup"
)

// newSegmenter joins the way of a request before a fleet.
func newSegmenter(cfg *Config, fleet *triton.Fleet, log *slog.Logger) (*pipeline.Segmenter, error) {
	decoder, err := preprocess.New(cfg.Preprocess)
	if err != nil {
		return nil, err
	}
	return pipeline.New(cfg.Pipeline, decoder, fleet, log)
}

// replicas are a fleet's servers as the pipeline takes them.
func replicas(servers []*triton.Replica) []pipeline.Replica {
	replicas := make([]pipeline.Replica, len(servers))
	for i, server := range servers {
		replicas[i] = server
	}
	return replicas
}

// serve answers HTTP on ln with the servers of a fleet until ctx ends, and says
// on out when it can answer with masks.
func serve(ctx context.Context, cfg *Config, ln net.Listener, fleet *triton.Fleet, log *slog.Logger, out io.Writer) error {
	segmenter, err := newSegmenter(cfg, fleet, log)
	if err != nil {
		return err
	}
	defer segmenter.Close()
	gw, err := gateway.New(cfg.Gateway, cfg.Preprocess.MaxBytes, segmenter, log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	// Metrics are there to the end.
	administration, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	if address := cfg.Gateway.AdminListen; address != "" {
		adminLn, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("REFERSAM_ADMIN_LISTEN, the address of metrics and settings: %w; name another, or none", err)
		}
		log.Info("listening for administration", "address", adminLn.Addr().String())
		admin := gateway.NewAdmin(gw, segmenter.Scheduler(), log)
		g.Go(func() error { return admin.Serve(administration, adminLn) })
	}
	log.Info("listening", "address", ln.Addr().String())
	g.Go(func() error {
		return fleet.Run(ctx, func(servers []*triton.Replica) { segmenter.SetReplicas(replicas(servers)) })
	})
	g.Go(func() error { return segmenter.Run(ctx) })
	g.Go(func() error {
		defer done()
		return gw.Serve(ctx, ln)
	})
	g.Go(func() error {
		if segmenter.WaitReady(ctx) == nil {
			fmt.Fprintf(out, "refersam is ready on %s\n", url(ln.Addr()))
		}
		return nil
	})
	return g.Wait()
}

// url is where a browser on this machine finds what listens on addr.
func url(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	}
	return "http://" + addr.String()
}
