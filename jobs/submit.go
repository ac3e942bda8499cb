package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// Submit accepts a job and returns it with its items. It is a *refersam.Error
// with CodeQuotaExceeded if the API key has too many items that have not ended.
func (e *Engine) Submit(ctx context.Context, s Submission, now time.Time) (*Job, error) {
	if s.ID == "" {
		s.ID = NewID()
	}
	if err := e.state.JobTx(ctx, func(tx *store.JobTx) error { return e.submit(ctx, tx, &s, now) }); err != nil {
		return nil, err
	}
	return e.Job(ctx, s.APIKey, s.ID)
}

func (e *Engine) submit(ctx context.Context, tx *store.JobTx, s *Submission, now time.Time) error {
	open, err := tx.LockKey(ctx, s.APIKey)
	if err != nil {
		return err
	}
	// A job that was accepted before counts as open already, so the limit is
	// checked for new jobs only.
	added, err := tx.Add(ctx, s.ID, s.APIKey, s.RequestID, s.Kind, len(s.Items), now)
	if err != nil || !added {
		return err
	}
	if open+len(s.Items) > e.cfg.PerKey {
		return &refersam.Error{
			Code: refersam.CodeQuotaExceeded,
			Message: fmt.Sprintf("The API key has %d unfinished items and may have %d, so a job of %d is refused; wait for items to end, or cancel jobs.",
				open, e.cfg.PerKey, len(s.Items)),
			RetryAfter: 10 * time.Second,
		}
	}
	riverIDs, err := e.enqueueItems(ctx, tx, s)
	if err != nil {
		return err
	}
	if err := tx.AddItems(ctx, s.ID, s.Items, riverIDs); err != nil || s.WebhookURL == "" {
		return err
	}
	return tx.AddWebhook(ctx, s.ID, newMessageID(), s.WebhookURL)
}

// Cancel cancels the items of a job that have not ended, and returns the job.
// Running items are stopped.
func (e *Engine) Cancel(ctx context.Context, apiKey, id string, now time.Time) (*Job, error) {
	err := e.state.JobTx(ctx, func(tx *store.JobTx) error {
		if err := tx.LockOwn(ctx, apiKey, id, now); err != nil {
			return err
		}
		return e.cancel(ctx, tx, id, now)
	})
	if err != nil {
		return nil, err
	}
	return e.Job(ctx, apiKey, id)
}

func (e *Engine) cancel(ctx context.Context, tx *store.JobTx, id string, now time.Time) error {
	items, riverIDs, err := tx.CancelItems(ctx, id)
	if err != nil || len(items) == 0 {
		return err
	}
	for _, riverID := range riverIDs {
		if err := e.dequeue(ctx, tx, riverID); err != nil {
			return err
		}
	}
	return e.countEnded(ctx, tx, id, items, Cancelled, now)
}

// Delete cancels the items of a job that have not ended, and deletes the job.
// Its objects become garbage.
func (e *Engine) Delete(ctx context.Context, apiKey, id string, now time.Time) error {
	return e.state.JobTx(ctx, func(tx *store.JobTx) error {
		if err := tx.LockOwn(ctx, apiKey, id, now); err != nil {
			return err
		}
		if err := e.cancel(ctx, tx, id, now); err != nil {
			return err
		}
		return tx.Delete(ctx, id)
	})
}

// countEnded counts items as ended, and ends the job with its last item. It must
// run in the transaction that gave the items their status.
func (e *Engine) countEnded(ctx context.Context, tx *store.JobTx, id string, items []int, status Status, now time.Time) error {
	j, err := tx.CountEnded(ctx, id, items, status)
	if err != nil || j.Succeeded+j.Failed+j.Cancelled < j.Total {
		return err
	}
	final := Succeeded
	switch {
	case j.Failed > 0:
		final = Failed
	case j.Cancelled > 0:
		final = Cancelled
	}
	if err := tx.Finish(ctx, id, final, now, now.Add(e.cfg.Retention)); err != nil {
		return err
	}
	return e.enqueueWebhook(ctx, tx, id)
}
