package gateway

import (
	"github.com/refersam/refersam"
)

// checkWebhook checks where the end of a job is to be told, which only a
// request that makes one may say.
func (g *Gateway) checkWebhook(async bool, url, field string) error {
	if !async {
		return invalid(field, "A webhook is told the end of a job; send Prefer: %s to get one.", preferAsync)
	}
	if url == "" {
		return nil
	}
	return refersam.Errorf(refersam.CodeInvalidRequest, "Webhooks are switched off here.")
}

// checkURL checks where a picture is to be fetched.
func (g *Gateway) checkURL(from *source) error {
	return invalid(from.field, "This service fetches no pictures; send them.")
}
