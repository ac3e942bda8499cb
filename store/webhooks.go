package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// WebhookStatus is the state of a webhook's delivery.
type WebhookStatus string

// The statuses. A failed webhook has been given up.
const (
	WebhookPending   WebhookStatus = "pending"
	WebhookDelivered WebhookStatus = "delivered"
	WebhookFailed    WebhookStatus = "failed"
)

// Webhook is a row of job_webhooks: the address that receives the final state
// of a job.
type Webhook struct {
	// ID is the message id. It is the same in every try.
	ID, URL  string
	Status   WebhookStatus
	Attempts int
	// Tried is the time of the last try, zero if there was none. LastError is
	// why that try failed.
	Tried     time.Time
	LastError string
}

// AddWebhook adds a pending webhook to a job.
func (tx *JobTx) AddWebhook(ctx context.Context, job, id, url string) error {
	_, err := tx.tx.ExecContext(ctx, `INSERT INTO job_webhooks (job, id, url, status) VALUES ($1, $2, $3, $4)`, job, id, url, WebhookPending)
	return err
}

// webhook returns the webhook of a job, or nil if the job has none.
func (s *jobTables) webhook(ctx context.Context, job string) (*Webhook, error) {
	var w Webhook
	var tried int64
	err := s.read.QueryRowContext(ctx, `SELECT id, url, status, attempts, tried_us, last_error FROM job_webhooks WHERE job = $1`, job).
		Scan(&w.ID, &w.URL, &w.Status, &w.Attempts, &tried, &w.LastError)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w.Tried = fromMicros(tried)
	return &w, nil
}

// WebhookDelivery returns the id of the River job that delivers the webhook of a
// job, 0 if none was scheduled yet. A job without a webhook is ErrNotFound.
func (tx *JobTx) WebhookDelivery(ctx context.Context, job string) (riverID int64, err error) {
	err = tx.tx.QueryRowContext(ctx, `SELECT river_id FROM job_webhooks WHERE job = $1`, job).Scan(&riverID)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, ErrNotFound
	}
	return riverID, err
}

// SetWebhookDelivery stores the id of the River job that delivers the webhook of
// a job.
func (tx *JobTx) SetWebhookDelivery(ctx context.Context, job string, riverID int64) error {
	_, err := tx.tx.ExecContext(ctx, `UPDATE job_webhooks SET river_id = $1 WHERE job = $2`, riverID, job)
	return err
}

// ResetWebhook makes the webhook of a job pending again, without tries. A job
// without a webhook is ErrNotFound.
func (tx *JobTx) ResetWebhook(ctx context.Context, job string) error {
	return orNotFound(changed(tx.tx.ExecContext(ctx, `UPDATE job_webhooks SET status = $1, attempts = 0, last_error = '' WHERE job = $2`, WebhookPending, job)))
}

// RecordWebhookTry stores the outcome of a try that the River job riverID made.
// It changes nothing if another delivery has replaced that one meanwhile.
func (s *jobTables) RecordWebhookTry(ctx context.Context, job string, riverID int64, w Webhook) error {
	// Rows from before schema 6 have no id of a River job, but 0.
	_, err := s.write.ExecContext(ctx, `UPDATE job_webhooks SET status = $1, attempts = $2, tried_us = $3, last_error = $4 WHERE job = $5 AND river_id IN ($6, 0)`,
		w.Status, w.Attempts, micros(w.Tried), w.LastError, job, riverID)
	return err
}

// WebhookSecrets are the secrets that sign the webhooks of an API key.
type WebhookSecrets struct {
	Current, Previous string
	// PreviousUntil is the time until which Previous signs too.
	PreviousUntil time.Time
}

// WebhookSecrets returns the secrets of an API key. A key without secrets gets
// fresh as its current one.
func (s *jobTables) WebhookSecrets(ctx context.Context, apiKey, fresh string, now time.Time) (*WebhookSecrets, error) {
	_, err := s.write.ExecContext(ctx, `INSERT INTO webhook_secrets (api_key, secret) VALUES ($1, $2) ON CONFLICT (api_key) DO NOTHING`, apiKey, fresh)
	if err != nil {
		return nil, err
	}
	secrets, err := scanSecrets(s.read.QueryRowContext(ctx, `SELECT secret, previous, previous_until_us FROM webhook_secrets WHERE api_key = $1`, apiKey))
	if err == nil && !now.Before(secrets.PreviousUntil) {
		secrets.Previous, secrets.PreviousUntil = "", time.Time{}
	}
	return secrets, err
}

// RotateWebhookSecret makes fresh the current secret of an API key. The secret
// before it signs too until previousUntil.
func (s *jobTables) RotateWebhookSecret(ctx context.Context, apiKey, fresh string, previousUntil time.Time) (*WebhookSecrets, error) {
	// One statement changes and returns the secrets. If a second statement read
	// them and failed, the caller would repeat the rotation and thereby rotate
	// away a secret that no client has seen.
	return scanSecrets(s.write.QueryRowContext(ctx, `INSERT INTO webhook_secrets (api_key, secret) VALUES ($1, $2)
		ON CONFLICT (api_key) DO UPDATE SET previous = webhook_secrets.secret, previous_until_us = $3, secret = excluded.secret
		RETURNING secret, previous, previous_until_us`, apiKey, fresh, micros(previousUntil)))
}

func scanSecrets(row *sql.Row) (*WebhookSecrets, error) {
	var secrets WebhookSecrets
	var until int64
	if err := row.Scan(&secrets.Current, &secrets.Previous, &until); err != nil {
		return nil, err
	}
	secrets.PreviousUntil = fromMicros(until)
	return &secrets, nil
}
