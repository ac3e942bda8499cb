package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/refersam/refersam"
)

// JobItem is a row of job_items as a client sees it.
type JobItem struct {
	Index int
	// ID is the client's name for the item.
	ID     string
	Status JobStatus
	// Problem is the reason why the item failed, nil if it did not.
	Problem *JobProblem
	// Blob names the stored result, Bytes is its size, Header the HTTP header to
	// send with it.
	Blob   string
	Bytes  int64
	Header []byte
}

// JobProblem is a *refersam.Error as the database stores it.
type JobProblem struct {
	Code    refersam.Code `json:"code"`
	Message string        `json:"message"`
	Field   string        `json:"field,omitempty"`
}

// Err returns the problem as an error.
func (p *JobProblem) Err() error {
	return &refersam.Error{Code: p.Code, Message: p.Message, At: refersam.Named(p.Field)}
}

// JobWork is a row of job_items as the process that works on the item sees it.
type JobWork struct {
	// Job and Index name the item. APIKey and RequestID are its job's. Callers
	// that submit work leave these four empty.
	Job               string
	Index             int
	APIKey, RequestID string
	// ID is the client's name for the item.
	ID string
	// Request is opaque to packages store and jobs; only the worker reads it.
	Request []byte
	// Picture names an object that must stay until the job is deleted, "" for
	// none; Bytes is its size.
	Picture string
	Bytes   int64
	// Deadline is the time at which an item that has not succeeded fails.
	Deadline time.Time
	// Urgent work runs before all other work. It is not a column: package jobs
	// turns it into a priority of River.
	Urgent bool
}

