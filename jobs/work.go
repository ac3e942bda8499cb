package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/refersam/refersam"
	riverqueue "github.com/riverqueue/river"
)

const (
	// maxFailures is how often an item is tried that ends in a fault of the
	// service.
	maxFailures = 4
	// maxAttempts is how often it is tried at all, those tries counted whose
	// process died: an item that kills every process must end too.
	maxAttempts = 50
)

// itemWorker does an item when River says so.
type itemWorker struct {
	riverqueue.WorkerDefaults[itemArgs]
	e    *Engine
	work Worker
}

// Work implements river.Worker.
func (w *itemWorker) Work(ctx context.Context, job *riverqueue.Job[itemArgs]) error {
	e := w.e
	item, failures, err := e.begin(ctx, job.Args, time.Now())
	if err != nil || item == nil {
		return err
	}
	if job.Attempt > maxAttempts {
		return e.fail(ctx, item, refersam.Errorf(refersam.CodeInternal, "Every try to do this ended with the end of the process that did it."))
	}
	if !time.Now().Before(item.Deadline) {
		return e.fail(ctx, item, refersam.Errorf(refersam.CodeDeadlineExceeded, "The item could not be done in time."))
	}
	// An item that ends at the stop is written all the same.
	try, cancel := context.WithDeadline(ctx, item.Deadline)
	defer cancel()
	result, err := w.work(try, item)
	if err == nil {
		return e.succeed(ctx, item, result)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return riverqueue.JobSnooze(0) // it was cancelled, or the process stops: River knows which
	}
	switch code := refersam.ErrorCode(err); code {
	case refersam.CodeOverloaded, refersam.CodeNotReady, refersam.CodeUnavailable:
		return riverqueue.JobSnooze(wait(err))
	case refersam.CodeDeadlineExceeded:
		if time.Now().Before(item.Deadline) { // this try's own
			return riverqueue.JobSnooze(wait(err))
		}
	case refersam.CodeUpstream, refersam.CodeInternal:
		if code == refersam.CodeInternal {
			e.log.Error("an item of a job failed", "request_id", item.RequestID, "job", item.Job, "item", item.Index, "error", err)
		}
		if failures+1 < maxFailures {
			if err := e.countFailure(ctx, item); err != nil {
				return err
			}
			return riverqueue.JobSnooze(time.Duration(1<<failures) * time.Second)
		}
	}
	return e.fail(ctx, item, err)
}

// wait is how long to wait after an error before the next try, a little longer
// by chance so that not all come back at once.
func wait(err error) time.Duration {
	least := time.Second
	var known *refersam.Error
	if errors.As(err, &known) {
		least = max(least, known.RetryAfter)
	}
	return least + rand.N(least)
}

// begin marks an item as running and returns it, or nil if it has ended.
func (e *Engine) begin(ctx context.Context, a itemArgs, now time.Time) (w *Work, failures int, err error) {
	w = &Work{Job: a.Job, Index: a.Index}
	err = e.state.InTx(ctx, func(tx *sql.Tx) error {
		if err := lock(ctx, tx, a.Job); err != nil {
			return err
		}
		var (
			before   Status
			deadline int64
		)
		err := tx.QueryRowContext(ctx, `SELECT i.status, i.client_id, i.request, COALESCE(i.picture, ''), i.bytes, i.deadline_us, i.failures, j.api_key, j.request_id
			FROM job_items i JOIN jobs j ON j.id = i.job WHERE i.job = $1 AND i.item = $2`, a.Job, a.Index).
			Scan(&before, &w.ID, &w.Request, &w.Picture, &w.Bytes, &deadline, &failures, &w.APIKey, &w.RequestID)
		if err != nil {
			return err
		}
		if before.Ended() {
			return errEnded
		}
		w.Deadline = fromMicros(deadline)
		if before == Running {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `UPDATE job_items SET status = $1 WHERE job = $2 AND item = $3`, Running, a.Job, a.Index); err != nil {
			return err
		}
		return e.started(ctx, tx, a.Job, now)
	})
	if errors.Is(err, ErrNotFound) || errors.Is(err, errEnded) {
		return nil, 0, nil
	}
	return w, failures, err
}

// errEnded says that an item has ended.
var errEnded = errors.New("the item has ended")

// started marks a job as running with its first item.
func (e *Engine) started(ctx context.Context, tx *sql.Tx, id string, now time.Time) error {
	var seq int64
	err := tx.QueryRowContext(ctx, `UPDATE jobs SET status = $1, started_us = $2, seq = seq + 1 WHERE id = $3 AND status = $4 RETURNING seq`,
		Running, micros(now), id, Queued).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return addEvent(ctx, tx, id, seq, ofJob, Running)
}

func (e *Engine) countFailure(ctx context.Context, w *Work) error {
	_, err := e.state.Writer().ExecContext(ctx, `UPDATE job_items SET failures = failures + 1 WHERE job = $1 AND item = $2`, w.Job, w.Index)
	return err
}

func (e *Engine) succeed(ctx context.Context, w *Work, r Result) error {
	return e.end(ctx, w, Succeeded, sql.NullString{String: r.Blob, Valid: true}, r.Header, nil)
}

func (e *Engine) fail(ctx context.Context, w *Work, cause error) error {
	p := Problem{Code: refersam.CodeInternal, Message: "The cause was logged under the id of the request."}
	var known *refersam.Error
	if errors.As(cause, &known) {
		p = Problem{known.Code, known.Message, known.Field}
	}
	problem, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return e.end(ctx, w, Failed, sql.NullString{}, nil, problem)
}

// end writes what came of an item, unless it has ended.
func (e *Engine) end(ctx context.Context, w *Work, status Status, result sql.NullString, header, problem []byte) error {
	// River ends ctx at the stop; what is done by then is worth keeping.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := e.state.InTx(ctx, func(tx *sql.Tx) error {
		if err := lock(ctx, tx, w.Job); err != nil {
			return err
		}
		changed, err := tx.ExecContext(ctx, `UPDATE job_items SET status = $1, result = $2, header = $3, problem = $4
			WHERE job = $5 AND item = $6 AND status IN ('queued', 'running')`, status, result, header, problem, w.Job, w.Index)
		if err != nil {
			return err
		}
		if n, err := changed.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return e.ended(ctx, tx, w.Job, []int{w.Index}, status, time.Now())
	})
	if errors.Is(err, ErrNotFound) {
		return nil // it was deleted meanwhile
	}
	return err
}
