package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
)

// etag names what is answered to a request in a form (a media type). It is
// weak, since the id of the request and its timings are not part of it; all
// that makes masks is: the weights, the picture, the prompts and how they are
// written.
func etag(form string, req *segmentRequest, picture *[sha256.Size]byte, model, version, checkpoint string) string {
	h := sha256.New()
	fmt.Fprintf(h, "2 %q %q %q %q %x %q %q %t\n", form, model, version, checkpoint, *picture,
		req.output.size(), req.output.overlay(), req.output.quality())
	for i := range req.prompts {
		p := &req.prompts[i]
		fmt.Fprintf(h, "%q %q %v %d %d %t %q %v\n", p.ID, p.Text, p.Threshold, p.FillHoles, p.MinArea, p.Largest, p.formats, p.tolerance)
	}
	return `W/"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

// unchanged answers 304 to a client that has the answer already, without
// asking the model. Only what has been answered has an ETag, so nothing else of
// the request need be looked at.
func (g *Gateway) unchanged(c *gin.Context, form string, req *segmentRequest, asked *refersam.Request) bool {
	known := c.Request.Header.Values("If-None-Match")
	if len(known) == 0 {
		return false
	}
	v, err := g.segmenter.Choose(asked)
	if err != nil {
		return false // Segment says the same
	}
	tag := etag(form, req, asked.Digest, v.Model, v.Version, v.Checkpoint)
	if !matches(known, tag) {
		return false
	}
	c.Header("Cache-Control", "private, no-cache")
	c.Header("ETag", tag)
	c.Set(keyVariant, v.Variant)
	c.Status(http.StatusNotModified)
	return true
}

// matches reports whether If-None-Match names an ETag, by weak comparison (RFC
// 9110, section 13.1.2).
func matches(known []string, tag string) bool {
	for element := range strings.SplitSeq(strings.Join(known, ","), ",") {
		if strings.TrimPrefix(strings.TrimSpace(element), "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// hasStored reports whether a client that asks for something which is there has
// what an ETag names: any, if it says *.
func hasStored(h http.Header, tag string) bool {
	known := h.Values("If-None-Match")
	return matches(known, tag) || len(known) == 1 && strings.TrimSpace(known[0]) == "*"
}
