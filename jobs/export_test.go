package jobs

import (
	"context"
	"testing"
	"time"

	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
	riverqueue "github.com/riverqueue/river"
)

// OpenAt is Open with a clock.
var OpenAt = open

// Duplicate makes River run an item n more times.
func (e *Engine) Duplicate(t *testing.T, job string, item, n int) {
	t.Helper()
	params := make([]riverqueue.InsertManyParams, n)
	for i := range params {
		params[i] = riverqueue.InsertManyParams{Args: itemArgs{job, item}, InsertOpts: itemOpts(false)}
	}
	err := e.state.JobTx(t.Context(), func(tx *store.JobTx) error {
		_, err := e.enqueue(t.Context(), tx, params)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// UnfinishedRiverJobs counts the River jobs of a kind, "item" or "webhook", that
// still run or have to run.
func (e *Engine) UnfinishedRiverJobs(t *testing.T, kind string) int64 {
	t.Helper()
	return storetest.Number(t, e.state, `SELECT COUNT(*) FROM river_job WHERE kind = $1
		AND (state IN ('available', 'scheduled', 'retryable', 'pending')
		OR state = 'running' AND CAST(metadata AS TEXT) NOT LIKE '%cancel_attempted_at%')`, kind)
}

// Kill acts as a process that dies when n items have begun: their River jobs
// stay running, and other processes see no sign of life of this one.
func (e *Engine) Kill(t *testing.T, work Worker, begun <-chan struct{}, n int) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	workers := riverqueue.NewWorkers()
	riverqueue.AddWorker(workers, &itemWorker{e: e, work: work})
	c, err := e.river.newRunner(&riverqueue.Config{
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
	// The items hang until the test ends. Only then can the client stop. Their
	// results change nothing, because other processes have ended the items.
	t.Cleanup(func() {
		stop, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := c.Stop(stop); err != nil {
			t.Error(err)
		}
	})
}
