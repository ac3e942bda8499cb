// Package intake reads requests: a form, JSON, or a picture with a query, within
// bounds, into questions. It reports all faults of a request at once.
package intake

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

// bodySlack is how many bytes a body may have in addition to its picture.
const bodySlack = 1 << 20

// MaxBody is the size of the largest body of a media type, in bytes: maxImage for
// the picture, in base64 if it is JSON, and the rest.
func MaxBody(mediaType string, maxImage int64) int64 {
	if mediaType == api.MediaJSON {
		return (maxImage+2)/3*4 + bodySlack
	}
	return maxImage + bodySlack
}

// Request is a request for the masks of one picture, in any form.
type Request struct {
	Source  answer.Source
	Prompts []answer.Prompt
	Variant string
	Output  api.Output
	// Deadline is how long the client waits; 0 leaves it to the service.
	Deadline time.Duration
	Priority refersam.Priority
	// Webhook is the address that receives the end of a job, "" for none.
	Webhook string
	Naming  answer.Naming
}

// Question returns what the request asks.
func (r *Request) Question() *answer.Question {
	return &answer.Question{
		Source: r.Source, Prompts: r.Prompts, Variant: r.Variant, Size: refersam.Size(ValueOr(r.Output.Size, string(refersam.SizeOriginal))),
		Overlay: ValueOr(r.Output.Overlay, api.OverlayPNG), Quality: ValueOr(r.Output.Quality, false), Priority: r.Priority, Naming: r.Naming,
	}
}

func (r *Request) checkOverlay(sizeField string) error {
	if q := r.Question(); q.Size == refersam.SizeModel && q.Wants(api.FormatOverlay) {
		return refersam.Invalidf(sizeField, "An overlay has the size of the picture; leave it out, or ask for the size %q.", refersam.SizeOriginal)
	}
	return nil
}

// ParseSegment reads a request for masks from a form, from JSON, or from a picture
// and the query. It reads at most maxImage bytes of a picture, and little more of
// anything else.
func ParseSegment(w http.ResponseWriter, r *http.Request, maxImage int64) (*Request, error) {
	if err := identityEncoded(r); err != nil {
		return nil, err
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	raw := err == nil && isPicture(mediaType)
	switch {
	case raw:
	case err != nil || mediaType != api.MediaForm && mediaType != api.MediaJSON:
		return nil, refersam.Errorf(refersam.CodeUnsupportedMedia, "Send multipart/form-data, application/json, or a picture as image/* with the phrases in the query.")
	case r.URL.RawQuery != "":
		return nil, refersam.Errorf(refersam.CodeInvalidRequest, "Query parameters are only allowed if the body is the picture itself; put them into the form or JSON.")
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody(mediaType, maxImage))
	var req *Request
	switch {
	case raw:
		req, err = parsePicture(r, maxImage)
	case mediaType == api.MediaForm:
		req, err = parseForm(r, maxImage)
	default:
		req, err = parseJSON(r.Body, maxImage)
	}
	if err != nil {
		return nil, ReadError(err)
	}
	return req, nil
}

// identityEncoded refuses bodies with a content encoding.
func identityEncoded(r *http.Request) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return refersam.Errorf(refersam.CodeUnsupportedMedia, "The content encoding %q is not supported; send the body as it is.", encoding)
	}
	return nil
}

// isPicture reports whether a media type says that the body is a picture. The
// actual format is detected from the bytes.
func isPicture(mediaType string) bool {
	return strings.HasPrefix(mediaType, "image/") || mediaType == api.MediaBytes
}

// ReadError gives an error of reading a body its code.
func ReadError(err error) error {
	var (
		domainErr *refersam.Error
		tooLarge  *http.MaxBytesError
	)
	switch {
	case errors.As(err, &domainErr):
		return err
	case errors.As(err, &tooLarge):
		return bodyTooLarge(tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refersam.Error{Code: refersam.CodeBodyTooSlow, Message: "The request body arrived too slowly.", Err: err}
	default:
		return &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: "The body does not match its content type, or it ends too early.",
			Err:     err,
		}
	}
}

// bodyTooLarge is the error for a body of unknown length with more than most bytes.
func bodyTooLarge(most int64) error {
	return refersam.Errorf(refersam.CodeImageTooLarge, "The body of the request has more than the %d bytes that this route accepts.", most)
}

// parseDeadline checks how long a client waits.
func parseDeadline(ms api.Int, field string) (time.Duration, error) {
	const most = 24 * time.Hour
	if ms < 1 || int64(ms) > most.Milliseconds() {
		return 0, refersam.Invalidf(field, "The deadline must be a whole number of milliseconds, at least 1 and at most a day.")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

const emptyVariant = "The variant is empty; leave it out to have the split decide."

// parsePriority checks a client's priority. Clients may not use the priority of
// shadow requests.
func parsePriority(value, field string) (refersam.Priority, error) {
	switch p := refersam.Priority(value); p {
	case refersam.PriorityInteractive, refersam.PriorityBatch:
		return p, nil
	default:
		return "", refersam.Invalidf(field, "The priority must be %q or %q.", refersam.PriorityInteractive, refersam.PriorityBatch)
	}
}

// CheckID refuses ids that are too long to be stored, or that are not text.
func CheckID(field, id string) error {
	if utf8.RuneCountInString(id) > api.MaxID {
		return refersam.Invalidf(field, "The id must have at most %d characters.", api.MaxID)
	}
	return CheckText(field, id)
}

// CheckText refuses text that databases do not accept.
func CheckText(field, value string) error {
	if !IsText(value) {
		return refersam.Invalidf(field, "The value must be UTF-8 without NUL.")
	}
	return nil
}

// IsText reports whether a database accepts s as text: UTF-8 without NUL.
func IsText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func tooLarge(field string, most int64) *refersam.Error {
	return &refersam.Error{
		Code:    refersam.CodeImageTooLarge,
		Message: fmt.Sprintf("The picture is larger than %d bytes.", most),
		At:      refersam.Named(field),
	}
}

// MediaType returns the media type that a request gives for its body.
func MediaType(r *http.Request) string {
	t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return t
}

// Query returns the parameters of a query.
func Query(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: "The query is not of the form name=value&name=value with percent-encoded values.",
			Err:     err,
		}
	}
	return query, nil
}

// OnlyJSON refuses bodies that are not JSON, and queries.
func OnlyJSON(r *http.Request) error {
	if err := identityEncoded(r); err != nil {
		return err
	}
	if MediaType(r) != api.MediaJSON {
		return refersam.Errorf(refersam.CodeUnsupportedMedia, "Send %s.", api.MediaJSON)
	}
	if r.URL.RawQuery != "" {
		return refersam.Errorf(refersam.CodeInvalidRequest, "This route has no query parameters; put them into the JSON.")
	}
	return nil
}
