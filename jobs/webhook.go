package jobs

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/refersam/refersam/store"
	riverqueue "github.com/riverqueue/river"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Poster sends webhooks. It must refuse every address that the operator does
// not allow.
type Poster interface {
	// Post returns the status of the answer, and how long the answer asks to
	// wait before the next try.
	Post(ctx context.Context, url string, header http.Header, body []byte) (status int, retryAfter time.Duration, err error)
}

// Payload returns the body of the webhook for a job that has ended.
type Payload func(j *Job) ([]byte, error)

func newMessageID() string { return "msg_" + strings.ToLower(rand.Text()) }

// enqueueWebhook schedules the delivery of the job's final state in the
// transaction that ends the job. It replaces an earlier delivery, so a job never
// has more than one. It does nothing for a job without a webhook.
func (e *Engine) enqueueWebhook(ctx context.Context, tx *store.JobTx, job string) error {
	before, err := tx.WebhookDelivery(ctx, job)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if before != 0 {
		if err := e.dequeue(ctx, tx, before); err != nil {
			return err
		}
	}
	ids, err := e.enqueue(ctx, tx, []riverqueue.InsertManyParams{{Args: webhookArgs{job}, InsertOpts: webhookOpts}})
	if err != nil {
		return err
	}
	return tx.SetWebhookDelivery(ctx, job, ids[0])
}

// Redeliver delivers the webhook of a job again, whatever became of it before.
// It is ErrNoWebhook if the job has none, and ErrRunning if the job has not
// ended.
func (e *Engine) Redeliver(ctx context.Context, apiKey, id string) (*Job, error) {
	err := e.state.JobTx(ctx, func(tx *store.JobTx) error {
		if err := tx.LockOwn(ctx, apiKey, id, e.now()); err != nil {
			return err
		}
		if finished, err := tx.Finished(ctx, id); err != nil {
			return err
		} else if !finished {
			return ErrRunning
		}
		if err := tx.ResetWebhook(ctx, id); errors.Is(err, store.ErrNotFound) {
			return ErrNoWebhook
		} else if err != nil {
			return err
		}
		return e.enqueueWebhook(ctx, tx, id)
	})
	if err != nil {
		return nil, err
	}
	return e.Job(ctx, apiKey, id)
}

// retrySchedule is the wait after each failed try, as Standard Webhooks
// recommends. After the last one the webhook is given up.
var retrySchedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	// postTimeout bounds one try.
	postTimeout = 20 * time.Second
	// maxRetryAfter bounds the wait that a receiver can ask for.
	maxRetryAfter = 24 * time.Hour
)

// webhookWorker delivers the webhook of a job.
type webhookWorker struct {
	riverqueue.WorkerDefaults[webhookArgs]
	e       *Engine
	payload Payload
}

// Work implements river.Worker.
func (w *webhookWorker) Work(ctx context.Context, job *riverqueue.Job[webhookArgs]) error {
	e, id := w.e, job.Args.Job
	j, err := e.pendingDelivery(ctx, id)
	if err != nil || j == nil {
		return err
	}
	status, retryAfter, err := e.send(ctx, j, w.payload)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	try := Webhook{Status: Pending, Attempts: j.Webhook.Attempts + 1, Tried: e.now()}
	switch {
	case err != nil:
		try.LastError = err.Error()
	case status/100 == 2:
		try.Status = Delivered
	default:
		try.LastError = fmt.Sprintf("the receiver answered with status %d", status)
	}
	if status == http.StatusGone || try.Status == Pending && try.Attempts > len(retrySchedule) {
		try.Status = GivenUp
	}
	if err := e.state.RecordWebhookTry(ctx, id, job.ID, try); err != nil || try.Status != Pending {
		return err
	}
	return riverqueue.JobSnooze(max(retrySchedule[try.Attempts-1], min(retryAfter, maxRetryAfter)))
}

// pendingDelivery returns a job with a pending webhook, or nil if there is
// nothing to deliver.
func (e *Engine) pendingDelivery(ctx context.Context, id string) (*Job, error) {
	apiKey, err := e.state.JobKey(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j, err := e.Job(ctx, apiKey, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil || j.Webhook == nil || j.Webhook.Status != Pending {
		return nil, err
	}
	return j, nil
}

func (e *Engine) send(ctx context.Context, j *Job, payload Payload) (status int, retryAfter time.Duration, err error) {
	if e.post == nil {
		return 0, 0, errors.New("webhooks are switched off")
	}
	body, err := payload(j)
	if err != nil {
		return 0, 0, err
	}
	now := e.now()
	secrets, err := e.Secrets(ctx, j.APIKey, now)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	header, err := sign(j.Webhook.ID, body, secrets, now)
	if err != nil {
		return 0, 0, err
	}
	return e.post.Post(ctx, j.Webhook.URL, header, body)
}

// sign returns the headers of a webhook as Standard Webhooks defines them, with
// one signature for each valid secret.
func sign(id string, body []byte, secrets *Secrets, now time.Time) (http.Header, error) {
	valid := []string{secrets.Current}
	if secrets.Previous != "" && now.Before(secrets.PreviousUntil) {
		valid = append(valid, secrets.Previous)
	}
	signatures := make([]string, len(valid))
	for i, secret := range valid {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, fmt.Errorf("read a webhook secret: %w", err)
		}
		if signatures[i], err = signer.Sign(id, now, body); err != nil {
			return nil, err
		}
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set(standardwebhooks.HeaderWebhookID, id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return h, nil
}

// newWebhookSecret returns 32 random bytes in the form that the libraries of
// Standard Webhooks read.
func newWebhookSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(key)
}

// secretOverlap is how long the previous secret signs too after a rotation.
const secretOverlap = 24 * time.Hour

// Secrets returns the secrets that sign the webhooks of an API key. The first
// call creates one.
func (e *Engine) Secrets(ctx context.Context, apiKey string, now time.Time) (*Secrets, error) {
	return e.state.WebhookSecrets(ctx, apiKey, newWebhookSecret(), now)
}

// RotateSecret gives an API key a new secret. The previous one signs too for a
// day.
func (e *Engine) RotateSecret(ctx context.Context, apiKey string, now time.Time) (*Secrets, error) {
	return e.state.RotateWebhookSecret(ctx, apiKey, newWebhookSecret(), now.Add(secretOverlap))
}
