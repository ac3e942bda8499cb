package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/gateway/reply"
)

// etag identifies the answer to a question in a form (a media type). It is weak,
// because the id and the timings of a request differ from answer to answer. It
// depends on everything that the masks depend on: the weights, the picture, the
// prompts and the options.
func etag(form string, p *answer.Prepared, model, version, checkpoint string) string {
	h, q := sha256.New(), p.Question
	fmt.Fprintf(h, "2 %q %q %q %q %x %q %q %t\n", form, model, version, checkpoint, p.Digest, q.Size, q.Overlay, q.Quality)
	for i := range q.Prompts {
		p := &q.Prompts[i]
		fmt.Fprintf(h, "%q %q %v %d %d %t %q %v\n", p.ID, p.Text, p.Threshold, p.FillHoles, p.MinArea, p.Largest, p.Formats, p.Tolerance)
	}
	return `W/"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

// unchanged answers 304 to a client that already has the answer, without calling
// the model. The request need not be checked further, because only an answer that
// was sent has an ETag.
func unchanged(c *gin.Context, form string, p *answer.Prepared) bool {
	tags := c.Request.Header.Values("If-None-Match")
	if len(tags) == 0 {
		return false
	}
	v, err := p.Contract()
	if err != nil {
		return false // Answer returns the same error
	}
	tag := etag(form, p, v.Model, v.Version, v.Checkpoint)
	if !reply.Matches(tags, tag) {
		return false
	}
	c.Header("Cache-Control", "private, no-cache")
	c.Header("ETag", tag)
	c.Set(keyVariant, v.Variant)
	c.Status(http.StatusNotModified)
	return true
}
