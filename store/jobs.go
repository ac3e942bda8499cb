package store

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"time"
)

// JobStatus is the state of a job or of one of its items.
type JobStatus string

// The statuses. A job or item in one of the last three has ended and never
// changes its status again.
const (
	JobQueued    JobStatus = "queued"
	JobRunning   JobStatus = "running"
	JobSucceeded JobStatus = "succeeded"
	JobFailed    JobStatus = "failed"
	JobCancelled JobStatus = "cancelled"
)

// Ended reports whether the status is final.
func (s JobStatus) Ended() bool { return s == JobSucceeded || s == JobFailed || s == JobCancelled }

// Job is a row of jobs: a number of items that one request submitted.
type Job struct {
	ID, APIKey, Kind string
	// RequestID is the id of the request that submitted the job.
	RequestID string
	Status    JobStatus
	// Total is the number of items. Succeeded, Failed and Cancelled count the
	// items that have ended.
	Total, Succeeded, Failed, Cancelled int
	// Seq is the number of the job's last event.
	Seq int64
	// Started, Finished and Expires are zero until they are known.
	Created, Started, Finished, Expires time.Time
	// Items and Webhook are set only by methods that say so. Webhook is nil if
	// the job has none.
	Items   []JobItem
	Webhook *Webhook
}

const jobColumns = `id, api_key, request_id, kind, status, total, succeeded, failed, cancelled, seq, created_us, started_us, finished_us, expires_us`

