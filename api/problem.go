package api

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/refersam/refersam"
)

// kind is the part of a problem that depends only on its code. The title fits every
// cause, because RFC 9457 requires one title per type; the detail names the cause.
type kind struct {
	status      int
	title, cure string
}

var kinds = map[refersam.Code]kind{
	refersam.CodeMalformedRequest: {http.StatusBadRequest, "The request cannot be read", "Send the whole body, and in the form that its Content-Type names."},
	refersam.CodeInvalidRequest:   {http.StatusUnprocessableEntity, "A part of the request is missing, unknown or not allowed", "Correct what `field` or `detail` names; `detail` says what is allowed."},
	refersam.CodeInvalidImage:     {http.StatusUnprocessableEntity, "The picture cannot be decoded", "Send the whole, undamaged file; check that it opens in a viewer."},
	refersam.CodeImageTooLarge:    {http.StatusRequestEntityTooLarge, "The picture, the request or its answer is too large", "Send a smaller picture or less at once, or ask for fewer phrases or formats; `detail` says what is too large."},
	refersam.CodeBodyTooSlow:      {http.StatusRequestTimeout, "The body arrives too slowly", "Send the whole body without long pauses; on a slow connection send a smaller picture."},
	refersam.CodeUnsupportedMedia: {http.StatusUnsupportedMediaType, "The format of the body or of the picture is not supported", "Send a form, JSON or a picture, without content encoding; pictures are JPEG, PNG, WebP, GIF, BMP or TIFF."},
	refersam.CodePhraseEmpty:      {http.StatusUnprocessableEntity, "A phrase is empty", "Say what to find, for example “the dog on the left”."},
	refersam.CodePhraseTooLong:    {http.StatusUnprocessableEntity, "A phrase is too long", "Describe it in fewer words."},
	refersam.CodeUnknownVariant:   {http.StatusUnprocessableEntity, "The variant is not known", "Leave the variant out, or use one that `/v1/models` lists."},
	refersam.CodeJobNotFound:      {http.StatusNotFound, "The job or item does not exist", "Check the id, and use the API key that made the job."},
	refersam.CodeUnfinished:       {http.StatusConflict, "The job or item has not ended", "Wait for the job's end: poll the job, follow its events, or use a webhook."},
	refersam.CodeItemFailed:       {http.StatusGone, "The item has failed", "Read the item's `problem` in the job, correct the cause, and submit it again."},
	refersam.CodeCancelled:        {http.StatusGone, "The item was cancelled", "Submit the work again if it is still needed."},
	refersam.CodeFetchRefused:     {http.StatusUnprocessableEntity, "The service may not reach the address", "Send the picture itself, and leave the webhook out; or ask the operator of the service to add the host."},
	refersam.CodeFetchFailed:      {http.StatusUnprocessableEntity, "The address did not return a picture", "Check that the address returns the picture to anybody, without redirects to other hosts; or send the picture itself."},
	refersam.CodeImageNotFound:    {http.StatusNotFound, "The image does not exist", "Send the picture to `/v1/images` again, with the same API key, and use the id in the answer."},
	refersam.CodeNotFound:         {http.StatusNotFound, "The requested resource does not exist", "Check the address; `/docs` lists all addresses."},
	refersam.CodeMethodNotAllowed: {http.StatusMethodNotAllowed, "The method is not allowed here", "Use a method that the `Allow` header lists."},
	refersam.CodeNotAcceptable:    {http.StatusNotAcceptable, "The answer cannot be sent in a form that the client accepts", "Send `Accept: application/json`, `image/png`, `application/zip` or `multipart/mixed`, or leave it out."},
	refersam.CodeUnauthorized:     {http.StatusUnauthorized, "The request has no valid API key", "Send a valid API key, as `Authorization: Bearer rsk_…`; ask the operator of the service for one."},
	refersam.CodeForbidden:        {http.StatusForbidden, "The request is not allowed", "Use a key with the scope that `WWW-Authenticate` names. A service without keys accepts only requests from its own machine and from the configured origins."},
	refersam.CodeQuotaExceeded:    {http.StatusTooManyRequests, "The client has used up its quota", "Wait for the seconds in `Retry-After`, or ask the operator of the service for a larger quota."},
	refersam.CodeStorageFull:      {http.StatusTooManyRequests, "The storage of the client is full", "Delete images and jobs, or ask the operator of the service for more storage, which is the only way for feedback; waiting helps only once something has expired."},
	refersam.CodeUnderWay:         {http.StatusConflict, "The same request is under way", "Wait for the seconds in `Retry-After`, then send the same request again."},
	refersam.CodeKeyReused:        {http.StatusUnprocessableEntity, "The idempotency key belongs to another request", "Use a new `Idempotency-Key` for a new request."},
	refersam.CodeOverloaded:       {http.StatusServiceUnavailable, "The service is overloaded", "Wait for the seconds in `Retry-After`, then try again."},
	refersam.CodeNotReady:         {http.StatusServiceUnavailable, "The service is not ready", "Wait for the seconds in `Retry-After`, then try again; `/readyz` says what is missing."},
	refersam.CodeUnavailable:      {http.StatusServiceUnavailable, "Something that the service needs is not available", "Wait for the seconds in `Retry-After`, then try again."},
	refersam.CodeUpstream:         {http.StatusBadGateway, "The model server failed", "Try again once; if it fails again, send the `request_id` to the operator of the service."},
	refersam.CodeDeadlineExceeded: {http.StatusGatewayTimeout, "The answer takes longer than the time limit", "Allow more time in `deadline_ms`, or ask for less at once."},
	refersam.CodeInternal:         {http.StatusInternalServerError, "Something went wrong inside the service", "Send the `request_id` to the operator of the service."},
}

