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

	"github.com/jackc/pgx/v5"
	riverqueue "github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
)

// river is River as an Engine uses it: it inserts in transactions of
// database/sql, and works with whatever suits the database.
type river struct {
	insert *riverqueue.Client[*sql.Tx]
	// newWorker makes a client that works, for one Run.
	newWorker func(*riverqueue.Config) (client, error)
}

// client is a River client that works.
type client interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	Stopped() <-chan struct{}
}

// itemArgs names an item that is to be done, webhookArgs a webhook that is to
// be told.
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

// The queues. Webhooks have one of their own: they wait for others' servers.
const (
	itemQueue      = "items"
	webhookQueue   = "webhooks"
	webhooksAtOnce = 16
)

// manyAttempts keeps River from giving anything up: when to stop trying is
// decided here.
const manyAttempts = math.MaxInt16

var webhookOpts = &riverqueue.InsertOpts{Queue: webhookQueue, MaxAttempts: manyAttempts}

// itemOpts have urgent items done before all others.
func itemOpts(urgent bool) *riverqueue.InsertOpts {
	opts := &riverqueue.InsertOpts{Queue: itemQueue, MaxAttempts: manyAttempts, Priority: 2}
	if urgent {
		opts.Priority = 1
	}
	return opts
}

// migrate brings River's tables up to date. Those of a newer program are an
// error, as with the other tables.
func (e *Engine) migrate(ctx context.Context) error {
	if pool := e.state.Pool(); pool != nil {
		return migrateWith(ctx, riverpgxv5.New(pool))
	}
	return migrateWith(ctx, riversqlite.New(e.state.Writer()))
}

