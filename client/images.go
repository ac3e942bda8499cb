package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"net/http"
	"net/url"

	"github.com/refersam/refersam/api"
)

// Image is a picture that the service stores for an API key. Its ID is img_ and the
// SHA-256 of the bytes in hexadecimal.
type Image = api.Image

// KeepImage stores a picture, given by its bytes or its URL. If it is already
// stored, KeepImage extends its lifetime. The error is CodeStorageFull if the key's
// storage is full.
func (c *Client) KeepImage(ctx context.Context, picture Picture) (*Image, error) {
	r := call{method: http.MethodPost, path: "v1/images", header: idempotencyHeader(ctx), mediaType: mediaBytes, body: constant(picture.Data)}
	if picture.ID != "" || picture.URL != "" {
		body, err := encode(api.Upload{Image: newPicture(picture)})
		if err != nil {
			return nil, err
		}
		r.mediaType, r.body = mediaJSON, constant(body)
	}
	return get[Image](ctx, c, r)
}

// Image returns the description of an image; CodeImageNotFound if the key has no
// image with this ID.
func (c *Client) Image(ctx context.Context, id string) (*Image, error) {
	return get[Image](ctx, c, call{method: http.MethodGet, path: imagePath(id)})
}

// Images yields the images of the key, newest first. The sequence stops after an
// error.
func (c *Client) Images(ctx context.Context) iter.Seq2[*Image, error] {
	return list[Image](ctx, c, "v1/images", "images", nil)
}

// ImageContent returns the bytes of an image as they were sent. Their SHA-256 is in
// its ID. CodeImageNotFound if the key has no image with this ID.
func (c *Client) ImageContent(ctx context.Context, id string) ([]byte, error) {
	a, err := c.send(ctx, call{method: http.MethodGet, path: imagePath(id) + "/content"})
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(a.body); id != "img_"+hex.EncodeToString(sum[:]) {
		return nil, a.unreadable(fmt.Errorf("the bytes do not have the SHA-256 of %s", id))
	}
	return a.body, nil
}

// DeleteImage deletes an image; CodeImageNotFound if the key has no image with this
// ID.
func (c *Client) DeleteImage(ctx context.Context, id string) error {
	return c.delete(ctx, imagePath(id))
}

func imagePath(id string) string { return "v1/images/" + url.PathEscape(id) }
