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

// kind is what all problems with one code share. The title fits every cause,
// because RFC 9457 wants one title per type; the detail names the cause.
type kind struct {
	status      int
	title, cure string
}

var kinds = map[refersam.Code]kind{
	refersam.CodeMalformedRequest: {http.StatusBadRequest, "The request cannot be read", "Send the whole body, and in the form that its Content-Type names."},
	refersam.CodeInvalidRequest:   {http.StatusUnprocessableEntity, "A part of the request is missing, unknown or not allowed", "Correct what `field` or `detail` names; `detail` says what is allowed."},
	refersam.CodeInvalidImage:     {http.StatusUnprocessableEntity, "The picture cannot be decoded", "Send the whole, undamaged file; check that it opens in a viewer."},
	refersam.CodeImageTooLarge:    {http.StatusRequestEntityTooLarge, "The picture, the request or its answer is too large", "Send a smaller picture or less at once, or ask for fewer phrases or formats; `detail` says what is too large."},
	refersam.CodeBodyTooSlow:      {http.StatusRequestTimeout, "The body comes too slowly", "Send the whole body without long pauses; on a slow connection send a smaller picture."},
	refersam.CodeUnsupportedMedia: {http.StatusUnsupportedMediaType, "The format of the body or of the picture is not supported", "Send a form, JSON or a picture, not compressed; pictures are JPEG, PNG, WebP, GIF, BMP or TIFF."},
	refersam.CodePhraseEmpty:      {http.StatusUnprocessableEntity, "A phrase is empty", "Say what to find, for example “the dog on the left”."},
	refersam.CodePhraseTooLong:    {http.StatusUnprocessableEntity, "A phrase is too long", "Say it in fewer words."},
	refersam.CodeUnknownVariant:   {http.StatusUnprocessableEntity, "The variant is not known", "Leave the variant out, or take one that `/v1/models` lists."},
	refersam.CodeJobNotFound:      {http.StatusNotFound, "There is no such job or item", "Check the id, and use the API key that made the job."},
	refersam.CodeUnfinished:       {http.StatusConflict, "The job or item has not ended", "Wait for the job's end: look at the job, follow its events, or have it told to a webhook."},
	refersam.CodeItemFailed:       {http.StatusGone, "The item has failed", "Look at the item's `problem` in the job, mend what it names, and submit it again."},
	refersam.CodeCancelled:        {http.StatusGone, "The item was cancelled", "Submit the work again if it is wanted after all."},
	refersam.CodeFetchRefused:     {http.StatusUnprocessableEntity, "The address is not one that the service goes to", "Send the picture itself, and leave the webhook out; or ask whoever runs the service to add the host."},
	refersam.CodeFetchFailed:      {http.StatusUnprocessableEntity, "The address gave no picture", "Check that the address gives the picture to anybody, without redirects to other hosts; or send the picture itself."},
	refersam.CodeImageNotFound:    {http.StatusNotFound, "There is no such image", "Send the picture to `/v1/images` again, with the same API key, and use the id that comes back."},
	refersam.CodeNotFound:         {http.StatusNotFound, "What the request asks for does not exist", "Check the address; `/docs` lists all."},
	refersam.CodeMethodNotAllowed: {http.StatusMethodNotAllowed, "The method is not allowed here", "Use a method that the `Allow` header lists."},
	refersam.CodeNotAcceptable:    {http.StatusNotAcceptable, "The answer has no form that is acceptable to the client", "Send `Accept: application/json`, `image/png`, `application/zip` or `multipart/mixed`, or leave it out."},
	refersam.CodeUnauthorized:     {http.StatusUnauthorized, "The request shows no API key that works", "Send an API key that works, as `Authorization: Bearer rsk_…`; ask whoever runs the service for one."},
	refersam.CodeForbidden:        {http.StatusForbidden, "The request is not allowed", "Use a key with the scope that `WWW-Authenticate` names. A service without keys is for its own machine and the origins it is set to."},
	refersam.CodeQuotaExceeded:    {http.StatusTooManyRequests, "The client has used up what it may use", "Wait for as many seconds as `Retry-After` says, or ask for more."},
	refersam.CodeStorageFull:      {http.StatusTooManyRequests, "The storage of the client is full", "Delete images and jobs, or ask who runs the service for more, as for feedback; to wait helps only once something has expired."},
	refersam.CodeUnderWay:         {http.StatusConflict, "The same request is under way", "Wait for as many seconds as `Retry-After` says, then send the same again."},
	refersam.CodeKeyReused:        {http.StatusUnprocessableEntity, "The idempotency key belongs to another request", "Take a new `Idempotency-Key` for a new request."},
	refersam.CodeOverloaded:       {http.StatusServiceUnavailable, "The service is overloaded", "Wait for as many seconds as `Retry-After` says, then try again."},
	refersam.CodeNotReady:         {http.StatusServiceUnavailable, "The service is not ready", "Wait for as many seconds as `Retry-After` says, then try again; ask `/readyz` what is missing."},
	refersam.CodeUnavailable:      {http.StatusServiceUnavailable, "Something that the service needs is not available", "Wait for as many seconds as `Retry-After` says, then try again."},
	refersam.CodeUpstream:         {http.StatusBadGateway, "The model server failed", "Try again once; if it stays, tell who runs the service the `request_id`."},
	refersam.CodeDeadlineExceeded: {http.StatusGatewayTimeout, "The answer takes longer than there is time", "Give more time in `deadline_ms`, or ask for less at once."},
	refersam.CodeInternal:         {http.StatusInternalServerError, "Something went wrong inside the service", "Tell who runs the service the `request_id`."},
}

