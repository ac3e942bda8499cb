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
	held, release, err := g.reserveBody(c, g.pictureLimit)
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
	if async := prefersAsync(c.Request.Header); async || req.webhook != "" {
		field := "webhook"
		if !req.naming.Form {
			field = "/webhook/url"
		}
		if err := g.checkWebhook(async, req.webhook, field); err != nil {
			return err
		}
		return g.submit(c, kindSegment, form, begun, []batchItem{{req: req}})
	}
	read := time.Since(begun)

	ctx, cancel := context.WithDeadline(c.Request.Context(), g.deadline(begun, req.deadline))
	defer cancel()
	if req.source.data == nil {
		g.dropBody(c, held)
	}
	who := g.asker(c)
	pic, err := g.picture(ctx, who, &req.source, held)
	if err != nil {
		return err
	}
	fetched := time.Since(begun) - read
	asked := question(who, req, pic)
	c.Writer.Header().Add("Vary", "Accept, Accept-Encoding")
	if g.unchanged(c, form, req, asked) {
		return nil
	}
	masks := room{memory: g.answers}
	defer masks.release()
	found, err := g.find(ctx, who, req, asked, &masks)
	if err != nil {
		return err
	}
	g.access.CountRequest(who.consumer)
	c.Set(keyVariant, found.resp.Variant)
	c.Header("Cache-Control", "private, no-cache")
	c.Header("ETag", etag(form, req, asked.Digest, found.resp.Model, found.resp.Version, found.resp.Checkpoint))
	found.answer.Timings = newTimings(read, fetched, time.Since(begun), found.resp.Timings)
	c.Header("Server-Timing", found.answer.Timings.header())
	return found.write(c.Writer, form, acceptedEncoding(c.Request.Header.Values("Accept-Encoding")))
}

// deadline is when a request that has begun must be answered: when its client
// says, and at the latest when the service does.
func (g *Gateway) deadline(begun time.Time, own time.Duration) time.Time {
	latest := time.Now().Add(g.cfg.RequestTimeout)
	if own := begun.Add(own); own.After(begun) && own.Before(latest) {
		return own
	}
	return latest
}

// asker is who asks for masks.
type asker struct {
	requestID string
	// consumer is whose usage it is, sharer whose work when there is too much to
	// do, unit whom a variant sticks to.
	consumer, sharer, unit string
}

// checkUnit is middleware that refuses a unit that is no name.
func checkUnit(c *gin.Context) {
	if err := checkID(headerUnitID, c.GetHeader(headerUnitID)); err != nil {
		fail(c, err)
	}
}

func (g *Gateway) asker(c *gin.Context) asker {
	unit := c.GetHeader(headerUnitID)
	if unit == "" {
		unit = c.ClientIP()
	}
	return asker{requestID: requestID(c), consumer: consumer(c), sharer: sharer(c), unit: unit}
}

// sharer is whose work a request is when there is too much to do: the key's or,
// without authentication, the address's.
func sharer(c *gin.Context) string {
	if key := apiKey(c); key != nil {
		return key.ID
	}
	return c.ClientIP()
}

// question is what the pipeline is asked, without Encode.
func question(who asker, req *segmentRequest, pic *picture) *refersam.Request {
	asked := &refersam.Request{
		ID:       who.requestID,
		Image:    pic.content,
		Digest:   &pic.digest,
		Phrases:  make([]refersam.Phrase, len(req.prompts)),
		Variant:  req.variant,
		Unit:     who.unit,
		Priority: req.priority,
		Key:      who.sharer,
		Size:     req.output.size(),
		Quality:  req.output.quality(),
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

// found is what was found for a request.
type found struct {
	resp   *refersam.Response
	answer *Answer
	// masks are those of answer; overlay is the kind of file that overlays are.
	masks   []AnswerMasks
	overlay string
}

// find has masks made and written, with the memory that r lends, and counts
// what that took.
func (g *Gateway) find(ctx context.Context, who asker, req *segmentRequest, asked *refersam.Request, r *room) (*found, error) {
	masks := encoder{req: req, masks: make([]AnswerMasks, len(req.prompts)), room: r}
	asked.Encode = masks.encode
	resp, err := g.segmenter.Segment(ctx, asked)
	if err != nil {
		return nil, translate(err, req.field)
	}
	g.metrics.answered(resp)
	g.access.CountPicture(who.consumer, resp)
	answer := NewAnswer(who.requestID, resp, masks.masks)
	if req.output.quality() {
		answer.addQuality(resp)
	}
	return &found{resp, answer, masks.masks, req.output.overlay()}, nil
}

// write answers in a form; encoding is how JSON may be compressed, "" for not
// at all.
func (f *found) write(w http.ResponseWriter, form, encoding string) error {
	switch form {
	case mediaPNG:
		f.writeMask(w)
		return nil
	case mediaZip:
		return writeZip(w, f.answer, f.overlay)
	case mediaMixed:
		return writeMixed(w, f.answer, f.overlay)
	default:
		return writeCompressed(w, f.answer, encoding)
	}
}

// translate gives the fields of an error the names that the client knows.
func translate(err error, field func(string) string) error {
	var e *refersam.Error
	if !errors.As(err, &e) || e.Field == "" {
		return err
	}
	translated := *e
	translated.Field = field(e.Field)
	translated.Also = make([]*refersam.Error, len(e.Also))
	for i, other := range e.Also {
		also := *other
		also.Field = field(other.Field)
		translated.Also[i] = &also
	}
	return &translated
}

// withField is err, which must be a *refersam.Error, about another field.
func withField(err error, field string) error {
	var e *refersam.Error
	if !errors.As(err, &e) {
		return err
	}
	placed := *e
	placed.Field = field
	return &placed
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
func (f *found) writeMask(w http.ResponseWriter) {
	r, h := &f.resp.Results[0], w.Header()
	h.Set("X-Refersam-Model", f.resp.Model)
	h.Set("X-Refersam-Variant", f.resp.Variant)
	h.Set("X-Refersam-Status", Status(r))
	h.Set("X-Refersam-Score", strconv.FormatFloat(r.Score, 'f', 4, 64))
	h.Set("X-Refersam-Origin", string(r.Origin))
	h.Set("X-Refersam-Area", strconv.Itoa(r.Area))
	h.Set("X-Refersam-Bbox", fmt.Sprintf("%d,%d,%d,%d", r.Box.X, r.Box.Y, r.Box.W, r.Box.H))
	if q := f.answer.Results[0].Quality; q != nil {
		h.Set("X-Refersam-Components", strconv.Itoa(q.Components))
		h.Set("X-Refersam-Stability", strconv.FormatFloat(q.Stability, 'f', 4, 64))
	}
	if r.Truncated() {
		h.Set("X-Refersam-Warning", fmt.Sprintf("%s; tokens=%d; limit=%d", warningTruncated, r.Tokens, r.Limit))
	}
	writeBody(w, mediaPNG, f.masks[0].png())
}

// writeBody answers with a whole body. That it cannot be written is the
// client's going away.
func writeBody(w http.ResponseWriter, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
}