// Problem is the body of every answer that is not a success (RFC 9457).
type Problem struct {
	_         struct{}       `doc:"The description of an error (RFC 9457)."`
	Type      string         `json:"type" doc:"An address that describes the code"`
	Title     string         `json:"title" doc:"The code in words"`
	Status    int            `json:"status" doc:"The HTTP status"`
	Detail    string         `json:"detail,omitempty" doc:"What is wrong and what to do, for people; may change"`
	Code      refersam.Code  `json:"code" doc:"For programs; stable"`
	Field     string         `json:"field,omitempty" doc:"The part of the request at fault: a JSON pointer, or the name of a form field"`
	RequestID string         `json:"request_id" doc:"The id of the request, as in the log"`
	Errors    []ProblemError `json:"errors,omitempty" doc:"All faults that were found; 'detail' and 'field' describe the first"`
}

// ProblemError is one fault of a request: at a place of its JSON, as a pointer
// in a URI fragment (RFC 9457, section 3), or in a field of a form or a query.
type ProblemError struct {
	_       struct{} `doc:"One fault of a request."`
	Detail  string   `json:"detail" doc:"What is wrong and what to do, for people; may change"`
	Pointer string   `json:"pointer,omitempty" doc:"The place in JSON, as a pointer in a URI fragment"`
	Field   string   `json:"field,omitempty" doc:"The field of a form, or the parameter of a query"`
}

// ProblemDescription is the body of GET /problems/{code}: the part of a problem
// that depends only on its code.
type ProblemDescription struct {
	_      struct{}      `doc:"The description of a problem's code."`
	Code   refersam.Code `json:"code" doc:"The code"`
	Status int           `json:"status" doc:"The HTTP status"`
	Title  string        `json:"title" doc:"The code in words"`
	Cure   string        `json:"cure" doc:"What to do"`
}

// Codes returns the codes of all problems, sorted.
func Codes() []refersam.Code { return slices.Sorted(maps.Keys(kinds)) }

// DescribeProblem returns the description of a code, and whether the code exists.
func DescribeProblem(code refersam.Code) (ProblemDescription, bool) {
	k, ok := kinds[code]
	return ProblemDescription{Code: code, Status: k.status, Title: k.title, Cure: k.cure}, ok
}

// ProblemType returns the address that describes a code.
func ProblemType(code refersam.Code) string { return "/problems/" + string(code) }

// NewProblem returns the problem for err in the form that clients may see, and when
// the client may retry. For an error that is not a *refersam.Error, it shows no
// cause.
func NewProblem(err error, requestID string) (p Problem, retryAfter time.Duration) {
	shown := &refersam.Error{Code: refersam.CodeInternal, Message: "The cause was logged under the id of this request."}
	errors.As(err, &shown)
	code := shown.Code
	k, ok := kinds[code]
	if !ok {
		code, k = refersam.CodeInternal, kinds[refersam.CodeInternal]
	}
	return Problem{
		Type:      ProblemType(code),
		Title:     k.title,
		Status:    k.status,
		Detail:    Showable(shown.Message),
		Code:      code,
		Field:     Showable(shown.At.String()),
		RequestID: requestID,
		Errors:    problemErrors(shown),
	}, shown.RetryAfter
}

// maxShown is how many bytes of a text a problem shows, because the text may
// quote a client that sent megabytes.
const maxShown = 1000

// Showable shortens text that may quote the client's bytes, and makes it valid
// UTF-8.
func Showable(s string) string {
	if len(s) > maxShown {
		s = s[:maxShown] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// problemErrors lists the faults of a request that have a place in it.
func problemErrors(err *refersam.Error) []ProblemError {
	var all []ProblemError
	for _, e := range append([]*refersam.Error{err}, err.Also...) {
		if e.At == (refersam.Place{}) || len(all) == refersam.MaxFaults {
			continue
		}
		shown := ProblemError{Detail: Showable(e.Message)}
		if pointer := Showable(e.At.String()); strings.HasPrefix(pointer, "/") {
			shown.Pointer = "#" + (&url.URL{Fragment: pointer}).EscapedFragment()
		} else {
			shown.Field = pointer
		}
		all = append(all, shown)
	}
	return all
}
