package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/store"
)

// submit answers with a job that answers the requests of items, each in a form,
// a media type.
func (g *Gateway) submit(c *gin.Context, kind, form string, begun time.Time, items []batchItem) error {
	var wrong refersam.Faults
	for i := range items {
		wrong.Add(items[i].err)
	}
	if err := wrong.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), g.cfg.RequestTimeout)
	defer cancel()
	who := g.asker(c)
	s := jobs.Submission{
		ID: nameFrom(c, "job_"), APIKey: who.consumer, RequestID: who.requestID, Kind: kind,
		WebhookURL: items[0].req.webhook, Items: make([]jobs.Work, len(items)),
	}
	for i := range items {
		var err error
		if s.Items[i], err = g.newWork(ctx, who, form, begun, &items[i]); err != nil {
			return err
		}
	}
	j, err := g.submitKept(ctx, s, items)
	if err != nil {
		return err
	}
	g.access.CountRequest(who.consumer)
	c.Header("Location", "/v1/jobs/"+j.ID)
	c.Header(headerApplied, preferAsync)
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, http.StatusAccepted, newJobAnswer(j))
}

// submitKept keeps the pictures of a job and submits it. Pictures of a job that is
// not taken do not stay.
func (g *Gateway) submitKept(ctx context.Context, s jobs.Submission, items []batchItem) (j *jobs.Job, err error) {
	var kept []string
	defer func() {
		if err != nil {
			g.dropBlobs(ctx, kept)
		}
	}()
	for i := range items {
		if items[i].req.source.data == nil {
			continue
		}
		name, err := g.keepBlob(ctx, s.APIKey, items[i].req.source.data, time.Now())
		if err != nil {
			return nil, err
		}
		s.Items[i].Picture = name
		kept = append(kept, name)
	}
	if j, err = g.jobs.Submit(ctx, s, time.Now()); err != nil {
		return nil, jobsError(err)
	}
	return j, nil
}

// nameFrom is the ID of what a request stores: with an Idempotency-Key it is
// made of that and of when it was first tried, so that the same request never
// stores two things while its key is remembered, even if the gateway dies before
// it has kept its answer.
func nameFrom(c *gin.Context, prefix string) string {
	a, ok := c.Value(keyAttempt).(store.Attempt)
	if !ok {
		return prefix + strings.ToLower(rand.Text())
	}
	h := sha256.New()
	feed(h, []byte(a.APIKey), []byte(a.Key), a.RequestHash, []byte(a.Begun.UTC().Format(time.RFC3339Nano)))
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)))[:26]
}

// storedWork is a request for masks as it waits in the database, without its
// picture.
type storedWork struct {
	Prompts  []storedPrompt
	Output   output
	Variant  string
	Priority refersam.Priority
	Naming   naming
	// Field is what the client calls the picture; URL is where to fetch it, ""
	// if it is kept.
	Field, URL string
	// Form is that of the answer.
	Form         string
	Sharer, Unit string
}

type storedPrompt struct {
	Phrase    refersam.Phrase
	Formats   []string
	Chosen    bool
	Tolerance float64
}

