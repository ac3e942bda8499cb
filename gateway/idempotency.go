package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/store"
)

// answerMemory is how long an answer can be asked for again.
const answerMemory = 24 * time.Hour

// storeTimeout bounds storing an answer after the client may have gone.
const storeTimeout = 5 * time.Second

// Answers keeps answers under the names that clients give; *store.Store is one.
type Answers interface {
	Begin(ctx context.Context, a *store.Attempt, lease, expires, now time.Time) (answer []byte, err error)
	Finish(ctx context.Context, a store.Attempt, answer []byte, expires time.Time) error
	Abandon(ctx context.Context, a store.Attempt) error
	Sweep(ctx context.Context, now time.Time) error
}

// storedAnswer is an answer as it is kept. What differs from request to request,
// as the request's id does, is not.
type storedAnswer struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header"`
	Body   []byte            `json:"body"`
}

// storedHeaders are the headers that belong to an answer.
var storedHeaders = []string{"Content-Type", "Location", api.HeaderApplied, "Etag", "Cache-Control"}

var idempotencyForm = regexp.MustCompile(api.IdempotencyKeyPattern)

// idempotency answers a repeated request with the first answer.
type idempotency struct {
	answers Answers
	bodies  *bodies
	// timeout bounds the look-up of a key, lease is how long a request may be under
	// way before another attempt may take its place.
	timeout, lease time.Duration
	log            *slog.Logger
}

// middleware is for routes that store something. A request with an
// Idempotency-Key is done once: who repeats it gets the first answer again,
// whichever gateway it comes to. What was not done is not kept: a refusal may be
// of the moment, and the request may be tried again.
//
// It holds the body and the answer in memory and counts the body, of which
// limit is the largest, against BodyMemory; it comes after require.
func (i *idempotency) middleware(limit bodyLimit) gin.HandlerFunc {
	return func(c *gin.Context) { i.once(c, limit) }
}

func (i *idempotency) once(c *gin.Context, limit bodyLimit) {
	name, err := idempotencyKey(c.Request.Header)
	if err != nil {
		fail(c, err)
		return
	}
	if name == "" {
		return
	}
	_, release, err := i.bodies.reserve(c, limit)
	if err != nil {
		fail(c, err)
		return
	}
	defer release()
	sum, err := bufferBody(c, limit)
	if err != nil {
		fail(c, err)
		return
	}
	attempt := store.Attempt{APIKey: account(c), Key: name, RequestHash: sum, Owner: rand.Text()}
	now := time.Now()
	lease := now.Add(i.lease)
	ctx, cancel := context.WithTimeout(c.Request.Context(), i.timeout)
	defer cancel()
	known, err := i.answers.Begin(ctx, &attempt, lease, now.Add(answerMemory), now)
	c.Set(keyAttempt, attempt)
	switch {
	case errors.Is(err, store.ErrUnderWay):
		fail(c, &refersam.Error{Code: refersam.CodeUnderWay, Message: "The first request with this Idempotency-Key has no answer yet; try again soon.", RetryAfter: time.Second})
	case errors.Is(err, store.ErrOtherRequest):
		fail(c, refersam.Errorf(refersam.CodeKeyReused, "Another request was sent with this Idempotency-Key; a new request takes a new key."))
	case err != nil:
		if ctx.Err() != nil { // it may have begun all the same
			i.abandon(context.WithoutCancel(ctx), attempt)
		}
		fail(c, store.Unavailable(err))
	case known != nil:
		replay(c, known)
	default:
		i.attempt(c, attempt)
	}
}

// attempt does the request and keeps its answer before the client gets it.
func (i *idempotency) attempt(c *gin.Context, a store.Attempt) {
	ctx := context.WithoutCancel(c.Request.Context())
	held := &heldWriter{ResponseWriter: c.Writer, status: http.StatusOK}
	done := false
	defer func() {
		c.Writer = held.ResponseWriter
		if !done { // the handler panicked, which recoverPanic answers
			i.abandon(ctx, a)
		}
	}()
	c.Writer = held
	c.Next()
	done = true
	if held.status/100 != 2 {
		i.abandon(ctx, a)
	} else if err := i.keep(ctx, a, held); err != nil {
		// What was asked for has been done; that is what the client must hear.
		i.log.Warn("an answer was not kept under its Idempotency-Key", "request_id", requestID(c), "cause", err)
	}
	held.send()
}

