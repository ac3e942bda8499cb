package gateway

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// kind is what all problems of one code have in common. Its title fits every
// cause, because RFC 9457 wants one title per type; the detail names the cause.
type kind struct {
	status int
	title  string
}

var kinds = map[refersam.Code]kind{
	refersam.CodeMalformedRequest: {http.StatusBadRequest, "The request cannot be read"},
	refersam.CodeInvalidRequest:   {http.StatusUnprocessableEntity, "A part of the request is missing, unknown or not allowed"},
	refersam.CodeInvalidImage:     {http.StatusUnprocessableEntity, "The picture cannot be decoded"},
	refersam.CodeImageTooLarge:    {http.StatusRequestEntityTooLarge, "The picture, the request or its answer is too large"},
	refersam.CodeBodyTooSlow:      {http.StatusRequestTimeout, "The body comes too slowly"},
	refersam.CodeUnsupportedMedia: {http.StatusUnsupportedMediaType, "The format of the body or of the picture is not supported"},
	refersam.CodePhraseEmpty:      {http.StatusUnprocessableEntity, "A phrase is empty"},
	refersam.CodePhraseTooLong:    {http.StatusUnprocessableEntity, "A phrase is too long"},
	refersam.CodeUnknownVariant:   {http.StatusUnprocessableEntity, "The variant is not known"},
	refersam.CodeJobNotFound:      {http.StatusNotFound, "There is no such job or item"},
	refersam.CodeUnfinished:       {http.StatusConflict, "The job or item has not ended"},
	refersam.CodeItemFailed:       {http.StatusGone, "The item has failed"},
	refersam.CodeCancelled:        {http.StatusGone, "The item was cancelled"},
	refersam.CodeFetchRefused:     {http.StatusUnprocessableEntity, "The address is not one that the service goes to"},
	refersam.CodeFetchFailed:      {http.StatusUnprocessableEntity, "The address gave no picture"},
	refersam.CodeImageNotFound:    {http.StatusNotFound, "There is no such image"},
	refersam.CodeNotFound:         {http.StatusNotFound, "What the request asks for does not exist"},
	refersam.CodeMethodNotAllowed: {http.StatusMethodNotAllowed, "The method is not allowed here"},
	refersam.CodeNotAcceptable:    {http.StatusNotAcceptable, "The answer has no form that is acceptable to the client"},
	refersam.CodeUnauthorized:     {http.StatusUnauthorized, "The request shows no API key that works"},
	refersam.CodeForbidden:        {http.StatusForbidden, "The request is not allowed"},
	refersam.CodeQuotaExceeded:    {http.StatusTooManyRequests, "The client has used up what it may use"},
	refersam.CodeStorageFull:      {http.StatusTooManyRequests, "The storage of the client is full"},
	refersam.CodeUnderWay:         {http.StatusConflict, "The same request is under way"},
	refersam.CodeKeyReused:        {http.StatusUnprocessableEntity, "The idempotency key belongs to another request"},
	refersam.CodeOverloaded:       {http.StatusServiceUnavailable, "The service is overloaded"},
	refersam.CodeNotReady:         {http.StatusServiceUnavailable, "The service is not ready"},
	refersam.CodeUnavailable:      {http.StatusServiceUnavailable, "Something that the service needs is not available"},
	refersam.CodeUpstream:         {http.StatusBadGateway, "The model server failed"},
	refersam.CodeDeadlineExceeded: {http.StatusGatewayTimeout, "The answer takes longer than there is time"},
	refersam.CodeInternal:         {http.StatusInternalServerError, "Something went wrong inside the service"},
}

// problem is the body of every answer that is not a success (RFC 9457).
type problem struct {
	Type      string        `json:"type"`
	Title     string        `json:"title"`
	Status    int           `json:"status"`
	Detail    string        `json:"detail,omitempty"`
	Code      refersam.Code `json:"code"`
	Field     string        `json:"field,omitempty"`
	RequestID string        `json:"request_id"`
	// Errors are all faults that were found, the first of which Detail and Field
	// tell of.
	Errors []problemError `json:"errors,omitempty"`
}

