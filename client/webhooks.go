package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Webhook is what came of telling the end of a job.
type Webhook struct {
	URL string
	// Status is pending, delivered, or failed when it was given up.
	Status   string
	Attempts int
	// LastAttemptAt is zero as long as there was none. LastError says why it did
	// not succeed.
	LastAttemptAt time.Time `json:"last_attempt_at"`
	LastError     string    `json:"last_error"`
}

// WebhookSecret is what the webhooks of a key are signed with.
type WebhookSecret struct {
	Secret string
	// PreviousUntil is until when they are signed with the secret before the last
	// rotation, too; zero if they are not.
	PreviousUntil time.Time `json:"previous_until"`
}

// WebhookSecret returns the secret of the key, for VerifyWebhook.
func (c *Client) WebhookSecret(ctx context.Context) (*WebhookSecret, error) {
	return get[WebhookSecret](ctx, c, call{method: http.MethodGet, path: "v1/webhooks/secret"})
}

// RotateWebhookSecret gives the key another secret. For a day its webhooks are
// signed with both.
func (c *Client) RotateWebhookSecret(ctx context.Context) (*WebhookSecret, error) {
	return get[WebhookSecret](ctx, c, call{method: http.MethodPost, path: "v1/webhooks/secret/rotate", header: once(ctx)})
}

// RedeliverWebhook has the end of a job told again, and returns the job. It is
// CodeUnfinished if the job has not ended, and CodeNotFound if it has no
// webhook.
func (c *Client) RedeliverWebhook(ctx context.Context, jobID string) (*Job, error) {
	return get[Job](ctx, c, call{method: http.MethodPost, path: jobPath(jobID) + "/webhook/redeliver", header: once(ctx)})
}

// WebhookEvent is what a webhook tells.
type WebhookEvent struct {
	// ID is the same if it is told again, which may happen after it was received,
	// too.
	ID string
	// Type is job.finished; there may be others one day, to be passed over.
	Type      string
	Timestamp time.Time
	// Job is the job that has ended, without Webhook; nil for another Type.
	Job *Job
}

// VerifyWebhook reads what came to a webhook: the header and the whole body of
// the request. It is an error unless the service has signed them with the
// secret, as Standard Webhooks says, within 5 minutes of now; answer that with
// 401, and what was received with 204.
func VerifyWebhook(secret string, header http.Header, body []byte) (*WebhookEvent, error) {
	if strings.TrimPrefix(secret, "whsec_") == "" { // with which anybody could sign
		return nil, errors.New("the secret of webhooks is empty")
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("the secret of webhooks: %w", err)
	}
	if err := verifier.Verify(body, header); err != nil {
		return nil, err
	}
	var b struct {
		Type      string
		Timestamp time.Time
		Data      jsontext.Value
	}
	if err := decode(body, &b); err != nil {
		return nil, fmt.Errorf("the body of a webhook: %w", err)
	}
	ev := &WebhookEvent{ID: header.Get(standardwebhooks.HeaderWebhookID), Type: b.Type, Timestamp: b.Timestamp}
	if b.Type != "job.finished" {
		return ev, nil
	}
	ev.Job = new(Job)
	if err := decode(b.Data, ev.Job); err != nil {
		return nil, fmt.Errorf("the job of a webhook: %w", err)
	}
	return ev, nil
}
