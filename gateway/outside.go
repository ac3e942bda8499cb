package gateway

import (
	"context"
	"crypto/sha256"

	"github.com/refersam/refersam"
)

// Fetcher goes out to addresses that clients name; *fetch.Client is one. It
// decides which it goes to. Errors are a *refersam.Error.
type Fetcher interface {
	// Picture calls reserve before it reads, with how many bytes at most.
	Picture(ctx context.Context, url string, most int64, reserve func(ctx context.Context, bytes int64) error) ([]byte, error)
	// CheckPicture and CheckWebhook refuse what the address alone tells.
	CheckPicture(url string) error
	CheckWebhook(url string) error
}

// checkWebhook checks where the end of a job is to be told, which only a
// request that makes one may say.
func (g *Gateway) checkWebhook(async bool, url, field string) error {
	if !async {
		return invalid(field, "A webhook is told the end of a job; send Prefer: %s to get one.", preferAsync)
	}
	if url == "" {
		return nil
	}
	return placed(field, g.fetcher.CheckWebhook(url))
}

// checkURL checks where a picture is to be fetched.
func (g *Gateway) checkURL(from *source) error {
	return placed(from.field, g.fetcher.CheckPicture(from.url))
}

// fetchPicture fetches the picture of a request, whose memory it counts to held.
func (g *Gateway) fetchPicture(ctx context.Context, from *source, held *hold) (*picture, error) {
	if err := g.checkURL(from); err != nil {
		return nil, err
	}
	content, err := g.fetcher.Picture(ctx, from.url, g.maxImage, func(ctx context.Context, bytes int64) error {
		return held.take(ctx, min(bodyCost*bytes, g.cfg.BodyMemory))
	})
	if err != nil {
		return nil, placed(from.field, err)
	}
	return &picture{content, sha256.Sum256(content)}, nil
}

// placed gives an error about something that a client names elsewhere the name
// of that place, unless it is about the service.
func placed(field string, err error) error {
	switch refersam.ErrorCode(err) {
	case refersam.CodeImageNotFound, refersam.CodeImageTooLarge, refersam.CodeUnsupportedMedia, refersam.CodeFetchRefused, refersam.CodeFetchFailed:
		return withField(err, field)
	}
	return err
}