func (i *idempotency) keep(ctx context.Context, a store.Attempt, held *heldWriter) error {
	kept := storedAnswer{Status: held.status, Header: make(map[string]string), Body: held.body.Bytes()}
	for _, name := range storedHeaders {
		if value := held.Header().Get(name); value != "" {
			kept.Header[name] = value
		}
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return i.answers.Finish(ctx, a, data, time.Now().Add(answerMemory))
}

func (i *idempotency) abandon(ctx context.Context, a store.Attempt) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := i.answers.Abandon(ctx, a); err != nil {
		i.log.Warn("an Idempotency-Key stays taken until its lease ends", "cause", err)
	}
}

// replay answers with what was kept.
func replay(c *gin.Context, known []byte) {
	var kept storedAnswer
	if err := json.Unmarshal(known, &kept); err != nil {
		fail(c, fmt.Errorf("a stored answer cannot be read: %w", err))
		return
	}
	for name, value := range kept.Header {
		c.Header(name, value)
	}
	c.Header(api.HeaderReplayed, "true")
	c.Status(kept.Status)
	_, _ = c.Writer.Write(kept.Body)
	c.Abort()
}

// idempotencyKey returns the name that a client gives its request, "" for none.
// It may be in quotes, as the draft of the header wants.
func idempotencyKey(h http.Header) (string, error) {
	values := h.Values(api.HeaderIdempotencyKey)
	if len(values) == 0 {
		return "", nil
	}
	name := values[0]
	if len(name) >= 2 && strings.HasPrefix(name, `"`) && strings.HasSuffix(name, `"`) {
		name = name[1 : len(name)-1]
	}
	if len(values) > 1 || !idempotencyForm.MatchString(name) {
		return "", intake.Invalid(api.HeaderIdempotencyKey, "The header %s must be given once, with 1 to 255 visible ASCII characters but quotes, a UUID for example.", api.HeaderIdempotencyKey)
	}
	return name, nil
}

// bufferBody reads the body, leaves it to be read again, and returns what tells
// the request from others. The boundary of a form is not part of that: clients
// draw a new one each time.
func bufferBody(c *gin.Context, limit bodyLimit) ([]byte, error) {
	r := c.Request
	mediaType, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, r.Body, limit(mediaType)))
	if err != nil {
		return nil, intake.ReadError(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h := sha256.New()
	feed(h, []byte(r.Method), []byte(r.URL.Path), []byte(r.URL.RawQuery), []byte(mediaType))
	if mediaType != "multipart/form-data" || !feedForm(h, body, params["boundary"]) {
		feed(h, body)
	}
	return h.Sum(nil), nil
}

// feed adds pieces to a hash so that their ends matter.
func feed(h hash.Hash, pieces ...[]byte) {
	for _, piece := range pieces {
		_ = binary.Write(h, binary.LittleEndian, uint64(len(piece))) // a hash takes everything
		h.Write(piece)
	}
}

// feedForm adds the parts of a form to a hash, and reports whether it was one
// that a route may take.
func feedForm(h hash.Hash, body []byte, boundary string) bool {
	return intake.ReadParts(multipart.NewReader(bytes.NewReader(body), boundary), func(part *multipart.Part) error {
		value, err := io.ReadAll(part)
		if err == nil {
			feed(h, []byte(part.FormName()), []byte(part.FileName()), []byte(part.Header.Get("Content-Type")), value)
		}
		return err
	}) == nil
}

// heldWriter keeps an answer back until send. Its headers are those of the
// writer below.
type heldWriter struct {
	gin.ResponseWriter
	status  int
	body    bytes.Buffer
	written bool
}

func (w *heldWriter) WriteHeader(status int) { w.status = status }
func (w *heldWriter) WriteHeaderNow()        { w.written = true }
func (w *heldWriter) Flush()                 {}
func (w *heldWriter) Status() int            { return w.status }
func (w *heldWriter) Size() int              { return w.body.Len() }
func (w *heldWriter) Written() bool          { return w.written }

func (w *heldWriter) Write(p []byte) (int, error) {
	w.written = true
	return w.body.Write(p)
}

func (w *heldWriter) WriteString(s string) (int, error) {
	w.written = true
	return w.body.WriteString(s)
}

func (w *heldWriter) send() {
	w.ResponseWriter.WriteHeader(w.status)
	if w.body.Len() > 0 {
		_, _ = w.ResponseWriter.Write(w.body.Bytes()) // an error is the client's going away
	}
}

// ifAsync is middleware for requests that may make a job.
func (i *idempotency) ifAsync(limit bodyLimit) gin.HandlerFunc {
	return func(c *gin.Context) {
		if prefersAsync(c.Request.Header) {
			i.once(c, limit)
		} else if _, err := idempotencyKey(c.Request.Header); err != nil {
			fail(c, err)
		}
	}
}
