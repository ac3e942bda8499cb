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

// WithIdempotencyKey names the one call that is made with the context, if it is
// one that stores something: KeepImage, Submit, SendFeedback, RedeliverWebhook
// or RotateWebhookSecret. The same call with the same key, within 24 hours and
// from whichever process, is not done again but returns what the first one did;
// another is CodeKeyReused. Of a Submit, items and options but Unit make it the
// same. A key has 1 to 255 visible ASCII characters but ", else the call is
// CodeInvalidRequest. Without one each call is done, once.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// once is the header of a request that is to be done once, however often it is
// sent.
func once(ctx context.Context) http.Header {
	key, ok := ctx.Value(idempotencyKey{}).(string)
	if !ok {
		key = rand.Text()
	}
	return http.Header{headerIdempotencyKey: {key}}
}