// newWork makes the work of an item; a picture that came with it is to be kept
// yet. What could not succeed is refused now.
func (g *Gateway) newWork(ctx context.Context, who asker, form string, begun time.Time, item *batchItem) (jobs.Work, error) {
	req := item.req
	err := g.segmenter.Check(question(who, req, &picture{}))
	switch refersam.ErrorCode(err) {
	case "", refersam.CodeNotReady, refersam.CodeUnavailable: // it will be
	default:
		return jobs.Work{}, translate(err, req.field)
	}
	stored := storedWork{
		Output: req.output, Variant: req.variant, Priority: req.priority, Naming: req.naming,
		Field: req.source.field, URL: req.source.url, Form: form,
		Sharer: who.sharer, Unit: who.unit,
	}
	if stored.Priority == "" {
		stored.Priority = refersam.PriorityBatch
	}
	for _, p := range req.prompts {
		stored.Prompts = append(stored.Prompts, storedPrompt{p.Phrase, p.formats, p.chosen, p.tolerance})
	}
	w := jobs.Work{APIKey: who.consumer, ID: item.id, Deadline: begun.Add(g.cfg.JobPatience), Urgent: stored.Priority == refersam.PriorityInteractive}
	if req.deadline > 0 {
		w.Deadline = begun.Add(req.deadline)
	}
	if w.Request, err = json.Marshal(stored); err != nil {
		return w, err
	}
	switch {
	case req.source.id != "":
		image, err := g.findImage(ctx, who.consumer, req.source.id)
		if err != nil {
			return w, placed(req.source.field, err)
		}
		if err := g.segmenter.CheckMasks(image.Width, image.Height, len(req.prompts)); err != nil {
			return w, translate(err, req.field)
		}
		w.Picture, w.Bytes = image.Blob, image.Bytes
	case req.source.url != "":
		if err := g.checkURL(&req.source); err != nil {
			return w, err
		}
	default:
		header, err := g.segmenter.Inspect(ctx, req.source.data)
		if err == nil {
			err = g.segmenter.CheckMasks(header.Width, header.Height, len(req.prompts))
		}
		if err != nil {
			return w, translate(err, req.field)
		}
		w.Bytes = int64(len(req.source.data))
	}
	return w, nil
}

// Work is the jobs.Worker that answers the requests of jobs.
func (g *Gateway) Work(ctx context.Context, w *jobs.Work) (jobs.Result, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, g.cfg.RequestTimeout)
	defer cancel()
	var stored storedWork
	if err := json.Unmarshal(w.Request, &stored); err != nil {
		return jobs.Result{}, fmt.Errorf("the request of an item cannot be read: %w", err)
	}
	req := stored.request()
	who := asker{requestID: w.RequestID, consumer: w.APIKey, sharer: stored.Sharer, unit: stored.Unit}
	held, release := g.newHold(stored.Sharer)
	defer release()
	pic, err := g.pictureOf(ctx, who, req, w, held)
	if err != nil {
		return jobs.Result{}, err
	}
	fetched := time.Since(begun)
	masks := room{memory: g.answers}
	defer masks.release()
	found, err := g.find(ctx, who, req, question(who, req, pic), &masks)
	if err != nil {
		return jobs.Result{}, err
	}
	found.answer.Timings = newTimings(0, fetched, time.Since(begun), found.resp.Timings)
	kept := recording{header: make(http.Header)}
	if err := found.write(&kept, stored.Form, ""); err != nil {
		return jobs.Result{}, err
	}
	header, err := json.Marshal(kept.header)
	if err != nil {
		return jobs.Result{}, err
	}
	blob, err := g.keepBlob(ctx, w.APIKey, kept.body.Bytes(), time.Now())
	return jobs.Result{Blob: blob, Header: header}, err
}

func (s *storedWork) request() *segmentRequest {
	req := &segmentRequest{
		source: source{field: s.Field, url: s.URL}, variant: s.Variant, output: s.Output, priority: s.Priority, naming: s.Naming,
	}
	for _, p := range s.Prompts {
		req.prompts = append(req.prompts, prompt{p.Phrase, p.Formats, p.Chosen, p.Tolerance})
	}
	return req
}

// pictureOf brings the picture of an item.
func (g *Gateway) pictureOf(ctx context.Context, who asker, req *segmentRequest, w *jobs.Work, held *hold) (*picture, error) {
	if w.Picture == "" {
		return g.picture(ctx, who, &req.source, held)
	}
	if err := held.take(ctx, min(w.Bytes, g.cfg.BodyMemory)); err != nil {
		return nil, err
	}
	content, err := g.blobs.Get(ctx, w.Picture, w.Bytes)
	if errors.Is(err, blobs.ErrNotFound) {
		g.log.Warn("the picture of a job is gone", "job", w.Job, "object", w.Picture)
		return nil, placed(req.source.field, imageNotFound(err))
	}
	if err != nil {
		return nil, storageAway(err)
	}
	return &picture{content, sha256.Sum256(content)}, nil
}

// recording is an http.ResponseWriter that keeps what is written.
type recording struct {
	header http.Header
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *recording) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter: what is kept has succeeded.
func (r *recording) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (r *recording) Write(p []byte) (int, error) { return r.body.Write(p) }
