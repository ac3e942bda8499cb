// Package jobs does work after its request has been answered. A job has items;
// each is done once, by whichever process gets to it, and survives the death of
// all of them. River (riverqueue.com) says when and by whom, on SQLite and on
// PostgreSQL; the tables of package store say what came of it.
//
// An item's end, the event that tells of it, the progress of its job and, with
// the last item, the webhook are written in one transaction, which changes
// nothing if the item has ended before: however often an item is tried, it ends
// once.
package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// Status says how far a job or an item is.
type Status string

// The statuses. A job has failed when one of its items has, and has succeeded
// when all have.
const (
	Queued    Status = "queued"
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
)

// Statuses are all there are.
var Statuses = []Status{Queued, Running, Succeeded, Failed, Cancelled}

// Ended reports whether the status is the last one.
func (s Status) Ended() bool { return s == Succeeded || s == Failed || s == Cancelled }

// Job is a piece of work.
type Job struct {
	ID, APIKey, Kind string
	// RequestID is that of the request that made it.
	RequestID string
	Status    Status
	// Total counts the items; the others those that have ended.
	Total, Succeeded, Failed, Cancelled int
	// Seq is the number of the last event.
	Seq int64
	// Started, Finished and Expires are zero until they are known.
	Created, Started, Finished, Expires time.Time
	// Items are there where a method says so.
	Items []Item
	// Webhook is nil without one, or where Items are not there.
	Webhook *Webhook
}

// Item is a part of a job.
type Item struct {
	Index int
	// ID is what the client calls it.
	ID     string
	Status Status
	// Problem is why it has failed.
	Problem *Problem
	// Blob names the object that has its result, of so many Bytes, for whose
	// reader Header is.
	Blob   string
	Bytes  int64
	Header []byte
}

// Problem is a *refersam.Error as it is kept.
type Problem struct {
	Code    refersam.Code `json:"code"`
	Message string        `json:"message"`
	Field   string        `json:"field,omitempty"`
}

// Err returns the problem as an error.
func (p *Problem) Err() error {
	return &refersam.Error{Code: p.Code, Message: p.Message, Field: p.Field}
}

// Submission is a job that is to be done.
type Submission struct {
	// ID is the job's; it is drawn if it is empty. To submit a job again under
	// the same ID gives the one that is there.
	ID, APIKey, Kind string
	// RequestID is that of the request that makes it.
	RequestID string
	Items     []Work
	// WebhookURL is where the end is told; "" for nowhere.
	WebhookURL string
}

// Work is what is to be done for one item.
type Work struct {
	// Job and Index are those of the item, APIKey and RequestID those of the
	// job; Submit sets them.
	Job               string
	Index             int
	APIKey, RequestID string
	// ID is what the client calls the item.
	ID string
	// Request is for the Worker, who alone knows what is in it.
	Request []byte
	// Picture names an object that must stay until the job is forgotten, "" for
	// none; Bytes is its size.
	Picture string
	Bytes   int64
	// Deadline is when the item fails if it has not succeeded.
	Deadline time.Time
	// Urgent says that it is done before all that is not.
	Urgent bool
}

// Result is what came of an item: an object that has been written, and what
// its reader must know besides.
type Result struct {
	Blob   string
	Header []byte
}

// A Worker does items. It may be called for the same item again, and at the
// same time, after a crash. Of its errors, overload and what is not available
// are tried again until the item's deadline, faults of the service a few times,
// and everything else is the item's problem.
type Worker func(ctx context.Context, w *Work) (Result, error)

// Config says how jobs are done.
type Config struct {
	// Concurrency is how many items are worked on at once by one gateway.
	// Default 8.
	Concurrency int `env:"REFERSAM_JOBS_CONCURRENCY"`
	// PerKey is how many items of one API key may wait or be worked on; more
	// are refused. Default 10000.
	PerKey int `env:"REFERSAM_JOBS_PER_KEY"`
	// Retention is how long a job and its results are kept after its end.
	// Default 24h.
	Retention time.Duration `env:"REFERSAM_JOBS_RETENTION"`

	// ItemTimeout bounds one try of an item, and Grace how long items may go on
	// after the stop. Both are the gateway's to say.
	ItemTimeout, Grace time.Duration
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Concurrency: 8, PerKey: 10_000, Retention: 24 * time.Hour, ItemTimeout: time.Minute, Grace: 20 * time.Second}
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	for _, positive := range []struct {
		name  string
		value int
	}{
		{"REFERSAM_JOBS_CONCURRENCY", c.Concurrency},
		{"REFERSAM_JOBS_PER_KEY", c.PerKey},
	} {
		if positive.value <= 0 {
			errs = append(errs, fmt.Errorf("%s is %d, allowed: 1 or more", positive.name, positive.value))
		}
	}
	if c.Retention <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_JOBS_RETENTION is %v, allowed: more than 0s", c.Retention))
	}
	return errors.Join(errs...)
}

// Engine takes jobs in, does them, and tells what became of them. Make one with
// Open. Its methods are safe for concurrent use, and may be called again after
// an error; what Submit has returned without one survives.
type Engine struct {
	cfg   Config
	state *store.Store
	river river
	name  string // tells this process from others
	post  Poster
	log   *slog.Logger
}

// Open makes an Engine, and the tables that River keeps in the database. Jobs
// can be submitted from then on; they are done while Run runs, here or
// elsewhere. post may be nil if there are no webhooks.
func Open(ctx context.Context, cfg Config, state *store.Store, post Poster, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, state: state, name: "gateway-" + strings.ToLower(rand.Text()), post: post, log: log}
	if err := state.Exclusively(ctx, e.migrate); err != nil {
		return nil, fmt.Errorf("the tables of jobs: %w", err)
	}
	var err error
	e.river, err = e.newRiver()
	return e, err
}

// NewID returns the ID of a new job.
func NewID() string { return "job_" + strings.ToLower(rand.Text()) }

// micros writes a time for the database; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
