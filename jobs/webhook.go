package jobs

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	riverqueue "github.com/riverqueue/river"
)

// Poster sends webhooks. It must send them nowhere but to where the operator
// lets it.
type Poster interface {
	// Post returns the status that was answered, and how long to wait before
	// the next try if the answer says so.
	Post(ctx context.Context, url string, header http.Header, body []byte) (status int, retryAfter time.Duration, err error)
}

// WebhookStatus says how far the telling of a job's end is.
type WebhookStatus string

// The statuses of a webhook.
const (
	Pending   WebhookStatus = "pending"
	Delivered WebhookStatus = "delivered"
	GivenUp   WebhookStatus = "failed"
)

// Webhook tells a job's end.
type Webhook struct {
	// ID is the same at every try.
	ID, URL  string
	Status   WebhookStatus
	Attempts int
	// Tried is when it was last tried, zero for never, and LastError why that
	// did not succeed.
	Tried     time.Time
	LastError string
}

func newMessageID() string { return "msg_" + strings.ToLower(rand.Text()) }

func (e *Engine) webhook(ctx context.Context, job string) (*Webhook, error) {
	var w Webhook
	var tried int64
	err := e.state.Reader().QueryRowContext(ctx, `SELECT id, url, status, attempts, tried_us, last_error FROM job_webhooks WHERE job = $1`, job).
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

// tell has a job's end told, in the transaction that ends it. What was to tell
// it before does not any more: however often a client wants to be told again,
// it is told once for that.
func (e *Engine) tell(ctx context.Context, tx *sql.Tx, job string) error {
	var before int64
	err := tx.QueryRowContext(ctx, `SELECT river_id FROM job_webhooks WHERE job = $1`, job).Scan(&before)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if before != 0 {
		if err := e.cancelTx(ctx, tx, before); err != nil {
			return err
		}
	}
	ids, err := e.insertTx(ctx, tx, []riverqueue.InsertManyParams{{Args: webhookArgs{job}, InsertOpts: webhookOpts}})
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE job_webhooks SET river_id = $1 WHERE job = $2`, ids[0], job)
	return err
}

// Redeliver has the end of a job told again, whatever came of it before. It is
// ErrNoWebhook if the job has none, and ErrRunning if it has not ended.
func (e *Engine) Redeliver(ctx context.Context, apiKey, id string) (*Job, error) {
	err := e.state.InTx(ctx, func(tx *sql.Tx) error {
		if err := lockOwn(ctx, tx, apiKey, id); err != nil {
			return err
		}
		var finished int64
		if err := tx.QueryRowContext(ctx, `SELECT finished_us FROM jobs WHERE id = $1`, id).Scan(&finished); err != nil {
			return err
		}
		if finished == 0 {
			return ErrRunning
		}
		result, err := tx.ExecContext(ctx, `UPDATE job_webhooks SET status = $1, attempts = 0, last_error = '' WHERE job = $2`, Pending, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, ErrNoWebhook)
		}
		return e.tell(ctx, tx, id)
	})
	if err != nil {
		return nil, err
	}
	return e.Job(ctx, apiKey, id)
}

// ErrRunning says that a job has not ended, ErrNoWebhook that its end is told
// nowhere.
var (
	ErrRunning   = errors.New("the job has not ended")
	ErrNoWebhook = errors.New("the job has no webhook")
)

// schedule is how long to wait after each try, as Standard Webhooks recommends.
// After the last one a webhook is given up.
var schedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// postTimeout bounds one try.
const postTimeout = 20 * time.Second

// webhookWorker tells an end when River says so.
type webhookWorker struct {
	riverqueue.WorkerDefaults[webhookArgs]
	e       *Engine
	payload Payload
}

// Work implements river.Worker.
func (w *webhookWorker) Work(ctx context.Context, job *riverqueue.Job[webhookArgs]) error {
	e, id := w.e, job.Args.Job
	var key string
	err := e.state.Reader().QueryRowContext(ctx, `SELECT api_key FROM jobs WHERE id = $1`, id).Scan(&key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	j, err := e.Job(ctx, key, id)
	if err != nil || j.Webhook == nil || j.Webhook.Status != Pending {
		return err
	}
	status, retryAfter, err := e.send(ctx, j, w.payload)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now, tried := time.Now(), j.Webhook.Attempts+1
	verdict, said := Pending, ""
	switch {
	case err != nil:
		said = err.Error()
	case status/100 == 2:
		verdict = Delivered
	default:
		said = fmt.Sprintf("the answer had status %d", status)
	}
	if status == http.StatusGone || verdict == Pending && tried > len(schedule) {
		verdict = GivenUp
	}
	// Unless another has been set to tell it again meanwhile; 0 is from before
	// that was kept.
	_, err = e.state.Writer().ExecContext(ctx, `UPDATE job_webhooks SET status = $1, attempts = $2, tried_us = $3, last_error = $4 WHERE job = $5 AND river_id IN ($6, 0)`,
		verdict, tried, micros(now), said, id, job.ID)
	if err != nil || verdict != Pending {
		return err
	}
	return riverqueue.JobSnooze(max(schedule[tried-1], min(retryAfter, 24*time.Hour)))
}

// Payload writes what is told of a job that has ended.
type Payload func(j *Job) ([]byte, error)

func (e *Engine) send(ctx context.Context, j *Job, payload Payload) (status int, retryAfter time.Duration, err error) {
	if e.post == nil {
		return 0, 0, errors.New("webhooks are switched off")
	}
	body, err := payload(j)
	if err != nil {
		return 0, 0, err
	}
	secrets, err := e.Secrets(ctx, j.APIKey, time.Now())
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	header, err := sign(j.Webhook.ID, body, secrets, time.Now())
	if err != nil {
		return 0, 0, err
	}
	return e.post.Post(ctx, j.Webhook.URL, header, body)
}

// sign makes the headers of a webhook as Standard Webhooks says: HMAC-SHA256 of
// id, time and body, for each secret that holds.
func sign(id string, body []byte, secrets *Secrets, now time.Time) (http.Header, error) {
	timestamp := strconv.FormatInt(now.Unix(), 10)
	var signatures []string
	for _, secret := range secrets.holding(now) {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
		if err != nil {
			return nil, fmt.Errorf("a secret of webhooks cannot be read: %w", err)
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", timestamp)
	h.Set("Webhook-Signature", strings.Join(signatures, " "))
	return h, nil
}

const secretPrefix = "whsec_"

func newWebhookSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// Secrets are what a key's webhooks are signed with.
type Secrets struct {
	Current, Previous string
	// PreviousUntil is until when Previous signs too.
	PreviousUntil time.Time
}

func (s *Secrets) holding(now time.Time) []string {
	if s.Previous != "" && now.Before(s.PreviousUntil) {
		return []string{s.Current, s.Previous}
	}
	return []string{s.Current}
}

// secretOverlap is how long the secret before a rotation signs too.
const secretOverlap = 24 * time.Hour

// Secrets returns those of a key, which has one from its first use on.
func (e *Engine) Secrets(ctx context.Context, apiKey string, now time.Time) (*Secrets, error) {
	_, err := e.state.Writer().ExecContext(ctx, `INSERT INTO webhook_secrets (api_key, secret) VALUES ($1, $2) ON CONFLICT (api_key) DO NOTHING`,
		apiKey, newWebhookSecret())
	if err != nil {
		return nil, err
	}
	var s Secrets
	var until int64
	err = e.state.Reader().QueryRowContext(ctx, `SELECT secret, previous, previous_until_us FROM webhook_secrets WHERE api_key = $1`, apiKey).
		Scan(&s.Current, &s.Previous, &until)
	s.PreviousUntil = fromMicros(until)
	if !now.Before(s.PreviousUntil) {
		s.Previous, s.PreviousUntil = "", time.Time{}
	}
	return &s, err
}

// RotateSecret gives a key another secret; the one before signs for a day too.
func (e *Engine) RotateSecret(ctx context.Context, apiKey string, now time.Time) (*Secrets, error) {
	var s Secrets
	var until int64
	// In one statement: were the answer lost to a second one that fails, who asks
	// again would rotate away a secret that nobody has seen.
	err := e.state.Writer().QueryRowContext(ctx, `INSERT INTO webhook_secrets (api_key, secret) VALUES ($1, $2)
		ON CONFLICT (api_key) DO UPDATE SET previous = webhook_secrets.secret, previous_until_us = $3, secret = excluded.secret
		RETURNING secret, previous, previous_until_us`,
		apiKey, newWebhookSecret(), micros(now.Add(secretOverlap))).Scan(&s.Current, &s.Previous, &until)
	s.PreviousUntil = fromMicros(until)
	return &s, err
}
