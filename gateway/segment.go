package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
)

const (
	mediaJSON = "application/json"
	mediaPNG  = "image/png"
)

// segment answers POST /v1/segment with JSON or, to a client that prefers
// image/png, with the mask of its one phrase.
func (g *Gateway) segment(c *gin.Context) error {
	begun := time.Now()
	form := negotiate(c.Request.Header.Values("Accept"), mediaJSON, mediaPNG)
	if form == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s or %s.", mediaJSON, mediaPNG)
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
	if form == mediaPNG && len(req.phrases) != 1 {
		return invalid(req.field("/phrases"), "A PNG is the mask of exactly one phrase, and %d were given; "+
			"accept %s and ask for the format %q to get several.", len(req.phrases), mediaJSON, FormatPNG)
	}
	if form == mediaPNG {
		req.formats = []string{FormatPNG}
	}
	unit := c.GetHeader(headerUnitID)
	if unit == "" {
		unit = c.ClientIP()
	}

	deadline := time.Now().Add(g.cfg.RequestTimeout)
	if own := begun.Add(req.deadline); req.deadline > 0 && own.Before(deadline) {
		deadline = own
	}
	ctx, cancel := context.WithDeadline(c.Request.Context(), deadline)
	defer cancel()
	masks := make([]AnswerMasks, len(req.phrases))
	resp, err := g.segmenter.Segment(ctx, &refersam.Request{
		ID:       requestID(c),
		Image:    req.image,
		Phrases:  req.phrases,
		Variant:  req.variant,
		Unit:     unit,
		Priority: req.priority,
		Key:      sharer(c),
		Encode: func(i int, r *refersam.Result) (err error) {
			masks[i], err = EncodeMask(r.Mask, req.formats...)
			return err
		},
	})
	if err != nil {
		return translate(err, req.field)
	}
	c.Set(keyVariant, resp.Variant)
	g.metrics.answered(resp)
	g.counter.add(consumer(c), spent(resp), time.Now())
	c.Header("Cache-Control", "no-store")
	c.Header("Vary", "Accept")
	if form == mediaPNG {
		writeMask(c, resp, masks[0].PNG)
		return nil
	}
	return writeJSON(c, NewAnswer(requestID(c), resp, masks))
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
