package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

const (
	mediaJSON = "application/json"
	mediaPNG  = "image/png"
)

// segment answers POST /v1/segment with JSON or, to a client that prefers
// image/png, with the mask of its one phrase.
func (g *Gateway) segment(c *gin.Context) error {
	form := negotiate(c.Request.Header.Values("Accept"), mediaJSON, mediaPNG)
	if form == "" {
		return refersam.Errorf(refersam.CodeNotAcceptable, "Accept %s or %s.", mediaJSON, mediaPNG)
	}
	req, err := parseSegment(c.Writer, c.Request, g.maxImage)
	if err != nil {
		return err
	}
	if form == mediaPNG && len(req.phrases) != 1 {
		return invalid(req.field("/phrases"), "A PNG is the mask of exactly one phrase, and %d were given; "+
			"accept %s and ask for the format %q to get several.", len(req.phrases), mediaJSON, FormatPNG)
	}
	unit := c.GetHeader(headerUnitID)
	if unit == "" {
		unit = c.ClientIP()
	}

	ctx, cancel := context.WithTimeout(c.Request.Context(), g.cfg.RequestTimeout)
	defer cancel()
	resp, err := g.segmenter.Segment(ctx, &refersam.Request{
		ID:      requestID(c),
		Image:   req.image,
		Phrases: req.phrases,
		Variant: req.variant,
		Unit:    unit,
	})
	if err != nil {
		return translate(err, req.field)
	}
	c.Set(keyVariant, resp.Variant)
	c.Header("Cache-Control", "no-store")
	c.Header("Vary", "Accept")
	if form == mediaPNG {
		return writeMask(c, resp)
	}
	a, err := NewAnswer(requestID(c), resp, req.formats...)
	if err != nil {
		return err
	}
	return writeJSON(c, a)
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
func writeMask(c *gin.Context, resp *refersam.Response) error {
	r := &resp.Results[0]
	var png bytes.Buffer
	if err := postprocess.EncodePNG(&png, r.Mask); err != nil {
		return err
	}
	c.Header("X-Refersam-Model", resp.Model)
	c.Header("X-Refersam-Variant", resp.Variant)
	c.Header("X-Refersam-Status", Status(r))
	c.Header("X-Refersam-Score", strconv.FormatFloat(r.Score, 'f', 4, 64))
	c.Header("X-Refersam-Area", strconv.Itoa(r.Area))
	c.Header("X-Refersam-Bbox", fmt.Sprintf("%d,%d,%d,%d", r.Box.X, r.Box.Y, r.Box.W, r.Box.H))
	if r.Truncated() {
		c.Header("X-Refersam-Warning", fmt.Sprintf("%s; tokens=%d; limit=%d", warningTruncated, r.Tokens, r.Limit))
	}
	c.Data(http.StatusOK, mediaPNG, png.Bytes())
	return nil
}