func migrateWith[Tx any](ctx context.Context, driver riverdriver.Driver[Tx]) error {
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	there, err := migrator.ExistingVersions(ctx)
	if err != nil {
		return err
	}
	known := migrator.AllVersions()
	if len(there) > len(known) {
		return fmt.Errorf("they have version %d and this refersam knows up to %d: start the version that made them or a later one", len(there), len(known))
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

func (e *Engine) newRiver() (river, error) {
	quiet := &riverqueue.Config{Logger: slog.New(slog.DiscardHandler)}
	if pool := e.state.Pool(); pool != nil {
		insert, err := riverqueue.NewClient(riverdatabasesql.New(e.state.Writer()), quiet)
		return river{insert, func(cfg *riverqueue.Config) (client, error) { return newClient(riverpgxv5.New(pool), cfg) }}, err
	}
	insert, err := riverqueue.NewClient(riversqlite.New(e.state.Writer()), quiet)
	return river{insert, func(cfg *riverqueue.Config) (client, error) { return newClient(riversqlite.New(e.state.Writer()), cfg) }}, err
}

func newClient[Tx any](driver riverdriver.Driver[Tx], cfg *riverqueue.Config) (client, error) {
	return riverqueue.NewClient(driver, cfg)
}

// Run does jobs until ctx ends, and tells their ends in payload's words; items
// under way then have Config.Grace to finish, and are done by somebody else
// after that.
func (e *Engine) Run(ctx context.Context, work Worker, payload Payload) error {
	if e.state.Pool() == nil {
		owner, err := e.own(ctx)
		if owner == nil {
			return err
		}
		defer owner.Close()
		if err := e.reclaim(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	workers := riverqueue.NewWorkers()
	riverqueue.AddWorker(workers, &itemWorker{e: e, work: work})
	riverqueue.AddWorker(workers, &webhookWorker{e: e, payload: payload})
	c, err := e.river.newWorker(&riverqueue.Config{
		ID:      e.name,
		Logger:  slog.New(quiet{e.log.Handler()}),
		Workers: workers,
		Queues: map[string]riverqueue.QueueConfig{
			itemQueue:    {MaxWorkers: e.cfg.Concurrency},
			webhookQueue: {MaxWorkers: webhooksAtOnce},
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
	watching, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	var watch sync.WaitGroup
	if e.state.Pool() != nil {
		// Before the first item, or others would take it for that of a dead process.
		lockCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lockTimeout)
		lock, err := e.lockName(lockCtx)
		cancel()
		if err != nil {
			return fmt.Errorf("start the work on jobs: %w", err)
		}
		watch.Go(func() { e.watchOthers(watching, lock) })
	}
	if err := c.Start(context.WithoutCancel(ctx)); err != nil {
		release()
		watch.Wait()
		return fmt.Errorf("start the work on jobs: %w", err)
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.cfg.Grace+10*time.Second)
	defer cancel()
	err = c.Stop(stop)
	release()
	watch.Wait()
	return err
}

// ownInterval is how often a process asks whether the jobs of a folder have
// become free.
const ownInterval = 5 * time.Second

// own waits until this process does the jobs of the folder, or ctx ends, which
// is no error.
func (e *Engine) own(ctx context.Context) (*os.File, error) {
	for told := false; ; told = true {
		owner, err := e.state.OwnJobs()
		if owner != nil || err != nil {
			return owner, err
		}
		if !told {
			e.log.Info("another gateway does the jobs of this folder; this one takes them in, and does them when that one has gone")
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(ownInterval):
		}
	}
}

// reclaim makes what a process that died was working on available at once.
// Nobody else works on the folder.
func (e *Engine) reclaim(ctx context.Context) error {
	_, err := e.state.Writer().ExecContext(ctx, `UPDATE river_job SET state = 'available' WHERE state = 'running'`)
	return err
}

const (
	// lockClass tells the advisory locks of living processes from others'.
	lockClass = 0x7265_666a
	// watchInterval is how often a process looks for others that have died.
	watchInterval = 5 * time.Second
	// lockTimeout bounds taking the first lock, which nobody else wants.
	lockTimeout = 10 * time.Second
)

// watchOthers keeps a lock that PostgreSQL lets go of when this process dies,
// and makes what those work on who have none available again, until ctx ends.
// Whoever loses the lock though it lives finds its items done by others as well,
// of which one end counts.
func (e *Engine) watchOthers(ctx context.Context, lock *pgx.Conn) {
	for {
		var err error
		if lock == nil {
			lock, err = e.lockName(ctx)
		}
		if err == nil {
			err = e.watch(ctx, lock)
			_ = lock.Close(context.WithoutCancel(ctx)) // which lets the lock go
			lock = nil
		}
		if ctx.Err() != nil {
			return
		}
		e.log.Warn("the database does not say which gateways live; their items are done again when their time is over", "cause", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchInterval):
		}
	}
}

// lockName takes the lock of this process, on a connection of its own, with
// which it goes.
func (e *Engine) lockName(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, e.state.Pool().Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1, hashtext($2))`, lockClass, e.name); err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

// watch looks for dead processes until ctx ends, which is no error.
func (e *Engine) watch(ctx context.Context, conn *pgx.Conn) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		if err := e.reclaimFromDead(ctx, conn); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (e *Engine) reclaimFromDead(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT DISTINCT attempted_by[array_upper(attempted_by, 1)] FROM river_job WHERE state = 'running'`)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == e.name {
			continue
		}
		var dead bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext($2))`, lockClass, name).Scan(&dead); err != nil {
			return err
		}
		if !dead {
			continue
		}
		tag, err := conn.Exec(ctx, `UPDATE river_job SET state = 'available', scheduled_at = now()
			WHERE state = 'running' AND attempted_by[array_upper(attempted_by, 1)] = $1`, name)
		_, unlockErr := conn.Exec(ctx, `SELECT pg_advisory_unlock($1, hashtext($2))`, lockClass, name)
		if err := errors.Join(err, unlockErr); err != nil {
			return err
		}
		e.log.Info("took over from a gateway that died", "gateway", name, "items", tag.RowsAffected())
	}
	return nil
}

// insertTx has River do things once tx is committed, and returns their IDs.
func (e *Engine) insertTx(ctx context.Context, tx *sql.Tx, params []riverqueue.InsertManyParams) ([]int64, error) {
	inserted, err := e.river.insert.InsertManyTx(ctx, tx, params)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(inserted))
	for i, r := range inserted {
		ids[i] = r.Job.ID
	}
	return ids, nil
}

// cancelTx has River end what it was to do, or is doing.
func (e *Engine) cancelTx(ctx context.Context, tx *sql.Tx, id int64) error {
	_, err := e.river.insert.JobCancelTx(ctx, tx, id)
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil // it was done long ago
	}
	return err
}

// quiet lets River log what somebody should look at.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && q.Handler.Enabled(ctx, level)
}
