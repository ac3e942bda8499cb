package client_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/client"
)

// Each call that stores something has an idempotency key: the caller's, or a random
// one per call.
func TestIdempotencyKeys(t *testing.T) {
	calls := map[string]func(context.Context, *client.Client) error{
		"keep": func(ctx context.Context, c *client.Client) error {
			_, err := c.KeepImage(ctx, client.Picture{})
			return err
		},
		"submit": func(ctx context.Context, c *client.Client) error {
			_, err := c.Submit(ctx, items(), client.JobOptions{})
			return err
		},
		"feedback": func(ctx context.Context, c *client.Client) error {
			_, err := c.SendFeedback(ctx, client.Feedback{})
			return err
		},
		"redeliver": func(ctx context.Context, c *client.Client) error {
			_, err := c.RedeliverWebhook(ctx, "job_1")
			return err
		},
		"rotate": func(ctx context.Context, c *client.Client) error { _, err := c.RotateWebhookSecret(ctx); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var keys []string
				c, tr := through(t, func(try int, r *http.Request) (*http.Response, error) {
					keys = append(keys, r.Header.Get("Idempotency-Key"))
					if try%2 == 1 {
						return overloaded(), nil
					}
					return reply(200, `{"id": "job_1", "status": "queued"}`), nil
				})
				mine := strings.Repeat("k", 255)
				for _, ctx := range []context.Context{client.WithIdempotencyKey(t.Context(), mine), t.Context(), t.Context()} {
					if err := call(ctx, c); err != nil {
						t.Fatal(err)
					}
				}
				if keys[0] != mine || keys[1] != mine || keys[2] != keys[3] || keys[4] != keys[5] || keys[2] == keys[4] || keys[2] == mine || keys[2] == "" {
					t.Errorf("%q", keys)
				}
				for _, wrong := range []string{"", "a b", `"a"`, "é", "a\n", mine + "k"} {
					if err := call(client.WithIdempotencyKey(t.Context(), wrong), c); refersam.ErrorCode(err) != refersam.CodeInvalidRequest {
						t.Errorf("%q: %v", wrong, err)
					}
				}
				if tr.tries != 6 {
					t.Errorf("%d tries", tr.tries)
				}
			})
		})
	}
}
