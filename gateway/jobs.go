package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/store"
)

// Jobs does work after its request has been answered; *jobs.Engine is one. All
// of it is safe for concurrent use and may be called again after an error. What
// a key does not have is jobs.ErrNotFound.
type Jobs interface {
	Submit(ctx context.Context, s jobs.Submission, now time.Time) (*jobs.Job, error)
	Job(ctx context.Context, apiKey, id string) (*jobs.Job, error)
	Item(ctx context.Context, apiKey, id string, index int) (*jobs.Item, error)
	Jobs(ctx context.Context, apiKey string, after *jobs.Job, status jobs.Status, limit int) ([]*jobs.Job, error)
	Events(ctx context.Context, id string, after int64, limit int) ([]jobs.Event, error)
	Cancel(ctx context.Context, apiKey, id string, now time.Time) (*jobs.Job, error)
	Delete(ctx context.Context, apiKey, id string, now time.Time) error
	Redeliver(ctx context.Context, apiKey, id string) (*jobs.Job, error)
	Secrets(ctx context.Context, apiKey string, now time.Time) (*jobs.Secrets, error)
	RotateSecret(ctx context.Context, apiKey string, now time.Time) (*jobs.Secrets, error)
	Backlog(ctx context.Context) (jobs.Backlog, error)
}

// The kinds of jobs.
const (
	kindSegment = "segment"
	kindBatch   = "batch"
)

const (
	headerPrefer  = "Prefer"
	preferAsync   = "respond-async"
	headerApplied = "Preference-Applied"
)

// prefersAsync reports whether a client wants a job (RFC 7240, section 4.1).
func prefersAsync(h http.Header) bool {
	for preference := range strings.SplitSeq(strings.Join(h.Values(headerPrefer), ","), ",") {
		name, _, _ := strings.Cut(preference, ";")
		if strings.EqualFold(strings.TrimSpace(name), preferAsync) {
			return true
		}
	}
	return false
}

// onceIfAsync is idempotent for requests that make a job.
func (g *Gateway) onceIfAsync(limit bodyLimit) gin.HandlerFunc {
	return func(c *gin.Context) {
		if prefersAsync(c.Request.Header) {
			g.once(c, limit)
		} else if _, err := idempotencyKey(c.Request.Header); err != nil {
			fail(c, err)
		}
	}
}

// jobAnswer is a job as clients see it.
type jobAnswer struct {
	ID     string      `json:"id"`
	Kind   string      `json:"kind"`
	Status jobs.Status `json:"status"`
	// RequestID is that of the request that made the job, and of its answers.
	RequestID  string         `json:"request_id"`
	CreatedAt  time.Time      `json:"created_at"`
	StartedAt  *time.Time     `json:"started_at,omitempty"`
	FinishedAt *time.Time     `json:"finished_at,omitempty"`
	ExpiresAt  *time.Time     `json:"expires_at,omitempty"`
	Progress   jobProgress    `json:"progress"`
	Items      []jobItem      `json:"items,omitempty"`
	Webhook    *webhookAnswer `json:"webhook,omitempty"`
}

