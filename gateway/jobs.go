package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/gateway/reply"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/store"
)

// Jobs does work after its request has been answered; *jobs.Engine is one. All of
// it is safe for concurrent use and may be called again after an error. For an
// object that the key does not have, the error is jobs.ErrNotFound.
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
}

// prefersAsync reports whether a client wants a job (RFC 7240, section 4.1).
func prefersAsync(h http.Header) bool {
	for preference := range strings.SplitSeq(strings.Join(h.Values(api.HeaderPrefer), ","), ",") {
		name, _, _ := strings.Cut(preference, ";")
		if strings.EqualFold(strings.TrimSpace(name), api.PreferAsync) {
			return true
		}
	}
	return false
}

// idempotentID returns the id of an object that a request stores. With an
// Idempotency-Key it is derived from the key and from the time of the first
// attempt, so a repeated request never stores two objects while its key is
// remembered, even if the gateway dies before it has stored its answer.
func idempotentID(c *gin.Context, prefix string) string {
	a, ok := c.Value(keyAttempt).(store.Attempt)
	if !ok {
		return prefix + strings.ToLower(rand.Text())
	}
	h := sha256.New()
	feed(h, []byte(a.APIKey), []byte(a.Key), a.RequestHash, []byte(a.Begun.UTC().Format(time.RFC3339Nano)))
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)))[:26]
}

// nameJob is middleware that refuses ids that no job can have.
func nameJob(c *gin.Context) {
	if !intake.IsText(c.Param("id")) {
		fail(c, jobsError(jobs.ErrNotFound))
	}
}

// jobsError converts an error of Jobs to an error with a code.
func jobsError(err error) error {
	var domainErr *refersam.Error
	switch {
	case errors.As(err, &domainErr):
		return err
	case errors.Is(err, jobs.ErrNotFound):
		return &refersam.Error{Code: refersam.CodeJobNotFound, Message: "The job does not exist or has expired.", Err: err}
	case errors.Is(err, jobs.ErrRunning):
		return &refersam.Error{Code: refersam.CodeUnfinished, Message: "The job has not ended.", RetryAfter: time.Second}
	case errors.Is(err, jobs.ErrNoWebhook):
		return refersam.Errorf(refersam.CodeNotFound, "The job has no webhook; a webhook can only be given when the job is submitted.")
	default:
		return store.Unavailable(err)
	}
}

// jobRoutes are the routes for jobs and their webhooks.
type jobRoutes struct {
	jobs    Jobs
	answers *answer.Service
	images  *images.Keeper
	log     *slog.Logger
}

// list answers GET /v1/jobs with the jobs of the client's key, newest first.
func (h *jobRoutes) list(c *gin.Context) error {
	at, err := parsePage(c, api.ListJobs, "status")
	if err != nil {
		return err
	}
	status := jobs.Status(c.Query("status"))
	if _, given := c.GetQuery("status"); given && !slices.Contains(jobs.Statuses, status) {
		return refersam.Invalidf("status", "The status must be one of queued, running, succeeded, failed and cancelled.")
	}
	var after *jobs.Job
	if at.id != "" {
		after = &jobs.Job{ID: at.id, Created: at.created}
	}
	listed, err := h.jobs.Jobs(c.Request.Context(), account(c), after, status, at.limit+1)
	if err != nil {
		return store.Unavailable(err)
	}
	list := api.Jobs{Jobs: []api.Job{}}
	for i, j := range listed {
		if i == at.limit {
			list.Next = api.Cursor(api.ListJobs, listed[i-1].Created, listed[i-1].ID)
			break
		}
		list.Jobs = append(list.Jobs, answer.NewJob(j))
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, list)
}

// get answers GET /v1/jobs/{id}.
func (h *jobRoutes) get(c *gin.Context) error {
	j, err := h.jobs.Job(c.Request.Context(), account(c), c.Param("id"))
	return h.answer(c, http.StatusOK, j, err)
}

// cancel answers POST /v1/jobs/{id}/cancel.
func (h *jobRoutes) cancel(c *gin.Context) error {
	j, err := h.jobs.Cancel(c.Request.Context(), account(c), c.Param("id"), time.Now())
	return h.answer(c, http.StatusOK, j, err)
}

