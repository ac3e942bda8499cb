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
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/api/openapi"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/gateway/web"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/telemetry"
	"go.opentelemetry.io/otel/trace"
)

func init() { gin.SetMode(gin.ReleaseMode) }

// Segmenter describes what the gateway serves; *experiment.Segmenter is one. All of it
// is safe for concurrent use.
type Segmenter interface {
	// Ready returns nil when requests can be answered, otherwise a *refersam.Error.
	Ready() error
	// Variants describes the variants that can answer.
	Variants() []experiment.Variant
	// Unusable describes the configured variants that cannot answer.
	Unusable() []experiment.Unusable
	// Limits are the limits of a request.
	Limits() pipeline.Limits
}

// State is the state that the gateway stores permanently; *store.Store is one. All
// of it is safe for concurrent use and may be called again after an error.
type State interface {
	Answers
	Opinions
}

// Gateway is an http.Handler. Make one with New.
type Gateway struct {
	cfg       Config
	segmenter Segmenter
	state     State
	answers   *answer.Service
	access    *access.Gate
	// certificate is nil without TLS.
	certificate *certificate
	log         *slog.Logger
	engine      *gin.Engine
	stopping    atomic.Bool
	// draining is closed when streams must end.
	draining chan struct{}
}

// Parts are the parts of a Gateway. The Gateway does not close them.
type Parts struct {
	Segmenter Segmenter
	Access    *access.Gate
	Images    *images.Keeper
	Answers   *answer.Service
	Jobs      Jobs
	State     State
	Metrics   *telemetry.Metrics
	// Traces makes the spans of requests.
	Traces trace.TracerProvider
	Log    *slog.Logger
}

// New makes a Gateway.
func New(cfg Config, parts Parts) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	pages, err := newPages()
	if err != nil {
		return nil, err
	}
	log := parts.Log
	g := &Gateway{
		cfg:       cfg,
		segmenter: parts.Segmenter,
		state:     parts.State,
		answers:   parts.Answers,
		access:    parts.Access,
		draining:  make(chan struct{}),
		log:       log,
		engine:    gin.New(),
	}
	if cfg.TLSCert != "" {
		if g.certificate, err = newCertificate(cfg.TLSCert, cfg.TLSKey, log); err != nil {
			return nil, err
		}
	}
	g.engine.HandleMethodNotAllowed = true
	g.engine.RedirectTrailingSlash = false
	if err := g.engine.SetTrustedProxies(cfg.TrustedProxies); err != nil {
		return nil, err
	}
	g.route(pages, parts)
	return g, nil
}

// route adds the routes and their middleware.
func (g *Gateway) route(pages *pages, parts Parts) {
	e, cfg, log, timeout := g.engine, &g.cfg, g.log, g.cfg.Answers.RequestTimeout
	e.Use(identify, countRequests(parts.Metrics), traceRequests(parts.Traces), logAccess(log), recoverPanic, secure, allowOrigins(cfg.CORSOrigins))
	read := []string{http.MethodGet, http.MethodHead}
	for _, p := range web.Pages {
		e.Match(read, p.Path, inlineImages(p.InlineImages), pages.file(p.File))
	}
	e.Match(read, api.RouteSpec+".json", pages.file("openapi.json"))
	e.Match(read, api.RouteSpec+".yaml", pages.file("openapi.yaml"))
	e.Match(read, "/web/*file", pages.serve)
	e.Match(read, api.RouteLive, g.live)
	e.Match(read, api.RouteReady, handle(g.ready))
	e.GET("/version", handle(version))
	e.GET("/problems/:code", handle(problemKind))

	door, bodies := g.newDoor(), g.newBodies(parts.Answers.MaxImage)
	idempotent := g.newIdempotency(bodies)
	timed := withTimeout(timeout)

	models := &modelRoutes{g.segmenter, timeout}
	pictures := &imageRoutes{parts.Images, parts.Answers, bodies, timeout}
	masks := &segmentRoutes{parts.Answers, bodies, parts.Jobs, parts.Access.Meter, timeout, log}
	jobs := &jobRoutes{parts.Jobs, parts.Answers, parts.Images, log}
	events := &eventRoutes{
		jobs: parts.Jobs, streams: streams{byKey: make(map[string]int)}, gate: g.access, authenticates: cfg.Authenticates(),
		draining: g.draining, timeout: cfg.WriteTimeout, log: log,
	}
	feedback := &feedbackRoutes{parts.State, bodies, g.segmenter.Limits().MaxImagePixels, cfg.FeedbackPerKey, timeout}
	usage := &usageRoutes{parts.Access.Meter}

	v1 := e.Group("/v1", door.require(store.ScopeSegment))
	v1.GET("/models", noQuery, handle(models.list))
	v1.GET("/models/:name", noQuery, handle(models.get))
	v1.GET("/images", timed, handle(pictures.list))
	v1.GET("/images/:id", noQuery, timed, handle(pictures.get))
	v1.DELETE("/images/:id", noQuery, noBody, timed, handle(pictures.delete))
	v1.GET("/jobs", timed, handle(jobs.list))
	v1.GET("/jobs/:id", nameJob, noQuery, timed, handle(jobs.get))
	v1.DELETE("/jobs/:id", nameJob, noQuery, noBody, timed, handle(jobs.delete))
	v1.GET("/jobs/:id/events", nameJob, handle(events.events))
	v1.POST("/jobs/:id/cancel", nameJob, noQuery, noBody, timed, handle(jobs.cancel))
	v1.POST("/jobs/:id/webhook/redeliver", nameJob, noQuery, noBody, timed, idempotent.middleware(noBodyLimit), handle(jobs.redeliver))
	v1.GET("/webhooks/secret", noQuery, timed, handle(jobs.secret))
	v1.POST("/webhooks/secret/rotate", noQuery, noBody, timed, idempotent.middleware(noBodyLimit), handle(jobs.rotateSecret))
	// These routes hold pictures and masks in memory.
	heavy := v1.Group("", door.limitConcurrency, limitInFlight(cfg.MaxInFlight))
	heavy.GET("/images/:id/content", noQuery, timed, handle(pictures.content))
	heavy.GET("/jobs/:id/items/:index", nameJob, noQuery, timed, handle(jobs.result))
	heavy.POST("/images", idempotent.middleware(bodies.pictureLimit), handle(pictures.upload))
	heavy.POST("/segment", checkUnit, idempotent.ifAsync(bodies.pictureLimit), handle(masks.segment))
	heavy.POST(`/segment\:batch`, checkUnit, idempotent.ifAsync(batchLimit), handle(masks.segmentBatch))
	e.POST("/v1/feedback", door.require(store.ScopeFeedback), door.limitConcurrency, idempotent.middleware(feedbackLimit), handle(feedback.add))
	e.GET("/v1/feedback", door.require(store.ScopeAdmin), timed, handle(feedback.list))
	e.GET("/v1/usage", door.require(anyScope), timed, handle(usage.get))
	e.NoRoute(handle(nothingHere))
	e.NoMethod(handle(methodNotAllowed))
	expectRequests(parts.Metrics, e.Routes(), openapi.New())
}

