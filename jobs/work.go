package jobs

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
	riverqueue "github.com/riverqueue/river"
)

const (
	// maxFailures limits the tries of an item that end with a fault of the
	// service.
	maxFailures = 4
	// maxAttempts limits all tries of an item, also those that end with the death
	// of the process. Otherwise an item that kills every process would run
	// forever.
	maxAttempts = 50
	// endTimeout bounds storing the end of an item.
	endTimeout = 10 * time.Second
)

// itemWorker runs an item.
type itemWorker struct {
	riverqueue.WorkerDefaults[itemArgs]
	e    *Engine
	work Worker
}

// Work implements river.Worker.
func (w *itemWorker) Work(ctx context.Context, job *riverqueue.Job[itemArgs]) error {
	e, now := w.e, w.e.now()
	item, failures, err := e.state.BeginItem(ctx, job.Args.Job, job.Args.Index, now)
	if err != nil || item == nil {
		return err
	}
	if job.Attempt > maxAttempts {
		return e.fail(ctx, item, refersam.Errorf(refersam.CodeInternal, "The service stopped during each of %d tries of this item.", maxAttempts))
	}
	left := item.Deadline.Sub(now)
	if left <= 0 {
		return e.fail(ctx, item, refersam.Errorf(refersam.CodeDeadlineExceeded, "The item's deadline passed before it could run; send a later deadline."))
	}
	try, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	result, err := w.work(try, item)
	if err == nil {
		return e.end(ctx, item, store.ItemEnd{Status: Succeeded, Blob: result.Blob, Header: result.Header})
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return riverqueue.JobSnooze(0) // the item was cancelled or the process stops; River knows which
	}
	switch code := refersam.ErrorCode(err); code {
	case refersam.CodeOverloaded, refersam.CodeNotReady, refersam.CodeUnavailable:
		return riverqueue.JobSnooze(retryDelay(err))
	case refersam.CodeDeadlineExceeded:
		if e.now().Before(item.Deadline) { // only the deadline of this try has passed
			return riverqueue.JobSnooze(retryDelay(err))
		}
	case refersam.CodeUpstream, refersam.CodeInternal:
		if code == refersam.CodeInternal {
			e.log.Error("an item of a job failed", "request_id", item.RequestID, "job", item.Job, "item", item.Index, "error", err)
		}
		if failures+1 < maxFailures {
			if err := e.state.CountItemFailure(ctx, item.Job, item.Index); err != nil {
				return err
			}
			return riverqueue.JobSnooze(time.Duration(1<<failures) * time.Second)
		}
	}
	return e.fail(ctx, item, err)
}

// retryDelay is the wait after a failed try. A random part of up to the same
// length again keeps items that failed together from returning together.
func retryDelay(err error) time.Duration {
	least := time.Second
	var domain *refersam.Error
	if errors.As(err, &domain) {
		least = max(least, domain.RetryAfter)
	}
	return least + rand.N(least)
}

func (e *Engine) fail(ctx context.Context, w *Work, cause error) error {
	p := &Problem{Code: refersam.CodeInternal, Message: "An internal error occurred; the service's log has its cause under the id of the request."}
	var domain *refersam.Error
	if errors.As(cause, &domain) {
		p = &Problem{Code: domain.Code, Message: domain.Message, Field: domain.At.String()}
	}
	return e.end(ctx, w, store.ItemEnd{Status: Failed, Problem: p})
}

// end stores the end of an item. It changes nothing if the item has ended before
// or its job has been deleted.
func (e *Engine) end(ctx context.Context, w *Work, end store.ItemEnd) error {
	// River ends ctx when the process stops. The item's result is finished by
	// then, so it is stored all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := e.state.JobTx(ctx, func(tx *store.JobTx) error {
		if err := tx.Lock(ctx, w.Job); err != nil {
			return err
		}
		if ended, err := tx.EndItem(ctx, w.Job, w.Index, end); err != nil || !ended {
			return err
		}
		return e.countEnded(ctx, tx, w.Job, []int{w.Index}, end.Status, e.now())
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
