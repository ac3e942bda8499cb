// Package gateway serves a refersam.Segmenter over HTTP: the API under /v1,
// probes, and the web page.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/pipeline"
	"golang.org/x/sync/semaphore"
)

const (
	routeLive  = "/livez"
	routeReady = "/readyz"
)

func init() { gin.SetMode(gin.ReleaseMode) }

// Segmenter is what the gateway serves; *pipeline.Segmenter is one. All of it
// is safe for concurrent use.
type Segmenter interface {
	refersam.Segmenter
	// Ready returns nil when Segment can answer, else a *refersam.Error.
	Ready() error
	// Variants describes the variants that can answer.
	Variants() []pipeline.Variant
}

// Gateway is an http.Handler. Make one with New.
type Gateway struct {
	cfg       Config
	maxImage  int64
	segmenter Segmenter
	log       *slog.Logger
	engine    *gin.Engine
	bodies    *semaphore.Weighted // bytes of memory for bodies under way
	metrics   *metrics
	stopping  atomic.Bool
}

// New makes a Gateway. maxImage is the size of the largest encoded picture it
// takes in, in bytes.
func New(cfg Config, maxImage int64, segmenter Segmenter, log *slog.Logger) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	page, err := newPage()
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg:       cfg,
		maxImage:  maxImage,
		segmenter: segmenter,
		log:       log,
		engine:    gin.New(),
		bodies:    semaphore.NewWeighted(cfg.BodyMemory),
		metrics:   newMetrics(),
	}
	e := g.engine
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	if err := e.SetTrustedProxies(cfg.TrustedProxies); err != nil {
		return nil, err
	}

	e.Use(identify, g.metrics.count, logAccess(log), recoverPanic, secure)
	read := []string{http.MethodGet, http.MethodHead}
	e.Match(read, "/", page.serve)
	e.Match(read, "/web/*file", page.serve)
	e.Match(read, routeLive, g.live)
	e.Match(read, routeReady, handle(g.ready))
	e.GET("/version", handle(version))
	e.GET("/problems/:code", handle(problemKind))
	e.GET("/v1/models", handle(g.models))
	e.POST("/v1/segment", limitInFlight(cfg.MaxInFlight), handle(g.segment))
	e.NoRoute(handle(nothingHere))
	e.NoMethod(handle(methodNotAllowed))
	return g, nil
}

func nothingHere(c *gin.Context) error {
	return refersam.Errorf(refersam.CodeNotFound, "There is nothing at %s.", c.Request.URL.Path)
}

func methodNotAllowed(c *gin.Context) error {
	return refersam.Errorf(refersam.CodeMethodNotAllowed, "%s is not allowed here; allowed: %s.", c.Request.Method, c.Writer.Header().Get("Allow"))
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.engine.ServeHTTP(w, r) }

// Serve answers on ln until ctx ends. Then it says on /readyz that it stops,
// goes on for DrainDelay, accepts no more connections, lets the requests under
// way finish for ShutdownGrace, and cuts off the rest, which is an error.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: g.cfg.ReadHeaderTimeout,
		ReadTimeout:       g.cfg.ReadTimeout,
		WriteTimeout:      g.cfg.ReadTimeout + g.cfg.RequestTimeout + g.cfg.WriteTimeout,
		IdleTimeout:       g.cfg.IdleTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	g.stopping.Store(true)
	select {
	case err := <-served:
		return err
	case <-time.After(g.cfg.DrainDelay):
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.ShutdownGrace)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = fmt.Errorf("requests were cut off %s after the stop: %w", g.cfg.ShutdownGrace, errors.Join(err, server.Close()))
	}
	if stopped := <-served; !errors.Is(stopped, http.ErrServerClosed) {
		err = errors.Join(err, stopped)
	}
	return err
}

// live answers GET /livez: the process can answer at all.
func (g *Gateway) live(c *gin.Context) { c.String(http.StatusOK, "ok\n") }

// ready answers GET /readyz: a request for a mask can be answered now.
func (g *Gateway) ready(c *gin.Context) error {
	if g.stopping.Load() {
		return refersam.Errorf(refersam.CodeNotReady, "The service is stopping.")
	}
	if err := g.segmenter.Ready(); err != nil {
		return err
	}
	c.String(http.StatusOK, "ok\n")
	return nil
}
