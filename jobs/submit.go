package jobs

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/refersam/refersam"
	riverqueue "github.com/riverqueue/river"
)

// Submit takes a job in. It is a *refersam.Error with CodeQuotaExceeded when
// the key has too many items that have not ended. The job is returned with its
// items.
func (e *Engine) Submit(ctx context.Context, s Submission, now time.Time) (*Job, error) {
	if s.ID == "" {
		s.ID = NewID()
	}
	err := e.state.InTx(ctx, func(tx *sql.Tx) error { return e.submit(ctx, tx, &s, now) })
	if err != nil && !errors.Is(err, errKnown) {
		return nil, err
	}
	return e.Job(ctx, s.APIKey, s.ID)
}

// errKnown says that a job was submitted before.
var errKnown = errors.New("the job is known")

func (e *Engine) submit(ctx context.Context, tx *sql.Tx, s *Submission, now time.Time) error {
	// Whoever submits for the same key waits here: else all count the same items.
	_, err := tx.ExecContext(ctx, `INSERT INTO job_keys (api_key) VALUES ($1) ON CONFLICT (api_key) DO UPDATE SET api_key = excluded.api_key`, s.APIKey)
	if err != nil {
		return err
	}
	var open int
	err = tx.QueryRowContext(ctx, `SELECT CAST(COALESCE(SUM(total - succeeded - failed - cancelled), 0) AS BIGINT) FROM jobs
		WHERE api_key = $1 AND finished_us = 0`, s.APIKey).Scan(&open)
	if err != nil {
		return err
	}
	result, err := tx.ExecContext(ctx, `INSERT INTO jobs (id, api_key, request_id, kind, status, total, seq, created_us) VALUES ($1, $2, $3, $4, $5, $6, 1, $7)
		ON CONFLICT (id) DO NOTHING`, s.ID, s.APIKey, s.RequestID, s.Kind, Queued, len(s.Items), micros(now))
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, errKnown)
	}
	if open+len(s.Items) > e.cfg.PerKey {
		return &refersam.Error{
			Code:       refersam.CodeQuotaExceeded,
			Message:    "The API key has too many items that have not ended; wait until some have, or cancel jobs.",
			RetryAfter: 10 * time.Second,
		}
	}
	params := make([]riverqueue.InsertManyParams, len(s.Items))
	for i := range s.Items {
		params[i] = riverqueue.InsertManyParams{Args: itemArgs{s.ID, i}, InsertOpts: itemOpts(s.Items[i].Urgent)}
	}
	ids, err := e.insertTx(ctx, tx, params)
	if err != nil {
		return err
	}
	for i := range s.Items {
		w := &s.Items[i]
		_, err := tx.ExecContext(ctx, `INSERT INTO job_items (job, item, client_id, status, request, picture, bytes, deadline_us, river_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			s.ID, i, w.ID, Queued, w.Request, sql.NullString{String: w.Picture, Valid: w.Picture != ""}, w.Bytes, micros(w.Deadline), ids[i])
		if err != nil {
			return err
		}
	}
	if s.WebhookURL != "" {
		_, err := tx.ExecContext(ctx, `INSERT INTO job_webhooks (job, id, url, status) VALUES ($1, $2, $3, $4)`, s.ID, newMessageID(), s.WebhookURL, Pending)
		if err != nil {
			return err
		}
	}
	return addEvent(ctx, tx, s.ID, 1, ofJob, Queued)
}

// Cancel ends the items of a job that have not ended, and returns the job.
// What is being done is given up.
func (e *Engine) Cancel(ctx context.Context, apiKey, id string, now time.Time) (*Job, error) {
	err := e.state.InTx(ctx, func(tx *sql.Tx) error {
		if err := lockOwn(ctx, tx, apiKey, id); err != nil {
			return err
		}
		return e.cancel(ctx, tx, id, now)
	})
	if err != nil {
		return nil, err
	}
	return e.Job(ctx, apiKey, id)
}

func (e *Engine) cancel(ctx context.Context, tx *sql.Tx, id string, now time.Time) error {
	rows, err := tx.QueryContext(ctx, `UPDATE job_items SET status = $1 WHERE job = $2 AND status IN ('queued', 'running') RETURNING item, river_id`, Cancelled, id)
	if err != nil {
		return err
	}
	var items []int
	var inRiver []int64
	for rows.Next() {
		var item int
		var river int64
		if err := rows.Scan(&item, &river); err != nil {
			return errors.Join(err, rows.Close())
		}
		items, inRiver = append(items, item), append(inRiver, river)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(items) == 0 {
		return err
	}
	for _, river := range inRiver {
		if err := e.cancelTx(ctx, tx, river); err != nil {
			return err
		}
	}
	return e.ended(ctx, tx, id, items, Cancelled, now)
}

// Delete forgets a job, after it has cancelled what has not ended. Its objects
// are garbage then.
func (e *Engine) Delete(ctx context.Context, apiKey, id string, now time.Time) error {
	return e.state.InTx(ctx, func(tx *sql.Tx) error {
		if err := lockOwn(ctx, tx, apiKey, id); err != nil {
			return err
		}
		if err := e.cancel(ctx, tx, id, now); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM jobs WHERE id = $1`, id)
		return err
	})
}

// ended counts items as ended in a job's progress, with the events that tell
// of it, and ends the job with its last item. It is to be called in the
// transaction that has given the items their status.
func (e *Engine) ended(ctx context.Context, tx *sql.Tx, id string, items []int, status Status, now time.Time) error {
	column := map[Status]string{Succeeded: "succeeded", Failed: "failed", Cancelled: "cancelled"}[status]
	var j Job
	err := tx.QueryRowContext(ctx, `UPDATE jobs SET `+column+` = `+column+` + $1, seq = seq + $1 WHERE id = $2
		RETURNING total, succeeded, failed, cancelled, seq`, len(items), id).Scan(&j.Total, &j.Succeeded, &j.Failed, &j.Cancelled, &j.Seq)
	if err != nil {
		return err
	}
	for i, item := range items {
		if err := addEvent(ctx, tx, id, j.Seq-int64(len(items)-1-i), item, status); err != nil {
			return err
		}
	}
	if j.Succeeded+j.Failed+j.Cancelled < j.Total {
		return nil
	}
	final := Succeeded
	switch {
	case j.Failed > 0:
		final = Failed
	case j.Cancelled > 0:
		final = Cancelled
	}
	_, err = tx.ExecContext(ctx, `UPDATE jobs SET status = $1, seq = seq + 1, finished_us = $2, expires_us = $3 WHERE id = $4`,
		final, micros(now), micros(now.Add(e.cfg.Retention)), id)
	if err != nil {
		return err
	}
	if err := addEvent(ctx, tx, id, j.Seq+1, ofJob, final); err != nil {
		return err
	}
	return e.tell(ctx, tx, id)
}
