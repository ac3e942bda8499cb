// Package jobs runs work after its request has been answered. A job has items.
// Each item runs once, in whichever process gets to it, and survives the death
// of every process. River (riverqueue.com) decides when and where an item runs,
// on SQLite and on PostgreSQL. Package store holds the jobs and their results.
//
// One transaction stores the end of an item, the event for it, the progress of
// its job and, with the last item, the delivery of the webhook. The transaction
// changes nothing if the item has ended before. So an item ends once, however
// often it is tried.
package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/refersam/refersam/store"
	riverqueue "github.com/riverqueue/river"
)

// The records of jobs are rows of package store. With these names, callers of
// this package need not know that.
type (
	// Job is a job; see store.Job.
	Job = store.Job
	// Item is an item of a job; see store.JobItem.
	Item = store.JobItem
	// Work is an item as the Worker sees it; see store.JobWork.
	Work = store.JobWork
	// Event is a change of a status; see store.JobEvent.
	Event = store.JobEvent
	// Problem is why an item failed; see store.JobProblem.
	Problem = store.JobProblem
	// Status is the state of a job or an item; see store.JobStatus.
	Status = store.JobStatus
	// Webhook is the webhook of a job; see store.Webhook.
	Webhook = store.Webhook
	// WebhookStatus is the state of a delivery; see store.WebhookStatus.
	WebhookStatus = store.WebhookStatus
	// Secrets sign the webhooks of an API key; see store.WebhookSecrets.
	Secrets = store.WebhookSecrets
	// Backlog is the unfinished work of all API keys; see store.JobBacklog.
	Backlog = store.JobBacklog
)

// The statuses of a job and of an item. A job has failed if one of its items
// has failed, and has succeeded if all have.
const (
	Queued    = store.JobQueued
	Running   = store.JobRunning
	Succeeded = store.JobSucceeded
	Failed    = store.JobFailed
	Cancelled = store.JobCancelled
)

// Statuses lists every status.
var Statuses = []Status{Queued, Running, Succeeded, Failed, Cancelled}

// The statuses of a webhook.
const (
	Pending   = store.WebhookPending
	Delivered = store.WebhookDelivered
	GivenUp   = store.WebhookFailed
)

var (
	// ErrNotFound means that an API key has no such job, or a job no such item.
	ErrNotFound = store.ErrNotFound
	// ErrRunning means that a job has not ended.
	ErrRunning = errors.New("the job has not ended")
	// ErrNoWebhook means that a job has no webhook.
	ErrNoWebhook = errors.New("the job has no webhook")
)

// Submission is a new job.
type Submission struct {
	// ID is the job's id; Submit draws one if it is empty. To submit a job again
	// under the same ID returns the existing job.
	ID, APIKey, Kind string
	// RequestID is the id of the request that submits the job.
	RequestID string
	Items     []Work
	// WebhookURL receives the job's final state; "" for no webhook.
	WebhookURL string
}

// Result is the outcome of an item: an object that the Worker has written, and
// the HTTP header to send with it.
type Result struct {
	Blob   string
	Header []byte
}

// A Worker runs one item. After a crash it may run for the same item again,
// even at the same time. Errors of overload and of unavailable parts are retried
// until the item's deadline, faults of the service a few times. Every other
// error ends the item.
type Worker func(ctx context.Context, w *Work) (Result, error)

// Config sets how jobs run.
type Config struct {
	// Concurrency is the number of items that one gateway runs at once.
	// Default 8.
	Concurrency int `env:"REFERSAM_JOBS_CONCURRENCY"`
	// PerKey limits the items of one API key that have not ended. A submission
	// that would exceed it is refused. Default 10000.
	PerKey int `env:"REFERSAM_JOBS_PER_KEY"`
	// Retention is how long a job and its results stay after the job's end.
	// Default 24h.
	Retention time.Duration `env:"REFERSAM_JOBS_RETENTION"`

	// ItemTimeout bounds one try of an item, and Grace the time that items may
	// take after the stop. The gateway sets both.
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

// Engine accepts jobs, runs them, and reports their state. Open returns one. Its
// methods are safe for concurrent use, and may be called again after an error. A
// job survives if Submit returned it without an error.
type Engine struct {
	reader
	cfg   Config
	river river
	name  string // unique to this process
	post  Poster
	log   *slog.Logger
}

// Open returns an Engine, and creates or migrates River's tables in the
// database. The Engine accepts jobs at once; they run while Run runs, in this
// process or in another. post may be nil if no job has a webhook.
func Open(ctx context.Context, cfg Config, state *store.Store, post Poster, log *slog.Logger) (*Engine, error) {
	return open(ctx, cfg, state, post, log, nil)
}

// open is Open with a clock for tests; a nil clock is the system's.
func open(ctx context.Context, cfg Config, state *store.Store, post Poster, log *slog.Logger, clock func() time.Time) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{reader: reader{state, time.Now}, cfg: cfg, name: "gateway-" + strings.ToLower(rand.Text()), post: post, log: log}
	var test riverqueue.TestConfig
	if clock != nil {
		e.now, test.Time = clock, testClock(clock)
	}
	if err := state.Exclusively(ctx, e.migrate); err != nil {
		return nil, fmt.Errorf("migrate the tables of River: %w", err)
	}
	var err error
	e.river, err = newRiver(state, test)
	return e, err
}

// testClock makes River use the clock of a test.
type testClock func() time.Time

// Now implements rivertype.TimeGenerator.
func (c testClock) Now() time.Time { return c() }

// NowOrNil implements rivertype.TimeGenerator. The database uses the time that
// it returns instead of its own.
func (c testClock) NowOrNil() *time.Time {
	now := c()
	return &now
}

// NewID returns the ID of a new job.
func NewID() string { return "job_" + strings.ToLower(rand.Text()) }