// redeliver answers POST /v1/jobs/{id}/webhook/redeliver.
func (h *jobRoutes) redeliver(c *gin.Context) error {
	j, err := h.jobs.Redeliver(c.Request.Context(), account(c), c.Param("id"))
	return h.answer(c, http.StatusAccepted, j, err)
}

func (h *jobRoutes) answer(c *gin.Context, status int, j *jobs.Job, err error) error {
	if err != nil {
		return jobsError(err)
	}
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, status, answer.NewJob(j))
}

// delete answers DELETE /v1/jobs/{id}.
func (h *jobRoutes) delete(c *gin.Context) error {
	if err := h.jobs.Delete(c.Request.Context(), account(c), c.Param("id"), time.Now()); err != nil {
		return jobsError(err)
	}
	c.Status(http.StatusNoContent)
	return nil
}

// result answers GET /v1/jobs/{id}/items/{index} with the answer that POST
// /v1/segment would have sent.
func (h *jobRoutes) result(c *gin.Context) error {
	ctx := c.Request.Context()
	noItem := refersam.Errorf(refersam.CodeJobNotFound, "The job or item does not exist or has expired; GET /v1/jobs/{id} lists the items of a job.")
	index, err := strconv.Atoi(c.Param("index"))
	if err != nil || index < 0 || strconv.Itoa(index) != c.Param("index") {
		return noItem
	}
	item, err := h.jobs.Item(ctx, account(c), c.Param("id"), index)
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return noItem
	case err != nil:
		return jobsError(err)
	case item.Problem != nil:
		// This request is valid, so the status is not the item's, whatever caused
		// its failure.
		return refersam.Errorf(refersam.CodeItemFailed, "The item has failed with %s: %s", item.Problem.Code, item.Problem.Message)
	case item.Status == jobs.Cancelled:
		return refersam.Errorf(refersam.CodeCancelled, "The item was cancelled.")
	case item.Status != jobs.Succeeded:
		return jobsError(jobs.ErrRunning)
	}
	sum := sha256.Sum256([]byte(item.Blob))           // hashed, because names of objects are internal
	tag := `W/"` + hex.EncodeToString(sum[:16]) + `"` // weak, because all content encodings have the same tag
	c.Header("ETag", tag)
	c.Header("Cache-Control", "private, no-cache")
	c.Writer.Header().Add("Vary", "Accept-Encoding")
	if reply.HasStored(c.Request.Header, tag) {
		c.Status(http.StatusNotModified)
		return nil
	}
	var header http.Header
	if err := json.Unmarshal(item.Header, &header); err != nil {
		return fmt.Errorf("the header of a result cannot be read: %w", err)
	}
	release, err := h.answers.ReserveResult(item.Bytes)
	if err != nil {
		return err
	}
	defer release()
	content, err := h.images.Object(ctx, item.Blob, item.Bytes)
	if errors.Is(err, blobs.ErrNotFound) {
		h.log.Warn("the result of a job is missing", "job", c.Param("id"), "object", item.Blob)
		return jobsError(jobs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	for name, values := range header {
		c.Writer.Header()[name] = values
	}
	mediaType := header.Get("Content-Type")
	if mediaType == api.MediaJSON {
		return reply.WriteCompressedBody(c.Writer, content, reply.AcceptedEncoding(c.Request.Header.Values("Accept-Encoding")))
	}
	reply.WriteBody(c.Writer, mediaType, content)
	return nil
}

// secret answers GET /v1/webhooks/secret.
func (h *jobRoutes) secret(c *gin.Context) error {
	s, err := h.jobs.Secrets(c.Request.Context(), account(c), time.Now())
	return answerSecret(c, s, err)
}

// rotateSecret answers POST /v1/webhooks/secret/rotate.
func (h *jobRoutes) rotateSecret(c *gin.Context) error {
	s, err := h.jobs.RotateSecret(c.Request.Context(), account(c), time.Now())
	return answerSecret(c, s, err)
}

func answerSecret(c *gin.Context, s *jobs.Secrets, err error) error {
	if err != nil {
		return store.Unavailable(err)
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, api.WebhookSecret{Secret: s.Current, PreviousUntil: answer.TimeOrNil(s.PreviousUntil)})
}