func (g *Gateway) newDoor() *door {
	return &door{gate: g.access, auth: g.cfg.Auth, authenticates: g.cfg.Authenticates(), origins: g.cfg.CORSOrigins}
}

func (g *Gateway) newBodies(maxImage int64) *bodies {
	return &bodies{memory: g.answers, maxImage: maxImage, wait: g.cfg.Answers.RequestTimeout, read: g.cfg.ReadTimeout}
}

func (g *Gateway) newIdempotency(b *bodies) *idempotency {
	timeout := g.cfg.Answers.RequestTimeout
	return &idempotency{answers: g.state, bodies: b, timeout: timeout, lease: timeout + g.cfg.WriteTimeout, log: g.log}
}

func nothingHere(c *gin.Context) error {
	return refersam.Errorf(refersam.CodeNotFound, "Nothing exists at %s.", c.Request.URL.Path)
}

func methodNotAllowed(c *gin.Context) error {
	return refersam.Errorf(refersam.CodeMethodNotAllowed, "%s is not allowed here; allowed: %s.", c.Request.Method, c.Writer.Header().Get("Allow"))
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.engine.ServeHTTP(w, r) }

// newServer makes the server with its limits on slow and large requests.
func (g *Gateway) newServer() *http.Server {
	server := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: g.cfg.ReadHeaderTimeout,
		ReadTimeout:       g.cfg.ReadTimeout,
		WriteTimeout:      g.cfg.ReadTimeout + g.cfg.Answers.RequestTimeout + g.cfg.WriteTimeout,
		IdleTimeout:       g.cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
	}
	if g.certificate != nil {
		server.TLSConfig = g.certificate.config()
	}
	return server
}

// maxHeader is how many bytes the headers of a request may have.
const maxHeader = 64 << 10

// Serve answers on ln until ctx ends. Then it reports on /readyz that it is
// stopping, continues for DrainDelay, and accepts no more connections. Requests in
// flight may finish within ShutdownGrace; then Serve cuts off the rest and returns
// an error.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	sweeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var sweeper sync.WaitGroup
	sweeper.Go(func() { g.sweep(sweeping) })
	defer sweeper.Wait()
	defer stop()
	server := g.newServer()
	served := make(chan error, 1)
	go func() {
		if server.TLSConfig != nil {
			served <- server.ServeTLS(ln, "", "")
		} else {
			served <- server.Serve(ln)
		}
	}()
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
	close(g.draining)
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

const (
	// sweepInterval is how often expired rows are deleted, and sweepTimeout how long
	// that may take.
	sweepInterval = 10 * time.Minute
	sweepTimeout  = 5 * time.Second
)

// sweep deletes expired rows until ctx ends.
func (g *Gateway) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, sweepTimeout)
		if err := g.state.Sweep(bounded, time.Now()); err != nil && ctx.Err() == nil {
			g.log.Warn("expired rows of the database could not be deleted; the next round tries again", "cause", err)
		}
		cancel()
	}
}

// live answers GET /livez: the process can answer.
func (g *Gateway) live(c *gin.Context) { c.String(http.StatusOK, "ok\n") }

// ready answers GET /readyz: at least one variant can answer requests for masks
// now. A line follows for each variant that cannot.
func (g *Gateway) ready(c *gin.Context) error {
	if g.stopping.Load() {
		return refersam.Errorf(refersam.CodeNotReady, "The service is stopping.")
	}
	if err := g.segmenter.Ready(); err != nil {
		return err
	}
	body := "ok\n"
	for _, v := range g.segmenter.Unusable() {
		body += fmt.Sprintf("variant %s cannot be used: %s\n", v.Variant, api.Showable(v.Reason))
	}
	c.String(http.StatusOK, "%s", body)
	return nil
}