func scanJob(row interface{ Scan(...any) error }) (*Job, error) {
	var (
		j                                   Job
		created, started, finished, expires int64
	)
	err := row.Scan(&j.ID, &j.APIKey, &j.RequestID, &j.Kind, &j.Status, &j.Total, &j.Succeeded, &j.Failed, &j.Cancelled, &j.Seq, &created, &started, &finished, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	j.Created, j.Started, j.Finished, j.Expires = fromMicros(created), fromMicros(started), fromMicros(finished), fromMicros(expires)
	return &j, nil
}

// notExpired is an SQL condition on a row of jobs: the job is still visible at
// the time $3. A job with a pending webhook stays visible until the webhook is
// delivered or given up.
const notExpired = `(expires_us = 0 OR expires_us > $3 OR EXISTS (SELECT 1 FROM job_webhooks w WHERE w.job = jobs.id AND w.status = 'pending'))`

// Job returns a job of an API key with its items and its webhook, or
// ErrNotFound if the key has no such job or the job has expired.
func (s *jobTables) Job(ctx context.Context, apiKey, id string, now time.Time) (*Job, error) {
	j, err := scanJob(s.read.QueryRowContext(ctx, `SELECT `+jobColumns+` FROM jobs WHERE api_key = $1 AND id = $2 AND `+notExpired, apiKey, id, micros(now)))
	if err != nil {
		return nil, err
	}
	if j.Items, err = s.jobItems(ctx, id, -1); err != nil {
		return nil, err
	}
	j.Webhook, err = s.webhook(ctx, id)
	return j, err
}

// JobKey returns the API key of a job, expired or not, or ErrNotFound.
func (s *jobTables) JobKey(ctx context.Context, id string) (apiKey string, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT api_key FROM jobs WHERE id = $1`, id).Scan(&apiKey)
	if errors.Is(err, sql.ErrNoRows) {
		return "", ErrNotFound
	}
	return apiKey, err
}

// Jobs returns at most limit jobs of an API key without items and webhooks, the
// newest first. The list starts with the jobs older than after, or with the
// newest job if after is nil. An empty status selects all jobs.
func (s *jobTables) Jobs(ctx context.Context, apiKey string, after *Job, status JobStatus, limit int, now time.Time) ([]*Job, error) {
	created, id := int64(1)<<62, ""
	if after != nil {
		created, id = micros(after.Created), after.ID
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+jobColumns+` FROM jobs
		WHERE api_key = $1 AND ($2 = '' OR status = $2) AND `+notExpired+` AND (created_us < $4 OR created_us = $4 AND id < $5)
		ORDER BY created_us DESC, id DESC LIMIT $6`, apiKey, string(status), micros(now), created, id, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var jobs []*Job
	for rows.Next() {
		j, err := scanJob(rows)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	return jobs, rows.Err()
}

// JobBacklog is the unfinished work of all API keys.
type JobBacklog struct {
	// Items counts the queued and the running items, Webhooks the webhooks of
	// every status.
	Items    map[JobStatus]int64
	Webhooks map[WebhookStatus]int64
	// Oldest is the submission time of the oldest job without a started item,
	// zero if there is none.
	Oldest time.Time
}

// JobBacklog counts the unfinished work.
func (s *jobTables) JobBacklog(ctx context.Context) (JobBacklog, error) {
	b := JobBacklog{
		Items:    map[JobStatus]int64{JobQueued: 0, JobRunning: 0},
		Webhooks: map[WebhookStatus]int64{WebhookPending: 0, WebhookDelivered: 0, WebhookFailed: 0},
	}
	items, err := countByStatus[JobStatus](ctx, s.read, `SELECT status, COUNT(*) FROM job_items WHERE status IN ('queued', 'running') GROUP BY status`)
	if err != nil {
		return b, err
	}
	webhooks, err := countByStatus[WebhookStatus](ctx, s.read, `SELECT status, COUNT(*) FROM job_webhooks GROUP BY status`)
	if err != nil {
		return b, err
	}
	maps.Copy(b.Items, items)
	maps.Copy(b.Webhooks, webhooks)
	var oldest int64
	err = s.read.QueryRowContext(ctx, `SELECT COALESCE(MIN(created_us), 0) FROM jobs WHERE status = 'queued'`).Scan(&oldest)
	b.Oldest = fromMicros(oldest)
	return b, err
}

func countByStatus[S ~string](ctx context.Context, db *sql.DB, query string) (map[S]int64, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := make(map[S]int64)
	for rows.Next() {
		var status S
		var n int64
		if err := rows.Scan(&status, &n); err != nil {
			return nil, err
		}
		counts[status] = n
	}
	return counts, rows.Err()
}

// pendingWebhookRetention is how long after its expiry a job with a pending
// webhook stays: twice as long as package jobs retries a webhook.
const pendingWebhookRetention = 7 * 24 * time.Hour

// DeleteExpiredJobs deletes the jobs that have expired, and returns their
// number. A job with a pending webhook stays for another week. The objects of a
// deleted job become garbage.
func (s *jobTables) DeleteExpiredJobs(ctx context.Context, now time.Time) (int64, error) {
	return changed(s.write.ExecContext(ctx, `DELETE FROM jobs WHERE expires_us > 0 AND (expires_us <= $1
		OR expires_us <= $2 AND NOT EXISTS (SELECT 1 FROM job_webhooks w WHERE w.job = jobs.id AND w.status = 'pending'))`,
		micros(now.Add(-pendingWebhookRetention)), micros(now)))
}

// JobTx is a transaction that changes jobs. River inserts and cancels its own
// jobs in the same transaction, see JobTx.River.
type JobTx struct{ tx *sql.Tx }

// JobTx runs f in a transaction, and commits it if f returns nil.
func (s *jobTables) JobTx(ctx context.Context, f func(tx *JobTx) error) error {
	return s.inTx(ctx, func(tx *sql.Tx) error { return f(&JobTx{tx}) })
}

// LockKey makes other submissions of the API key wait until tx ends, and
// returns the number of the key's items that have not ended. Without the lock,
// two submissions could count the same items and exceed the key's limit
// together.
func (tx *JobTx) LockKey(ctx context.Context, apiKey string) (open int, err error) {
	_, err = tx.tx.ExecContext(ctx, `INSERT INTO job_keys (api_key) VALUES ($1) ON CONFLICT (api_key) DO UPDATE SET api_key = excluded.api_key`, apiKey)
	if err != nil {
		return 0, err
	}
	err = tx.tx.QueryRowContext(ctx, `SELECT CAST(COALESCE(SUM(total - succeeded - failed - cancelled), 0) AS BIGINT) FROM jobs
		WHERE api_key = $1 AND finished_us = 0`, apiKey).Scan(&open)
	return open, err
}

// Lock keeps other transactions from changing a job until tx ends. A
// transaction that changes items must lock their job first; in another order,
// two transactions could deadlock. Without such a job it is ErrNotFound.
func (tx *JobTx) Lock(ctx context.Context, id string) error {
	return orNotFound(changed(tx.tx.ExecContext(ctx, `UPDATE jobs SET seq = seq WHERE id = $1`, id)))
}

// LockOwn is Lock for a job of an API key. A job that belongs to another key or
// has expired is ErrNotFound.
func (tx *JobTx) LockOwn(ctx context.Context, apiKey, id string, now time.Time) error {
	return orNotFound(changed(tx.tx.ExecContext(ctx, `UPDATE jobs SET seq = seq WHERE api_key = $1 AND id = $2 AND `+notExpired, apiKey, id, micros(now))))
}

// Add adds a queued job of total items, with its first event. It reports false
// if a job with this ID exists.
func (tx *JobTx) Add(ctx context.Context, id, apiKey, requestID, kind string, total int, now time.Time) (added bool, err error) {
	n, err := changed(tx.tx.ExecContext(ctx, `INSERT INTO jobs (id, api_key, request_id, kind, status, total, seq, created_us) VALUES ($1, $2, $3, $4, $5, $6, 1, $7)
		ON CONFLICT (id) DO NOTHING`, id, apiKey, requestID, kind, JobQueued, total, micros(now)))
	if err != nil || n == 0 {
		return false, err
	}
	return true, addEvent(ctx, tx.tx, id, 1, ofJob, JobQueued)
}

// CountEnded counts items of a job as ended with a status, and adds an event
// for each. The caller must have given them the status in the same transaction.
// It returns the job's counters after the change.
func (tx *JobTx) CountEnded(ctx context.Context, id string, items []int, status JobStatus) (*Job, error) {
	column := map[JobStatus]string{JobSucceeded: "succeeded", JobFailed: "failed", JobCancelled: "cancelled"}[status]
	j := &Job{ID: id}
	err := tx.tx.QueryRowContext(ctx, `UPDATE jobs SET `+column+` = `+column+` + $1, seq = seq + $1 WHERE id = $2
		RETURNING total, succeeded, failed, cancelled, seq`, len(items), id).Scan(&j.Total, &j.Succeeded, &j.Failed, &j.Cancelled, &j.Seq)
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		if err := addEvent(ctx, tx.tx, id, j.Seq-int64(len(items)-1-i), item, status); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// Finish gives a job its final status, with the event for it.
func (tx *JobTx) Finish(ctx context.Context, id string, status JobStatus, now, expires time.Time) error {
	var seq int64
	err := tx.tx.QueryRowContext(ctx, `UPDATE jobs SET status = $1, seq = seq + 1, finished_us = $2, expires_us = $3 WHERE id = $4 RETURNING seq`,
		status, micros(now), micros(expires), id).Scan(&seq)
	if err != nil {
		return err
	}
	return addEvent(ctx, tx.tx, id, seq, ofJob, status)
}

// Finished reports whether a job has its final status.
func (tx *JobTx) Finished(ctx context.Context, id string) (bool, error) {
	var finished int64
	err := tx.tx.QueryRowContext(ctx, `SELECT finished_us FROM jobs WHERE id = $1`, id).Scan(&finished)
	return finished != 0, err
}

// Delete deletes a job with its items, events and webhook. Its objects become
// garbage.
func (tx *JobTx) Delete(ctx context.Context, id string) error {
	_, err := tx.tx.ExecContext(ctx, `DELETE FROM jobs WHERE id = $1`, id)
	return err
}

// ofJob is the item of an event that is about the whole job.
const ofJob = -1

// JobEvent is a row of job_events: a job or one of its items has got another
// status.
type JobEvent struct {
	// Seq numbers the events of a job from 1, without gaps.
	Seq int64
	// Item is the index of the item, negative for the job itself.
	Item   int
	Status JobStatus
}

func addEvent(ctx context.Context, tx *sql.Tx, job string, seq int64, item int, status JobStatus) error {
	kind := "item"
	if item == ofJob {
		kind = "job"
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO job_events (job, seq, kind, item, status) VALUES ($1, $2, $3, $4, $5)`, job, seq, kind, item, status)
	return err
}

// JobEvents returns at most limit events of a job in order, beginning after the
// event with the number after.
func (s *jobTables) JobEvents(ctx context.Context, job string, after int64, limit int) ([]JobEvent, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT seq, item, status FROM job_events WHERE job = $1 AND seq > $2 ORDER BY seq LIMIT $3`, job, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var events []JobEvent
	for rows.Next() {
		var e JobEvent
		if err := rows.Scan(&e.Seq, &e.Item, &e.Status); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, rows.Err()
}
