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

// answerMemory is how long the answer to an idempotency key is stored.
const answerMemory = 24 * time.Hour

// storeTimeout bounds storing an answer. The client may have disconnected by then.
const storeTimeout = 5 * time.Second

// Answers stores answers under clients' idempotency keys; *store.Store is one.
type Answers interface {
	Begin(ctx context.Context, a *store.Attempt, lease, expires, now time.Time) (answer []byte, err error)
	Finish(ctx context.Context, a store.Attempt, answer []byte, expires time.Time) error
	Abandon(ctx context.Context, a store.Attempt) error
	Sweep(ctx context.Context, now time.Time) error
}

// storedAnswer is an answer as it is stored, without the parts that differ between
// requests, such as the request's id.
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
	// timeout bounds the look-up of a key. lease is how long a request may be in
	// flight before another attempt may replace it.
	timeout, lease time.Duration
	log            *slog.Logger
}

// middleware is for routes that store something. A request with an Idempotency-Key
// is performed once: if a client repeats it, on any gateway, it gets the first
// answer again. Only successes are stored, because a refusal may be temporary and
// the client may try again.
//
// middleware holds the body and the answer in memory. It leases BodyMemory for the
// body, of at most the size that limit allows. It must run after require.
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
	stored, err := i.answers.Begin(ctx, &attempt, lease, now.Add(answerMemory), now)
	c.Set(keyAttempt, attempt)
	switch {
	case errors.Is(err, store.ErrUnderWay):
		fail(c, &refersam.Error{Code: refersam.CodeUnderWay, Message: "The first request with this Idempotency-Key is still running; retry shortly.", RetryAfter: time.Second})
	case errors.Is(err, store.ErrOtherRequest):
		fail(c, refersam.Errorf(refersam.CodeKeyReused, "A different request was sent with this Idempotency-Key; use a new key for a new request."))
	case err != nil:
		if ctx.Err() != nil { // the attempt may have begun all the same
			i.abandon(context.WithoutCancel(ctx), attempt)
		}
		fail(c, store.Unavailable(err))
	case stored != nil:
		replay(c, stored)
	default:
		i.attempt(c, attempt)
	}
}

// attempt performs the request and stores its answer before the client gets it.
func (i *idempotency) attempt(c *gin.Context, a store.Attempt) {
	ctx := context.WithoutCancel(c.Request.Context())
	held := &heldWriter{ResponseWriter: c.Writer, status: http.StatusOK}
	done := false
	defer func() {
		c.Writer = held.ResponseWriter
		if !done { // the handler panicked; recoverPanic answers
			i.abandon(ctx, a)
		}
	}()
	c.Writer = held
	c.Next()
	done = true
	if held.status/100 != 2 {
		i.abandon(ctx, a)
	} else if err := i.keep(ctx, a, held); err != nil {
		// The request was performed, and the client must learn that even if its
		// answer could not be stored.
		i.log.Warn("an answer could not be stored under its Idempotency-Key", "request_id", requestID(c), "cause", err)
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
		i.log.Warn("an Idempotency-Key could not be released; it stays taken until its lease ends", "cause", err)
	}
}

// replay sends a stored answer.
func replay(c *gin.Context, stored []byte) {
	var kept storedAnswer
	if err := json.Unmarshal(stored, &kept); err != nil {
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

// idempotencyKey returns the key in the request's header, "" for none. It may be in
// quotes, as the draft of the header requires.
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
		return "", refersam.Invalidf(api.HeaderIdempotencyKey, "The header %s must be given once, with 1 to 255 visible ASCII characters without quotes, such as a UUID.", api.HeaderIdempotencyKey)
	}
	return name, nil
}

// bufferBody reads the body, replaces it by a buffer, and returns a hash that
// distinguishes the request from others. The boundary of a form is not part of the
// hash, because clients choose a new one each time.
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

// feed adds pieces to a hash, each with its length, so that their boundaries
// matter.
func feed(h hash.Hash, pieces ...[]byte) {
	for _, piece := range pieces {
		_ = binary.Write(h, binary.LittleEndian, uint64(len(piece))) // writing to a hash never fails
		h.Write(piece)
	}
}

// feedForm adds the parts of a form to a hash, and reports whether it is a form
// that a route may accept.
func feedForm(h hash.Hash, body []byte, boundary string) bool {
	return intake.ReadParts(multipart.NewReader(bytes.NewReader(body), boundary), func(part *multipart.Part) error {
		value, err := io.ReadAll(part)
		if err == nil {
			feed(h, []byte(part.FormName()), []byte(part.FileName()), []byte(part.Header.Get("Content-Type")), value)
		}
		return err
	}) == nil
}

// heldWriter holds an answer back until send. Its headers are the headers of the
// underlying writer.
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
		_, _ = w.ResponseWriter.Write(w.body.Bytes()) // an error means that the client has disconnected
	}
}

// ifAsync applies middleware only to requests that may create a job.
func (i *idempotency) ifAsync(limit bodyLimit) gin.HandlerFunc {
	return func(c *gin.Context) {
		if prefersAsync(c.Request.Header) {
			i.once(c, limit)
		} else if _, err := idempotencyKey(c.Request.Header); err != nil {
			fail(c, err)
		}
	}
}