// problemError is one fault of a request: at a place of its JSON, as a pointer
// in a URI fragment (RFC 9457, section 3), or in a field of a form or a query.
type problemError struct {
	Detail  string `json:"detail"`
	Pointer string `json:"pointer,omitempty"`
	Field   string `json:"field,omitempty"`
}

// problemErrors lists the faults of a request that have a place in it.
func problemErrors(err *refersam.Error) []problemError {
	var all []problemError
	for _, e := range append([]*refersam.Error{err}, err.Also...) {
		if e.Field == "" || len(all) == refersam.MaxFaults {
			continue
		}
		shown := problemError{Detail: showable(e.Message)}
		if pointer := showable(e.Field); strings.HasPrefix(pointer, "/") {
			shown.Pointer = "#" + (&url.URL{Fragment: pointer}).EscapedFragment()
		} else {
			shown.Field = pointer
		}
		all = append(all, shown)
	}
	return all
}

// newProblem is what a client is shown of err: nothing if that is not a
// *refersam.Error.
func newProblem(err error, requestID string) (p problem, retryAfter time.Duration) {
	shown := &refersam.Error{Code: refersam.CodeInternal, Message: "The cause was logged under the id of this request."}
	errors.As(err, &shown)
	k, known := kinds[shown.Code]
	if !known {
		shown.Code, k = refersam.CodeInternal, kinds[refersam.CodeInternal]
	}
	return problem{
		Type:      problemType(shown.Code),
		Title:     k.title,
		Status:    k.status,
		Detail:    showable(shown.Message),
		Code:      shown.Code,
		Field:     showable(shown.Field),
		RequestID: requestID,
		Errors:    problemErrors(shown),
	}, shown.RetryAfter
}

// fail answers with err as application/problem+json and leaves it in the
// context for the access log. It is the one place where an error becomes a
// status.
func fail(c *gin.Context, err error) {
	_ = c.Error(err)
	if errors.Is(c.Request.Context().Err(), context.Canceled) && errors.Is(err, context.Canceled) {
		// Nobody reads this, or a client that has closed its side too early.
		c.AbortWithStatus(statusClientGone)
		return
	}
	p, retryAfter := newProblem(err, requestID(c))
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusConflict:
		if p.Code != refersam.CodeStorageFull { // for which waiting is no cure, though libraries wait by themselves
			c.Header("Retry-After", strconv.Itoa(max(1, int(math.Ceil(retryAfter.Seconds())))))
		}
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // an int and strings of valid UTF-8 always marshal
	}
	c.Writer.Header().Del("ETag") // of what is not answered
	c.Header("Cache-Control", "no-store")
	c.Data(p.Status, api.MediaProblem, body)
	c.Abort()
}

// maxShown is how many bytes of a text a problem shows: it may quote a client
// that sent megabytes.
const maxShown = 1000

// showable makes text that may quote the client's bytes fit for a problem.
func showable(s string) string {
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return validUTF8(s)
}

// validUTF8 makes text that may quote the client's bytes fit for JSON.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// handle makes a gin handler of one that returns its error.
func handle(h func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			fail(c, err)
		}
	}
}

// problemKind answers what a problem's type stands for.
func problemKind(c *gin.Context) error {
	code := refersam.Code(c.Param("code"))
	if _, ok := kinds[code]; !ok {
		return refersam.Errorf(refersam.CodeNotFound, "There is no such problem.")
	}
	return writeJSON(c, newProblemDescription(code))
}

// problemDescription is what all problems of one code have in common.
type problemDescription struct {
	Code   refersam.Code `json:"code"`
	Status int           `json:"status"`
	Title  string        `json:"title"`
	Cure   string        `json:"cure"`
}

func newProblemDescription(code refersam.Code) problemDescription {
	return problemDescription{code, kinds[code].status, kinds[code].title, cures[code]}
}

func writeJSON(c *gin.Context, v any) error { return writeStatusJSON(c, http.StatusOK, v) }

func writeStatusJSON(c *gin.Context, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.Data(status, api.MediaJSON, body)
	return nil
}