// AddItems adds the queued items of a job; riverIDs are the ids of the River
// jobs that will run them.
func (tx *JobTx) AddItems(ctx context.Context, job string, items []JobWork, riverIDs []int64) error {
	for i := range items {
		w := &items[i]
		_, err := tx.tx.ExecContext(ctx, `INSERT INTO job_items (job, item, client_id, status, request, picture, bytes, deadline_us, river_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			job, i, w.ID, JobQueued, w.Request, sql.NullString{String: w.Picture, Valid: w.Picture != ""}, w.Bytes, micros(w.Deadline), riverIDs[i])
		if err != nil {
			return err
		}
	}
	return nil
}

// JobItem returns an item of a job of an API key. It is ErrNotFound if the key
// has no such job, the job has expired, or the job has no such item.
func (s *jobTables) JobItem(ctx context.Context, apiKey, job string, index int, now time.Time) (*JobItem, error) {
	var one int
	err := s.read.QueryRowContext(ctx, `SELECT 1 FROM jobs WHERE api_key = $1 AND id = $2 AND `+notExpired, apiKey, job, micros(now)).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	items, err := s.jobItems(ctx, job, index)
	if err == nil && len(items) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &items[0], nil
}

// jobItems returns one item of a job, or all items for a negative index.
func (s *jobTables) jobItems(ctx context.Context, job string, index int) ([]JobItem, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT item, client_id, status, COALESCE(result, ''),
		COALESCE((SELECT bytes FROM blobs WHERE name = result), 0), header, problem FROM job_items
		WHERE job = $1 AND ($2 < 0 OR item = $2) ORDER BY item`, job, index)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var items []JobItem
	for rows.Next() {
		var i JobItem
		var problem []byte
		if err := rows.Scan(&i.Index, &i.ID, &i.Status, &i.Blob, &i.Bytes, &i.Header, &problem); err != nil {
			return nil, err
		}
		if problem != nil {
			if err := json.Unmarshal(problem, &i.Problem); err != nil {
				return nil, err
			}
		}
		items = append(items, i)
	}
	return items, rows.Err()
}

// BeginItem marks an item as running and returns its work and the number of its
// failed tries. The first item that begins also marks the job as running. The
// work is nil if the item has ended or its job has been deleted.
func (s *jobTables) BeginItem(ctx context.Context, job string, index int, now time.Time) (w *JobWork, failures int, err error) {
	err = s.JobTx(ctx, func(tx *JobTx) error {
		if err := tx.Lock(ctx, job); err != nil {
			return err
		}
		w, failures, err = tx.beginItem(ctx, job, index, now)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return w, failures, nil
}

func (tx *JobTx) beginItem(ctx context.Context, job string, index int, now time.Time) (*JobWork, int, error) {
	var (
		w        = JobWork{Job: job, Index: index}
		before   JobStatus
		deadline int64
		failures int
	)
	err := tx.tx.QueryRowContext(ctx, `SELECT i.status, i.client_id, i.request, COALESCE(i.picture, ''), i.bytes, i.deadline_us, i.failures, j.api_key, j.request_id
		FROM job_items i JOIN jobs j ON j.id = i.job WHERE i.job = $1 AND i.item = $2`, job, index).
		Scan(&before, &w.ID, &w.Request, &w.Picture, &w.Bytes, &deadline, &failures, &w.APIKey, &w.RequestID)
	if err != nil {
		return nil, 0, err
	}
	w.Deadline = fromMicros(deadline)
	switch {
	case before.Ended():
		return nil, 0, nil
	case before == JobRunning:
		return &w, failures, nil
	}
	if _, err := tx.tx.ExecContext(ctx, `UPDATE job_items SET status = $1 WHERE job = $2 AND item = $3`, JobRunning, job, index); err != nil {
		return nil, 0, err
	}
	var seq int64
	err = tx.tx.QueryRowContext(ctx, `UPDATE jobs SET status = $1, started_us = $2, seq = seq + 1 WHERE id = $3 AND status = $4 RETURNING seq`,
		JobRunning, micros(now), job, JobQueued).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) { // another item has started the job
		return &w, failures, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return &w, failures, addEvent(ctx, tx.tx, job, seq, ofJob, JobRunning)
}

// CountItemFailure counts a failed try of an item.
func (s *jobTables) CountItemFailure(ctx context.Context, job string, index int) error {
	_, err := s.write.ExecContext(ctx, `UPDATE job_items SET failures = failures + 1 WHERE job = $1 AND item = $2`, job, index)
	return err
}

// ItemEnd is how an item ended: with a stored result and its header, or with a
// problem.
type ItemEnd struct {
	Status  JobStatus
	Blob    string // "" for none
	Header  []byte
	Problem *JobProblem
}

// EndItem stores how an item ended. It reports false, and changes nothing, if
// the item has ended before. The caller must hold the lock of the job and call
// CountEnded in the same transaction.
func (tx *JobTx) EndItem(ctx context.Context, job string, index int, end ItemEnd) (ended bool, err error) {
	var problem []byte
	if end.Problem != nil {
		if problem, err = json.Marshal(end.Problem); err != nil {
			return false, err
		}
	}
	n, err := changed(tx.tx.ExecContext(ctx, `UPDATE job_items SET status = $1, result = $2, header = $3, problem = $4
		WHERE job = $5 AND item = $6 AND status IN ('queued', 'running')`,
		end.Status, sql.NullString{String: end.Blob, Valid: end.Blob != ""}, end.Header, problem, job, index))
	return n > 0, err
}

// CancelItems gives all items of a job that have not ended the status
// JobCancelled, and returns their indexes and the ids of their River jobs. The
// caller must hold the lock of the job and call CountEnded in the same
// transaction.
func (tx *JobTx) CancelItems(ctx context.Context, job string) (items []int, riverIDs []int64, err error) {
	rows, err := tx.tx.QueryContext(ctx, `UPDATE job_items SET status = $1 WHERE job = $2 AND status IN ('queued', 'running') RETURNING item, river_id`,
		JobCancelled, job)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var item int
		var river int64
		if err := rows.Scan(&item, &river); err != nil {
			return nil, nil, err
		}
		items, riverIDs = append(items, item), append(riverIDs, river)
	}
	return items, riverIDs, rows.Err()
}
