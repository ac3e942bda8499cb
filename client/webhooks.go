package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam/api"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Webhook is the state of the delivery that reports the end of a job.
type Webhook struct {
	URL string
	// Status is pending, delivered, or failed once the service has given up.
	Status   string
	Attempts int
	// LastAttemptAt is zero before the first attempt. LastError says why the last
	// attempt failed.
	LastAttemptAt time.Time
	LastError     string
}

// WebhookSecret is the secret that signs the webhooks of a key.
type WebhookSecret struct {
	Secret string
	// PreviousUntil is until when webhooks are also signed with the secret before
	// the last rotation; zero if they are not.
	PreviousUntil time.Time
}

// UnmarshalJSON reads a secret as the service writes it.
func (s *WebhookSecret) UnmarshalJSON(data []byte) error {
	var b api.WebhookSecret
	err := decode(data, &b)
	*s = WebhookSecret{b.Secret, timeOf(b.PreviousUntil)}
	return err
}

// WebhookSecret returns the secret of the key, for VerifyWebhook.
func (c *Client) WebhookSecret(ctx context.Context) (*WebhookSecret, error) {
	return get[WebhookSecret](ctx, c, call{method: http.MethodGet, path: "v1/webhooks/secret"})
}

// RotateWebhookSecret gives the key a new secret. For a day its webhooks are signed
// with both secrets.
func (c *Client) RotateWebhookSecret(ctx context.Context) (*WebhookSecret, error) {
	return get[WebhookSecret](ctx, c, call{method: http.MethodPost, path: "v1/webhooks/secret/rotate", header: idempotencyHeader(ctx)})
}

// RedeliverWebhook reports the end of a job again, and returns the job. The error
// is CodeUnfinished if the job has not ended, and CodeNotFound if it has no
// webhook.
func (c *Client) RedeliverWebhook(ctx context.Context, jobID string) (*Job, error) {
	return get[Job](ctx, c, call{method: http.MethodPost, path: jobPath(jobID) + "/webhook/redeliver", header: idempotencyHeader(ctx)})
}

// WebhookEvent is the content of a webhook.
type WebhookEvent struct {
	// ID is the same if the event is delivered again, which may happen even after
	// it was received.
	ID string
	// Type is job.finished. Ignore other types, because later versions may send
	// some.
	Type      string
	Timestamp time.Time
	// Job is the job that has ended, without Webhook; nil for another Type.
	Job *Job
}

// VerifyWebhook reads a request to a webhook from its header and its whole body. It
// returns an error unless the service has signed them with the secret, as Standard
// Webhooks defines, within 5 minutes of now. Answer 401 after an error, and 204
// otherwise.
func VerifyWebhook(secret string, header http.Header, body []byte) (*WebhookEvent, error) {
	if strings.TrimPrefix(secret, "whsec_") == "" { // an empty secret would let anybody sign
		return nil, errors.New("the webhook secret is empty; get it with WebhookSecret")
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return nil, fmt.Errorf("the webhook secret: %w", err)
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
		return nil, fmt.Errorf("the webhook's body: %w", err)
	}
	ev := &WebhookEvent{ID: header.Get(standardwebhooks.HeaderWebhookID), Type: b.Type, Timestamp: b.Timestamp}
	if b.Type != "job.finished" {
		return ev, nil
	}
	ev.Job = new(Job)
	if err := decode(b.Data, ev.Job); err != nil {
		return nil, fmt.Errorf("the webhook's job: %w", err)
	}
	return ev, nil
}
