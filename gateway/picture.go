package gateway

import (
	"context"
	"crypto/sha256"
)

// picture is an encoded picture exactly as it came, and its SHA-256.
type picture struct {
	content []byte
	digest  [sha256.Size]byte
}

// picture brings the picture of a request. What is not in the request itself
// is counted to held.
func (g *Gateway) picture(ctx context.Context, who asker, from *source, held *hold) (*picture, error) {
	switch {
	case from.id != "":
		image, err := g.findImage(ctx, who.consumer, from.id)
		if err != nil {
			return nil, placed(from.field, err)
		}
		content, err := g.imageBytes(ctx, image, held)
		if err != nil {
			return nil, placed(from.field, err)
		}
		digest, _ := digestOf(image.ID)
		return &picture{content, digest}, nil
	case from.url != "":
		return g.fetchPicture(ctx, from, held)
	default:
		return &picture{from.data, sha256.Sum256(from.data)}, nil
	}
}
