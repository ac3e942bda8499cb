package client

import (
	"context"
	"crypto/rand"
	"net/http"
	"regexp"
)

const headerIdempotencyKey = "Idempotency-Key"

type idempotencyKey struct{}

var idempotencyForm = regexp.MustCompile(`^[\x21\x23-\x7e]{1,255}$`)

// WithIdempotencyKey sets the idempotency key of the one call that is made with the
// context, if the call stores something: KeepImage, Submit, SendFeedback,
// RedeliverWebhook or RotateWebhookSecret. If any process makes the same call with
// the same key again within 24 hours, the service does not repeat it, but returns
// the first result. A different call with the same key is CodeKeyReused. Two calls
// of Submit are the same if their items and options, except Unit, are equal. A key
// has 1 to 255 visible ASCII characters without "; any other key is
// CodeInvalidRequest. A call without a key gets a random one, so it is performed
// once.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// idempotencyHeader returns the header that makes the service perform a request
// once, however often it is sent.
func idempotencyHeader(ctx context.Context) http.Header {
	key, ok := ctx.Value(idempotencyKey{}).(string)
	if !ok {
		key = rand.Text()
	}
	return http.Header{headerIdempotencyKey: {key}}
}
