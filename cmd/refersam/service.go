package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/fetch"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
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
// on the console how far it is until it can answer with masks.
func serve(ctx context.Context, cfg *Config, ln net.Listener, fleet *triton.Fleet, log *slog.Logger, out *console) (err error) {
	starting, asked := true, ctx
	defer func() {
		if starting && err != nil && asked.Err() != nil {
			log.Info("the service was stopped while it started", "cause", err)
			err = nil // what the stop interrupts has not failed
		}
	}()
	segmenter, err := newSegmenter(cfg, fleet, log)
	if err != nil {
		return err
	}
	defer segmenter.Close()
	state, err := store.Open(ctx, cfg.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	bucket, err := blobs.Open(ctx, cfg.Blobs, cfg.Store.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bucket.Close()) }()
	if state.Shared() && bucket.Local() {
		log.Warn("pictures and answers are kept in a folder, which other gateways of this database must share; or set REFERSAM_BLOBS_URL", "folder", cfg.Store.Data)
	}
	cfg.Jobs.ItemTimeout = cfg.Gateway.Answers.RequestTimeout + 15*time.Second
	cfg.Jobs.Grace = cfg.Gateway.ShutdownGrace
	fetcher, err := fetch.New(cfg.Fetch)
	if err != nil {
		return err
	}
	defer fetcher.Close()
	engine, err := jobs.Open(ctx, cfg.Jobs, state, fetcher, log)
	if err != nil {
		return err
	}
	gw, err := gateway.New(cfg.Gateway, gateway.Parts{
		Segmenter: segmenter,
		MaxImage:  cfg.Preprocess.MaxBytes,
		State:     state,
		Blobs:     bucket,
		Jobs:      engine,
		Fetcher:   fetcher,
		Log:       log,
	})
	if err != nil {
		return err
	}
	if cfg.firstKey {
		if err := makeFirstKey(ctx, cfg, state, out); err != nil {
			return err
		}
	}
	if err := gw.CheckAccess(ctx); err != nil {
		return err
	}
	adminLn, err := listenAdmin(ctx, cfg, log)
	if err != nil {
		return err
	}
	starting = false
	g, ctx := errgroup.WithContext(ctx)
	// Metrics are there to the end.
	administration, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	if adminLn != nil {
		admin := gateway.NewAdmin(gw, segmenter.Scheduler(), log)
		g.Go(func() error { return admin.Serve(administration, adminLn) })
	}
	log.Info("listening", "address", ln.Addr().String())
	g.Go(func() error {
		return fleet.Run(ctx, func(servers []*triton.Replica) { segmenter.SetReplicas(replicas(servers)) })
	})
	g.Go(func() error { return segmenter.Run(ctx) })
	g.Go(func() error { return engine.Run(ctx, gw.Work, gw.Payload) })
	g.Go(func() error {
		defer done()
		return gw.Serve(ctx, ln)
	})
	g.Go(func() error {
		waiting, stop := context.WithCancel(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			out.watch(waiting, segmenter.Ready)
		}()
		err := segmenter.WaitReady(ctx)
		stop()
		<-watched
		if err == nil {
			out.ready(describe(cfg, ln, adminLn))
		}
		return nil
	})
	return errors.Join(g.Wait(), gw.Close()) // jobs are counted until they have ended
}

// makeFirstKey makes a key and prints it if clients must show one and no key has
// ever been made. Of several gateways with one database, one makes it.
func makeFirstKey(ctx context.Context, cfg *Config, state *store.Store, out *console) error {
	if !cfg.Gateway.Authenticates() {
		return nil
	}
	return state.Exclusively(ctx, func(ctx context.Context) error {
		keys, err := state.Keys(ctx)
		if err != nil || len(keys) > 0 {
			return err
		}
		token, err := state.CreateKey(ctx, store.Key{Name: "first", Scopes: []store.Scope{store.ScopeSegment}}, time.Now())
		if err == nil {
			out.firstKey(token)
		}
		return err
	})
}

// describe is what there is to know of a service with these listeners; adminLn
// may be nil.
func describe(cfg *Config, ln, adminLn net.Listener) *started {
	s := &started{
		url:      url(cfg, ln.Addr()),
		keys:     cfg.Gateway.Authenticates(),
		open:     cfg.Gateway.Auth == gateway.AuthOff,
		insecure: cfg.Gateway.TLSCert != "",
		data:     place(&cfg.Store),
	}
	if adminLn != nil {
		s.admin = adminLn.Addr().String()
	}
	return s
}

// url is where a browser on this machine finds what listens on addr.
func url(cfg *Config, addr net.Addr) string {
	scheme := "http://"
	if cfg.Gateway.TLSCert != "" {
		scheme = "https://"
	}
	tcp, ok := addr.(*net.TCPAddr)
	if ok && tcp.IP.IsUnspecified() {
		return fmt.Sprintf("%s127.0.0.1:%d", scheme, tcp.Port)
	}
	return scheme + addr.String()
}
