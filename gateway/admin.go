package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/schedule"
)

// Batching forms batches; a schedule.Scheduler is one.
type Batching interface {
	Settings() schedule.Settings
	Update(schedule.Settings) error
	Snapshot() schedule.Snapshot
}

// Admin is an http.Handler for the operator of the service: metrics, profiles, and
// settings that can be changed while it serves. It does not authenticate clients,
// so it must listen only on the loopback interface.
type Admin struct {
	batching Batching
	log      *slog.Logger
	engine   *gin.Engine
}

// NewAdmin makes an Admin of a scheduler and of a handler of its metrics.
func NewAdmin(batching Batching, metrics http.Handler, log *slog.Logger) *Admin {
	a := &Admin{batching: batching, log: log, engine: gin.New()}
	e := a.engine
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	e.Use(identify, recoverPanic, secure, sameHost)
	e.GET("/metrics", gin.WrapH(metrics))
	e.GET("/v1/admin/batching", handle(a.get))
	e.PATCH("/v1/admin/batching", handle(a.patch))
	e.GET("/v1/admin/replicas", handle(a.replicas))
	e.GET("/debug/pprof/*profile", profile)
	e.NoRoute(handle(nothingHere))
	e.NoMethod(handle(methodNotAllowed))
	return a
}

// ServeHTTP implements http.Handler.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.engine.ServeHTTP(w, r) }

// Serve answers on ln until ctx ends.
func (a *Admin) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// sameHost refuses requests that a browser sends for a page of another origin,
// because such a page may make its name resolve to this machine.
func sameHost(c *gin.Context) {
	if !namesLoopback(c.Request.Host) || crossOrigin(c.Request) {
		fail(c, refersam.Errorf(refersam.CodeNotFound, "This address is for requests from this machine."))
	}
}

// namesLoopback reports whether the Host of a request is a name or address of the
// loopback interface.
func namesLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return loopback(strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), ".")))
}

func profile(c *gin.Context) {
	switch name := c.Param("profile"); name {
	case "/cmdline":
		pprof.Cmdline(c.Writer, c.Request)
	case "/profile":
		pprof.Profile(c.Writer, c.Request)
	case "/symbol":
		pprof.Symbol(c.Writer, c.Request)
	case "/trace":
		pprof.Trace(c.Writer, c.Request)
	default:
		pprof.Index(c.Writer, c.Request)
	}
}

// BatchingSettings is the JSON of the settings of batching. Settings that a PATCH
// leaves out stay as they are.
type BatchingSettings struct {
	Mode       *schedule.Mode `json:"mode,omitempty"`
	MaxRows    *int           `json:"max_rows,omitempty"`
	MaxWaitMS  *float64       `json:"max_wait_ms,omitempty"`
	Percentile *float64       `json:"percentile,omitempty"`
	Admission  *bool          `json:"admission,omitempty"`
	Hedge      *bool          `json:"hedge,omitempty"`
}

func newBatchingSettings(s schedule.Settings) *BatchingSettings {
	wait := float64(s.MaxWait) / float64(time.Millisecond)
	return &BatchingSettings{&s.Mode, &s.MaxRows, &wait, &s.Percentile, &s.Admission, &s.Hedge}
}

// apply copies the settings in b to s.
func (b *BatchingSettings) apply(s *schedule.Settings) {
	set(&s.Mode, b.Mode)
	set(&s.MaxRows, b.MaxRows)
	set(&s.Percentile, b.Percentile)
	set(&s.Admission, b.Admission)
	set(&s.Hedge, b.Hedge)
	if b.MaxWaitMS != nil {
		s.MaxWait = time.Duration(*b.MaxWaitMS * float64(time.Millisecond))
	}
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// get answers GET /v1/admin/batching.
func (a *Admin) get(c *gin.Context) error {
	return writeJSON(c, newBatchingSettings(a.batching.Settings()))
}

// patch answers PATCH /v1/admin/batching with the new settings.
func (a *Admin) patch(c *gin.Context) error {
	var change BatchingSettings
	body := http.MaxBytesReader(c.Writer, c.Request.Body, 4<<10)
	if err := intake.ReadJSON(body, &change); err != nil {
		return intake.ReadError(err)
	}
	settings := a.batching.Settings()
	change.apply(&settings)
	if err := a.batching.Update(settings); err != nil {
		return &refersam.Error{Code: refersam.CodeInvalidRequest, Message: err.Error()}
	}
	return writeJSON(c, newBatchingSettings(settings))
}

// AdminReplica is the state of a model server.
type AdminReplica struct {
	Name     string      `json:"name"`
	Usable   bool        `json:"usable"`
	InFlight int         `json:"in_flight_batches"`
	Window   int         `json:"window_batches"`
	Rows     uint64      `json:"rows"`
	Failures uint64      `json:"failed_batches"`
	Paces    []AdminPace `json:"paces"`
}

// AdminPace is the estimated speed of a model on a model server: the time of a
// batch of each measured size, and the factor by which batches are later at most.
type AdminPace struct {
	Model string `json:"model"`
	// Usable reports that rows of the model are sent to the server; otherwise Cause
	// says why not.
	Usable bool        `json:"usable"`
	Cause  string      `json:"cause,omitempty"`
	Sizes  []AdminSize `json:"sizes"`
	Late   float64     `json:"late_ratio"`
}

// AdminSize is the time of a batch of one size: alone, and between two batches of
// a busy server. Batches counts the real batches that were measured; if it is 0,
// the times are estimated from blank rows and from other sizes.
type AdminSize struct {
	Rows    int     `json:"rows"`
	Alone   float64 `json:"alone_ms"`
	Spaced  float64 `json:"spaced_ms"`
	Batches int     `json:"batches"`
}

// replicas answers GET /v1/admin/replicas.
func (a *Admin) replicas(c *gin.Context) error {
	replicas := []AdminReplica{}
	for _, r := range a.batching.Snapshot().Replicas {
		one := AdminReplica{r.Name, r.Usable, r.InFlight, r.Window, r.Rows, r.Failures, []AdminPace{}}
		for _, p := range r.Paces {
			pace := AdminPace{p.Model, p.Serves, causeOf(p.Cause), []AdminSize{}, p.Late}
			for _, size := range p.Sizes {
				pace.Sizes = append(pace.Sizes, AdminSize{size.Rows, api.Milliseconds(size.Alone), api.Milliseconds(size.Spaced), size.Batches})
			}
			one.Paces = append(one.Paces, pace)
		}
		replicas = append(replicas, one)
	}
	return writeJSON(c, struct {
		Replicas []AdminReplica `json:"replicas"`
	}{replicas})
}

func causeOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
