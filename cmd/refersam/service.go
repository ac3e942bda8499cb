package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/fetch"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/triton"
	"golang.org/x/sync/errgroup"
)

// newPipeline connects a decoder and a fleet.
func newPipeline(cfg *Config, fleet *triton.Fleet, log *slog.Logger) (*preprocess.Decoder, *pipeline.Segmenter, error) {
	decoder, err := preprocess.New(cfg.Preprocess)
	if err != nil {
		return nil, nil, err
	}
	config := cfg.Pipeline
	cfg.Experiment.Require(&config)
	model, err := pipeline.New(config, decoder, fleet, log)
	return decoder, model, err
}

// replicas are a fleet's servers in the form that the pipeline expects.
func replicas(servers []*triton.Replica) []pipeline.Replica {
	replicas := make([]pipeline.Replica, len(servers))
	for i, server := range servers {
		replicas[i] = server
	}
	return replicas
}

// serve answers HTTP on ln with the servers of a fleet until ctx ends, and prints
// the progress of its start on the console.
func serve(ctx context.Context, cfg *Config, ln net.Listener, fleet *triton.Fleet, log *slog.Logger, out *console) (err error) {
	starting, asked := true, ctx
	defer func() {
		if starting && err != nil && asked.Err() != nil {
			log.Info("the service was stopped while it started", "cause", err)
			err = nil // a step that the stop interrupts has not failed
		}
	}()
	traces, err := telemetry.NewTraces(ctx, cfg.Traces, gateway.ReadBuild().Version, log)
	if err != nil {
		return err
	}
	defer traces.Close(ctx)
	decoder, model, err := newPipeline(cfg, fleet, log)
	if err != nil {
		return err
	}
	defer model.Close()
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
	if state.MultiGateway() && bucket.Local() {
		log.Warn("pictures and answers are stored in a folder that all gateways of this database must share; or set REFERSAM_BLOBS_URL", "folder", cfg.Store.Data)
	}
	fetcher, err := fetch.New(cfg.Fetch)
	if err != nil {
		return err
	}
	defer fetcher.Close()
	metrics := telemetry.NewMetrics(model)
	segmenter, err := experiment.New(cfg.Experiment, model, func(e experiment.Exposure) { metrics.Answer(e.Response) })
	if err != nil {
		return err
	}
	gate, err := access.New(state, rand.Text(), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gate.Close()) }() // jobs are counted until they have ended
	keeper := images.New(cfg.Gateway.Images, cfg.Preprocess.MaxBytes, state, bucket, decoder, log)
	answers := answer.New(cfg.Gateway.Answers, answer.Parts{
		Segmenter: segmenter, MaxImage: cfg.Preprocess.MaxBytes, Images: keeper, Fetcher: fetcher, Meter: gate.Meter,
		Traces: traces.Provider(), Log: log,
	})
	cfg.Jobs.ItemTimeout = cfg.Gateway.Answers.RequestTimeout + 15*time.Second
	cfg.Jobs.Grace = cfg.Gateway.ShutdownGrace
	engine, err := jobs.Open(ctx, cfg.Jobs, state, fetcher, log)
	if err != nil {
		return err
	}
	gw, err := gateway.New(cfg.Gateway, gateway.Parts{
		Segmenter: segmenter, Access: gate, Images: keeper, Answers: answers, Jobs: engine, State: state,
		Metrics: metrics, Traces: traces.Provider(), Log: log,
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
	// Metrics and upkeep go on until the last request has been answered.
	administration, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	if adminLn != nil {
		admin := gateway.NewAdmin(model.Scheduler(), telemetry.Handler(metrics, model.Scheduler(), engine, log), log)
		g.Go(func() error { return admin.Serve(administration, adminLn) })
	}
	log.Info("listening", "address", ln.Addr().String())
	g.Go(func() error {
		return fleet.Run(ctx, func(servers []*triton.Replica) { model.SetReplicas(replicas(servers)) })
	})
	g.Go(func() error { return model.Run(ctx) })
	g.Go(func() error { return engine.Run(ctx, answers.Work, answer.WebhookPayload) })
	g.Go(func() error { gate.Run(administration); return nil })
	g.Go(func() error { keeper.Run(administration); return nil })
	g.Go(func() error {
		defer done()
		return gw.Serve(ctx, ln)
	})
	g.Go(func() error {
		waiting, stop := context.WithCancel(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			out.watch(waiting, model.Ready)
		}()
		err := model.WaitReady(ctx)
		stop()
		<-watched
		if err == nil {
			out.ready(describe(cfg, ln, adminLn))
		}
		return nil
	})
	return g.Wait()
}

// makeFirstKey makes a key and prints it if clients must send one and none has ever
// been made. If several gateways use one database, only one of them makes it.
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

// describe describes a service with these listeners; adminLn may be nil.
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

// url returns the URL of addr for a browser on this machine.
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
