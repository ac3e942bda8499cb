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

// newSegmenter joins the way of a request before a model.
func newSegmenter(cfg *Config, model pipeline.Model, log *slog.Logger) (*pipeline.Segmenter, error) {
	decoder, err := preprocess.New(cfg.Preprocess)
	if err != nil {
		return nil, err
	}
	return pipeline.New(cfg.Pipeline, decoder, model, log)
}

// serve answers HTTP on ln with the servers of a fleet until ctx ends, and says
// on out when it can answer with masks.
func serve(ctx context.Context, cfg *Config, ln net.Listener, fleet *triton.Fleet, log *slog.Logger, out io.Writer) error {
	segmenter, err := newSegmenter(cfg, triton.NewClient(fleet), log)
	if err != nil {
		return err
	}
	gw, err := gateway.New(cfg.Gateway, cfg.Preprocess.MaxBytes, segmenter, log)
	if err != nil {
		return err
	}
	log.Info("listening", "address", ln.Addr().String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return fleet.Run(ctx, func([]*triton.Replica) {}) })
	g.Go(func() error { return segmenter.Run(ctx) })
	g.Go(func() error { return gw.Serve(ctx, ln) })
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
