package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	"github.com/refersam/refersam/store"
	riverqueue "github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// river is River as an Engine uses it. It inserts in transactions of
// database/sql, and runs jobs with the driver of the database.
type river struct {
	insert *riverqueue.Client[*sql.Tx]
	// newRunner returns a client that runs jobs, for one call of Run.
	newRunner func(*riverqueue.Config) (runner, error)
}

// runner is a River client that runs jobs.
type runner interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	Stopped() <-chan struct{}
}

// itemArgs names an item, webhookArgs the job with the webhook.
type (
	itemArgs struct {
		Job   string `json:"job"`
		Index int    `json:"index"`
	}
	webhookArgs struct {
		Job string `json:"job"`
	}
)

func (itemArgs) Kind() string    { return "item" }
func (webhookArgs) Kind() string { return "webhook" }

// The queues. Webhooks have their own because they wait for other people's
// servers.
const (
	itemQueue          = "items"
	webhookQueue       = "webhooks"
	webhookConcurrency = 16
)

// unlimitedAttempts keeps River from giving up a job, because this package
// decides when to stop.
const unlimitedAttempts = math.MaxInt16

var webhookOpts = &riverqueue.InsertOpts{Queue: webhookQueue, MaxAttempts: unlimitedAttempts}

// itemOpts gives urgent items a higher priority than all others.
func itemOpts(urgent bool) *riverqueue.InsertOpts {
	opts := &riverqueue.InsertOpts{Queue: itemQueue, MaxAttempts: unlimitedAttempts, Priority: 2}
	if urgent {
		opts.Priority = 1
	}
	return opts
}

// migrate creates River's tables or migrates them. Tables of a newer program
// are an error, as in package store.
func (e *Engine) migrate(ctx context.Context) error {
	db, pool := e.state.River()
	if pool != nil {
		return migrateWith(ctx, riverpgxv5.New(pool))
	}
	return migrateWith(ctx, riversqlite.New(db))
}