// Problem is the body of every answer that is not a success (RFC 9457).
type Problem struct {
	_         struct{}       `doc:"Why there is no success (RFC 9457)."`
	Type      string         `json:"type" doc:"An address that tells about the code"`
	Title     string         `json:"title" doc:"The code in words"`
	Status    int            `json:"status" doc:"The HTTP status"`
	Detail    string         `json:"detail,omitempty" doc:"What is wrong and what to do, for people; may change"`
	Code      refersam.Code  `json:"code" doc:"For programs; stable"`
	Field     string         `json:"field,omitempty" doc:"The part of the request at fault: a JSON pointer, or the name of a form field"`
	RequestID string         `json:"request_id" doc:"The id of the request, as in the log"`
	Errors    []ProblemError `json:"errors,omitempty" doc:"All faults that were found, of which 'detail' and 'field' tell the first"`
}

// ProblemError is one fault of a request: at a place of its JSON, as a pointer
// in a URI fragment (RFC 9457, section 3), or in a field of a form or a query.
type ProblemError struct {
	_       struct{} `doc:"One fault of a request."`
	Detail  string   `json:"detail" doc:"What is wrong and what to do, for people; may change"`
	Pointer string   `json:"pointer,omitempty" doc:"The place in JSON, as a pointer in a URI fragment"`
	Field   string   `json:"field,omitempty" doc:"The field of a form, or the parameter of a query"`
}

// ProblemDescription is the body of GET /problems/{code}: what all problems with
// one code share.
type ProblemDescription struct {
	_      struct{}      `doc:"What all problems of a code have in common."`
	Code   refersam.Code `json:"code" doc:"The code"`
	Status int           `json:"status" doc:"The HTTP status"`
	Title  string        `json:"title" doc:"The code in words"`
	Cure   string        `json:"cure" doc:"What to do"`
}

// Codes returns the codes of all problems, sorted.
func Codes() []refersam.Code { return slices.Sorted(maps.Keys(kinds)) }

// DescribeProblem returns what all problems with a code share, and whether there
// is such a code.
func DescribeProblem(code refersam.Code) (ProblemDescription, bool) {
	k, ok := kinds[code]
	return ProblemDescription{Code: code, Status: k.status, Title: k.title, Cure: k.cure}, ok
}

// ProblemType returns the address that describes a code.
func ProblemType(code refersam.Code) string { return "/problems/" + string(code) }

// NewProblem returns the problem that a client is shown for err, and when the
// client may retry. Of an error that is no *refersam.Error it shows nothing.
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
		Field:     Showable(shown.Field),
		RequestID: requestID,
		Errors:    problemErrors(shown),
	}, shown.RetryAfter
}

// maxShown is how many bytes of a text a problem shows, because the text may
// quote a client that sent megabytes.
const maxShown = 1000

// Showable makes text that may quote the client's bytes fit for a problem: short
// and valid UTF-8.
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
		if e.Field == "" || len(all) == refersam.MaxFaults {
			continue
		}
		shown := ProblemError{Detail: Showable(e.Message)}
		if pointer := Showable(e.Field); strings.HasPrefix(pointer, "/") {
			shown.Pointer = "#" + (&url.URL{Fragment: pointer}).EscapedFragment()
		} else {
			shown.Field = pointer
		}
		all = append(all, shown)
	}
	return all
}