type jobProgress struct {
	Total     int `json:"total"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Cancelled int `json:"cancelled"`
}

type jobItem struct {
	Index  int         `json:"index"`
	ID     string      `json:"id,omitempty"`
	Status jobs.Status `json:"status"`
	// Result is the path of the answer.
	Result  string   `json:"result,omitempty"`
	Problem *problem `json:"problem,omitempty"`
}

type webhookAnswer struct {
	URL           string             `json:"url"`
	Status        jobs.WebhookStatus `json:"status"`
	Attempts      int                `json:"attempts"`
	LastAttemptAt *time.Time         `json:"last_attempt_at,omitempty"`
	LastError     string             `json:"last_error,omitempty"`
}

type jobList struct {
	Jobs []jobAnswer `json:"jobs"`
	Next string      `json:"next,omitempty"`
}

func newJobAnswer(j *jobs.Job) jobAnswer {
	a := jobAnswer{
		ID: j.ID, Kind: j.Kind, Status: j.Status, RequestID: j.RequestID,
		CreatedAt: j.Created, StartedAt: known(j.Started), FinishedAt: known(j.Finished), ExpiresAt: known(j.Expires),
		Progress: jobProgress{j.Total, j.Succeeded, j.Failed, j.Cancelled},
	}
	for i := range j.Items {
		a.Items = append(a.Items, newJobItem(j, &j.Items[i]))
	}
	if w := j.Webhook; w != nil {
		a.Webhook = &webhookAnswer{w.URL, w.Status, w.Attempts, known(w.Tried), validUTF8(w.LastError)}
	}
	return a
}

func newJobItem(j *jobs.Job, i *jobs.Item) jobItem {
	a := jobItem{Index: i.Index, ID: i.ID, Status: i.Status}
	if i.Status == jobs.Succeeded {
		a.Result = fmt.Sprintf("/v1/jobs/%s/items/%d", j.ID, i.Index)
	}
	if i.Problem != nil {
		p, _ := newProblem(i.Problem.Err(), j.RequestID)
		a.Problem = &p
	}
	return a
}

// known is nil for a time that is not known yet.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

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
	g.counter.addRequest(who.consumer)
	c.Header("Location", "/v1/jobs/"+j.ID)
	c.Header(headerApplied, preferAsync)
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, http.StatusAccepted, newJobAnswer(j))
}

// nameJob is middleware that refuses ids that no job has, nor any text.
func nameJob(c *gin.Context) {
	if !isText(c.Param("id")) {
		fail(c, jobsError(jobs.ErrNotFound))
	}
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

// jobsError gives an error of Jobs the code that a client knows.
func jobsError(err error) error {
	var known *refersam.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, jobs.ErrNotFound):
		return &refersam.Error{Code: refersam.CodeJobNotFound, Message: "There is no such job, or it has expired.", Err: err}
	case errors.Is(err, jobs.ErrRunning):
		return &refersam.Error{Code: refersam.CodeUnfinished, Message: "The job has not ended.", RetryAfter: time.Second}
	case errors.Is(err, jobs.ErrNoWebhook):
		return refersam.Errorf(refersam.CodeNotFound, "The job has no webhook; only one that was given with its request can be told again.")
	default:
		return databaseAway(err)
	}
}

// listJobs answers GET /v1/jobs: those of the client's key, the newest first.
func (g *Gateway) listJobs(c *gin.Context) error {
	at, err := listOfJobs.page(c, "status")
	if err != nil {
		return err
	}
	status := jobs.Status(c.Query("status"))
	if _, given := c.GetQuery("status"); given && !slices.Contains(jobs.Statuses, status) {
		return invalid("status", "The status must be one of queued, running, succeeded, failed and cancelled.")
	}
	var after *jobs.Job
	if at.id != "" {
		after = &jobs.Job{ID: at.id, Created: at.created}
	}
	found, err := g.jobs.Jobs(c.Request.Context(), consumer(c), after, status, at.limit+1)
	if err != nil {
		return databaseAway(err)
	}
	list := jobList{Jobs: []jobAnswer{}}
	for i, j := range found {
		if i == at.limit {
			list.Next = listOfJobs.cursor(found[i-1].Created, found[i-1].ID)
			break
		}
		list.Jobs = append(list.Jobs, newJobAnswer(j))
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, list)
}

// job answers GET /v1/jobs/{id}.
func (g *Gateway) job(c *gin.Context) error {
	j, err := g.jobs.Job(c.Request.Context(), consumer(c), c.Param("id"))
	return g.answerJob(c, http.StatusOK, j, err)
}

// cancelJob answers POST /v1/jobs/{id}/cancel.
func (g *Gateway) cancelJob(c *gin.Context) error {
	j, err := g.jobs.Cancel(c.Request.Context(), consumer(c), c.Param("id"), time.Now())
	return g.answerJob(c, http.StatusOK, j, err)
}

// redeliver answers POST /v1/jobs/{id}/webhook/redeliver.
func (g *Gateway) redeliver(c *gin.Context) error {
	j, err := g.jobs.Redeliver(c.Request.Context(), consumer(c), c.Param("id"))
	return g.answerJob(c, http.StatusAccepted, j, err)
}

func (g *Gateway) answerJob(c *gin.Context, status int, j *jobs.Job, err error) error {
	if err != nil {
		return jobsError(err)
	}
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, status, newJobAnswer(j))
}

// deleteJob answers DELETE /v1/jobs/{id}.
func (g *Gateway) deleteJob(c *gin.Context) error {
	if err := g.jobs.Delete(c.Request.Context(), consumer(c), c.Param("id"), time.Now()); err != nil {
		return jobsError(err)
	}
	c.Status(http.StatusNoContent)
	return nil
}

// jobResult answers GET /v1/jobs/{id}/items/{index} with what POST /v1/segment
// would have answered.
func (g *Gateway) jobResult(c *gin.Context) error {
	ctx := c.Request.Context()
	noItem := refersam.Errorf(refersam.CodeJobNotFound, "There is no such item, no such job, or it has expired; GET /v1/jobs/{id} lists the items of a job.")
	index, err := strconv.Atoi(c.Param("index"))
	if err != nil || index < 0 || strconv.Itoa(index) != c.Param("index") {
		return noItem
	}
	item, err := g.jobs.Item(ctx, consumer(c), c.Param("id"), index)
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return noItem
	case err != nil:
		return jobsError(err)
	case item.Problem != nil:
		// That is no fault of this request, whoever's it was.
		return refersam.Errorf(refersam.CodeItemFailed, "The item has failed with %s: %s", item.Problem.Code, item.Problem.Message)
	case item.Status == jobs.Cancelled:
		return refersam.Errorf(refersam.CodeCancelled, "The item was cancelled.")
	case item.Status != jobs.Succeeded:
		return jobsError(jobs.ErrRunning)
	}
	sum := sha256.Sum256([]byte(item.Blob))           // whose name is for nobody else
	tag := `W/"` + hex.EncodeToString(sum[:16]) + `"` // weak, since it is that of all encodings
	c.Header("ETag", tag)
	c.Header("Cache-Control", "private, no-cache")
	c.Writer.Header().Add("Vary", "Accept-Encoding")
	if hasStored(c.Request.Header, tag) {
		c.Status(http.StatusNotModified)
		return nil
	}
	var header http.Header
	if err := json.Unmarshal(item.Header, &header); err != nil {
		return fmt.Errorf("the header of a result cannot be read: %w", err)
	}
	// It does not wait for what masks, which cannot wait, need.
	held := &hold{memory: g.answers, impatient: true}
	defer held.release()
	if err := held.take(ctx, min(item.Bytes, g.cfg.AnswerMemory)); err != nil {
		return err
	}
	content, err := g.blobs.Get(ctx, item.Blob, item.Bytes)
	if errors.Is(err, blobs.ErrNotFound) {
		g.log.Warn("the result of a job is gone", "job", c.Param("id"), "object", item.Blob)
		return jobsError(jobs.ErrNotFound)
	}
	if err != nil {
		return storageAway(err)
	}
	for name, values := range header {
		c.Writer.Header()[name] = values
	}
	mediaType := header.Get("Content-Type")
	if mediaType == mediaJSON {
		return writeCompressedBody(c.Writer, content, acceptedEncoding(c.Request.Header.Values("Accept-Encoding")))
	}
	writeBody(c.Writer, mediaType, content)
	return nil
}

// secretAnswer is what webhooks of a key are signed with.
type secretAnswer struct {
	Secret string `json:"secret"`
	// PreviousUntil is until when they are signed with the one before, too.
	PreviousUntil *time.Time `json:"previous_until,omitempty"`
}

// webhookSecret answers GET /v1/webhooks/secret.
func (g *Gateway) webhookSecret(c *gin.Context) error {
	s, err := g.jobs.Secrets(c.Request.Context(), consumer(c), time.Now())
	return answerSecret(c, s, err)
}

// rotateWebhookSecret answers POST /v1/webhooks/secret/rotate.
func (g *Gateway) rotateWebhookSecret(c *gin.Context) error {
	s, err := g.jobs.RotateSecret(c.Request.Context(), consumer(c), time.Now())
	return answerSecret(c, s, err)
}

func answerSecret(c *gin.Context, s *jobs.Secrets, err error) error {
	if err != nil {
		return databaseAway(err)
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, secretAnswer{s.Current, known(s.PreviousUntil)})
}

// jobFinished is the type of what webhooks tell.
const jobFinished = "job.finished"

// webhookBody is what a webhook tells.
type webhookBody struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      jobAnswer `json:"data"`
}

// Payload is the jobs.Payload of webhooks.
func (g *Gateway) Payload(j *jobs.Job) ([]byte, error) {
	a := newJobAnswer(j)
	a.Webhook = nil // that is between the client and us
	return json.Marshal(webhookBody{jobFinished, j.Finished, a}, json.Deterministic(true))
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
