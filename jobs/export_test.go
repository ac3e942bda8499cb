package jobs

import (
	"context"
	"database/sql"
	"testing"
	"time"

	riverqueue "github.com/riverqueue/river"
)

// Duplicate has River do an item once more.
func (e *Engine) Duplicate(ctx context.Context, t *testing.T, w *Work) {
	var n int
	if err := e.state.Reader().QueryRowContext(ctx, `SELECT COUNT(*) FROM river_job WHERE kind = 'item'`).Scan(&n); err != nil {
		t.Error(err)
	}
	if n > 3 {
		return
	}
	err := e.state.InTx(ctx, func(tx *sql.Tx) error {
		_, err := e.insertTx(ctx, tx, []riverqueue.InsertManyParams{{Args: itemArgs{w.Job, w.Index}, InsertOpts: itemOpts(false)}})
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Outstanding counts the tries of webhooks that are still to be made.
func (e *Engine) Outstanding(t *testing.T) (n int) {
	t.Helper()
	err := e.state.Reader().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM river_job WHERE kind = 'webhook'
		AND state IN ('available', 'scheduled', 'retryable', 'pending')
		OR kind = 'webhook' AND state = 'running' AND CAST(metadata AS TEXT) NOT LIKE '%cancel_attempted_at%'`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Kill does what a process would that dies when n items have begun: they stay
// marked as running, and whoever watches the process sees it gone.
func (e *Engine) Kill(t *testing.T, work Worker, begun <-chan struct{}, n int) {
	t.Helper()
	ctx := context.Background()
	workers := riverqueue.NewWorkers()
	riverqueue.AddWorker(workers, &itemWorker{e: e, work: work})
	c, err := e.river.newWorker(&riverqueue.Config{
		ID: e.name, Workers: workers, JobTimeout: time.Hour, RescueStuckJobsAfter: 2 * time.Hour,
		Queues: map[string]riverqueue.QueueConfig{itemQueue: {MaxWorkers: n}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for range n {
		<-begun
	}
	// The items hang until the test ends; only then can the client stop, and what
	// they return changes nothing: others have done them.
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := c.Stop(stop); err != nil {
			t.Error(err)
		}
	})
}
