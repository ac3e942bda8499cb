package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
)

const (
	mediaJSON  = "application/json"
	mediaForm  = "multipart/form-data"
	mediaBytes = "application/octet-stream"
	mediaPNG   = "image/png"
	mediaJPEG  = "image/jpeg"
	mediaZip   = "application/zip"
	mediaMixed = "multipart/mixed"
)

// segment answers POST /v1/segment with JSON, with the mask of its one phrase
// as a PNG, or with JSON and files, as the client prefers.
func (g *Gateway) segment(c *gin.Context) error {
	begun := time.Now()
	form := negotiate(c.Request.Header.Values("Accept"), mediaJSON, mediaPNG, mediaZip, mediaMixed)
	if form == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s, %s, %s or %s.", mediaJSON, mediaPNG, mediaZip, mediaMixed)
	}
	release, err := g.reserveBody(c.Request)
	if err != nil {
		return err
	}
	defer release()
	req, err := parseSegment(c.Writer, c.Request, g.maxImage)
	if err != nil {
		return err
	}
	if form == mediaPNG {
		if err := req.onePNG(); err != nil {
			return err
		}
	}
	read := time.Since(begun)

	asked := g.question(c, req)
	deadline := time.Now().Add(g.cfg.RequestTimeout)
	if own := begun.Add(req.deadline); req.deadline > 0 && own.Before(deadline) {
		deadline = own
	}
	c.Header("Vary", "Accept, Accept-Encoding")
	if g.unchanged(c, form, req, asked) {
		return nil
	}
	ctx, cancel := context.WithDeadline(c.Request.Context(), deadline)
	defer cancel()
	masks := encoder{req: req, masks: make([]AnswerMasks, len(req.prompts)), room: room{memory: g.answers}}
	defer masks.release()
	asked.Encode = masks.encode
	resp, err := g.segmenter.Segment(ctx, asked)
	if err != nil {
		return translate(err, req.field)
	}
	c.Set(keyVariant, resp.Variant)
	g.metrics.answered(resp)
	g.counter.add(consumer(c), spent(resp), time.Now())
	c.Header("Cache-Control", "private, no-cache")
	c.Header("ETag", etag(form, req, asked.Digest, resp.Model, resp.Version, resp.Checkpoint))
	answer := NewAnswer(requestID(c), resp, masks.masks)
	if req.output.Quality {
		answer.addQuality(resp)
	}
	answer.Timings = newTimings(read, time.Since(begun), resp.Timings)
	c.Header("Server-Timing", answer.Timings.header())
	switch form {
	case mediaPNG:
		writeMask(c, resp, masks.masks[0].png())
		return nil
	case mediaZip:
		return writeZip(c, answer, req.output.overlay())
	case mediaMixed:
		return writeMixed(c, answer, req.output.overlay())
	default:
		return writeCompressed(c, answer)
	}
}

// question is what the pipeline is asked, without Encode.
func (g *Gateway) question(c *gin.Context, req *segmentRequest) *refersam.Request {
	unit := c.GetHeader(headerUnitID)
	if unit == "" {
		unit = c.ClientIP()
	}
	digest := sha256.Sum256(req.image)
	asked := &refersam.Request{
		ID:       requestID(c),
		Image:    req.image,
		Digest:   &digest,
		Phrases:  make([]refersam.Phrase, len(req.prompts)),
		Variant:  req.variant,
		Unit:     unit,
		Priority: req.priority,
		Key:      sharer(c),
		Size:     req.output.size(),
		Quality:  req.output.Quality,
		Picture:  req.wants(FormatOverlay),
	}
	for i := range req.prompts {
		asked.Phrases[i] = req.prompts[i].Phrase
	}
	if asked.Picture || req.wants(FormatProbability) {
		asked.EncodeWeight = encodeWeight
	}
	return asked
}

// sharer is whose work a request is when there is too much to do: the key's or,
// without authentication, the address's.
func sharer(c *gin.Context) string {
	if key := apiKey(c); key != nil {
		return key.ID
	}
	return c.ClientIP()
}

// reserveBody waits until there is memory for a request's body, and takes it.
func (g *Gateway) reserveBody(r *http.Request) (release func(), err error) {
	ctx, cancel := context.WithTimeout(r.Context(), g.cfg.RequestTimeout)
	defer cancel()
	need := min(bodyMemory(r, g.maxImage), g.cfg.BodyMemory)
	if err := g.bodies.Acquire(ctx, need); err != nil {
		return nil, &refersam.Error{
			Code:    refersam.CodeOverloaded,
			Message: "The memory for requests is taken by others; try again soon.",
			Err:     err,
		}
	}
	return func() { g.bodies.Release(need) }, nil
}

// translate gives an error's field the name that the client knows.
func translate(err error, field func(string) string) error {
	var e *refersam.Error
	if !errors.As(err, &e) || e.Field == "" {
		return err
	}
	translated := *e
	translated.Field = field(e.Field)
	return &translated
}

// onePNG sees to it that there is exactly one mask, and that it is a PNG.
func (r *segmentRequest) onePNG() error {
	if len(r.prompts) != 1 {
		return invalid(r.field("/phrases"), "A PNG is the mask of exactly one phrase, and %d were given; "+
			"accept %s to get several, or %s and ask for the format %q.", len(r.prompts), mediaZip, mediaJSON, FormatPNG)
	}
	p := &r.prompts[0]
	if !p.chosen {
		p.formats = []string{FormatPNG}
	}
	if len(p.formats) != 1 || mediaOf(p.formats[0], r.output.overlay()) != mediaPNG {
		return invalid(r.field("/formats"), "An answer that is a PNG has one format, and that is a PNG; leave it out for the mask.")
	}
	return nil
}

// writeMask answers with the PNG of the first result; the rest of it goes into
// headers.
func writeMask(c *gin.Context, resp *refersam.Response, png []byte) {
	r := &resp.Results[0]
	c.Header("X-Refersam-Model", resp.Model)
	c.Header("X-Refersam-Variant", resp.Variant)
	c.Header("X-Refersam-Status", Status(r))
	c.Header("X-Refersam-Score", strconv.FormatFloat(r.Score, 'f', 4, 64))
	c.Header("X-Refersam-Origin", string(r.Origin))
	c.Header("X-Refersam-Area", strconv.Itoa(r.Area))
	c.Header("X-Refersam-Bbox", fmt.Sprintf("%d,%d,%d,%d", r.Box.X, r.Box.Y, r.Box.W, r.Box.H))
	if r.Truncated() {
		c.Header("X-Refersam-Warning", fmt.Sprintf("%s; tokens=%d; limit=%d", warningTruncated, r.Tokens, r.Limit))
	}
	c.Data(http.StatusOK, mediaPNG, png)
}