func migrateWith[Tx any](ctx context.Context, driver riverdriver.Driver[Tx]) error {
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	current, err := migrator.ExistingVersions(ctx)
	if err != nil {
		return err
	}
	supported := migrator.AllVersions()
	if len(current) > len(supported) {
		return fmt.Errorf("the tables have version %d, but this refersam knows versions up to %d: start the version that migrated them, or a later one",
			len(current), len(supported))
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// newRiver connects River to the database. test has the clock of a test.
func newRiver(state *store.Store, test riverqueue.TestConfig) (river, error) {
	db, pool := state.River()
	inserting := &riverqueue.Config{Logger: slog.New(slog.DiscardHandler), Test: test}
	if pool != nil {
		insert, err := riverqueue.NewClient(riverdatabasesql.New(db), inserting)
		return river{insert, func(cfg *riverqueue.Config) (runner, error) { return newRunner(riverpgxv5.New(pool), cfg, test) }}, err
	}
	insert, err := riverqueue.NewClient(riversqlite.New(db), inserting)
	return river{insert, func(cfg *riverqueue.Config) (runner, error) { return newRunner(riversqlite.New(db), cfg, test) }}, err
}

func newRunner[Tx any](driver riverdriver.Driver[Tx], cfg *riverqueue.Config, test riverqueue.TestConfig) (runner, error) {
	cfg.Test = test
	return riverqueue.NewClient(driver, cfg)
}

// Run runs jobs until ctx ends, and sends payload to their webhooks. After that,
// running items have Config.Grace to finish; another process runs the rest.
func (e *Engine) Run(ctx context.Context, work Worker, payload Payload) error {
	// The work that Run starts outlives ctx until the grace is over.
	background := context.WithoutCancel(ctx)
	if !e.state.MultiGateway() {
		lock, err := e.acquireFolderLock(ctx)
		if lock == nil {
			return err
		}
		defer lock.Close()
		if err := e.state.ReleaseRunning(background); err != nil {
			return fmt.Errorf("release the items of the process before: %w", err)
		}
	}
	workers := riverqueue.NewWorkers()
	riverqueue.AddWorker(workers, &itemWorker{e: e, work: work})
	riverqueue.AddWorker(workers, &webhookWorker{e: e, payload: payload})
	c, err := e.river.newRunner(&riverqueue.Config{
		ID:      e.name,
		Logger:  slog.New(warnings{e.log.Handler()}),
		Workers: workers,
		Queues: map[string]riverqueue.QueueConfig{
			itemQueue:    {MaxWorkers: e.cfg.Concurrency},
			webhookQueue: {MaxWorkers: webhookConcurrency},
		},
		JobTimeout:                  e.cfg.ItemTimeout,
		RescueStuckJobsAfter:        e.cfg.ItemTimeout + 15*time.Second,
		SoftStopTimeout:             e.cfg.Grace,
		CompletedJobRetentionPeriod: time.Hour,
		CancelledJobRetentionPeriod: time.Hour,
	})
	if err != nil {
		return err
	}
	watching, stopWatching := context.WithCancel(background)
	var watch sync.WaitGroup
	defer func() {
		stopWatching()
		watch.Wait()
	}()
	if e.state.MultiGateway() {
		// Announced before the first item runs; otherwise other processes would
		// take this one for dead and run its items too.
		presence, err := e.state.AnnouncePresence(background, e.name)
		if err != nil {
			return fmt.Errorf("start running jobs: %w", err)
		}
		watch.Go(func() { e.watchOthers(watching, presence) })
	}
	if err := c.Start(background); err != nil {
		return fmt.Errorf("start running jobs: %w", err)
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(background, e.cfg.Grace+10*time.Second)
	defer cancel()
	return c.Stop(stop)
}

// folderLockInterval is the time between two tries to lock the folder.
const folderLockInterval = 5 * time.Second

// acquireFolderLock waits until this process holds the lock of the folder's
// jobs. If ctx ends first it returns nil without an error.
func (e *Engine) acquireFolderLock(ctx context.Context) (*os.File, error) {
	for logged := false; ; logged = true {
		lock, err := e.state.TryLockJobs()
		if lock != nil || err != nil {
			return lock, err
		}
		if !logged {
			e.log.Info("another gateway runs the jobs of this folder; this one accepts jobs, and runs them when the other has ended")
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(folderLockInterval):
		}
	}
}

// watchInterval is the time between two searches for dead processes.
const watchInterval = 5 * time.Second

// watchOthers keeps the presence of this process, and takes over the items of
// dead processes, until ctx ends. A living process that loses its presence may
// have its items run by another process too; the first end of an item counts.
func (e *Engine) watchOthers(ctx context.Context, presence *store.Presence) {
	for {
		var err error
		if presence == nil {
			presence, err = e.state.AnnouncePresence(ctx, e.name)
		}
		if err == nil {
			err = e.takeOver(ctx, presence)
			_ = presence.Close(context.WithoutCancel(ctx)) // also releases the lock
			presence = nil
		}
		if ctx.Err() != nil {
			return
		}
		e.log.Warn("the search for dead gateways failed; until it succeeds, items of dead gateways run again only after their timeout", "cause", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchInterval):
		}
	}
}

// takeOver searches for dead processes until ctx ends or the search fails.
func (e *Engine) takeOver(ctx context.Context, presence *store.Presence) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		released, err := presence.TakeOver(ctx)
		for _, r := range released {
			e.log.Info("took over the items of a dead gateway", "gateway", r.Process, "items", r.Jobs)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// enqueueItems makes River run the items of a job after tx is committed, and
// returns the ids of the River jobs.
func (e *Engine) enqueueItems(ctx context.Context, tx *store.JobTx, s *Submission) ([]int64, error) {
	params := make([]riverqueue.InsertManyParams, len(s.Items))
	for i := range s.Items {
		params[i] = riverqueue.InsertManyParams{Args: itemArgs{s.ID, i}, InsertOpts: itemOpts(s.Items[i].Urgent)}
	}
	return e.enqueue(ctx, tx, params)
}

func (e *Engine) enqueue(ctx context.Context, tx *store.JobTx, params []riverqueue.InsertManyParams) ([]int64, error) {
	inserted, err := e.river.insert.InsertManyTx(ctx, tx.River(), params)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(inserted))
	for i, r := range inserted {
		ids[i] = r.Job.ID
	}
	return ids, nil
}

// dequeue cancels a River job after tx is committed, also a running one.
func (e *Engine) dequeue(ctx context.Context, tx *store.JobTx, id int64) error {
	_, err := e.river.insert.JobCancelTx(ctx, tx.River(), id)
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil // River deletes finished jobs after an hour
	}
	return err
}

// warnings passes on River's warnings and errors only.
type warnings struct{ slog.Handler }

// Enabled implements slog.Handler.
func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}
