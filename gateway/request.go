package gateway

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

const (
	// bodySlack is what a body may hold besides its picture.
	bodySlack = 1 << 20
)

// maxBody is the size of the largest body of a media type that is read, in
// bytes: maxImage of picture, in base64 if it is JSON, and the rest.
func maxBody(mediaType string, maxImage int64) int64 {
	if mediaType == api.MediaJSON {
		return (maxImage+2)/3*4 + bodySlack
	}
	return maxImage + bodySlack
}

// segmentRequest is a request for the masks of one picture, however it was
// written.
type segmentRequest struct {
	source  answer.Source
	prompts []answer.Prompt
	variant string
	output  api.Output
	// deadline is how long the client waits; 0 leaves it to the service.
	deadline time.Duration
	priority refersam.Priority
	// webhook is the address that gets the end of a job, "" for none.
	webhook string
	naming  answer.Naming
}

// question returns what the request asks.
func (r *segmentRequest) question() *answer.Question {
	return &answer.Question{
		Source: r.source, Prompts: r.prompts, Variant: r.variant, Size: refersam.Size(valueOr(r.output.Size, string(refersam.SizeOriginal))),
		Overlay: valueOr(r.output.Overlay, api.OverlayPNG), Quality: valueOr(r.output.Quality, false), Priority: r.priority, Naming: r.naming,
	}
}

func (r *segmentRequest) checkOverlay(sizeField string) error {
	if q := r.question(); q.Size == refersam.SizeModel && q.Wants(api.FormatOverlay) {
		return invalid(sizeField, "An overlay has the size of the picture; leave it out, or ask for the size %q.", refersam.SizeOriginal)
	}
	return nil
}

// parseSegment reads a request for masks from a form, from JSON, or from a
// picture and the query. At most maxImage bytes of picture are read, and little
// more of anything else.
func parseSegment(w http.ResponseWriter, r *http.Request, maxImage int64) (*segmentRequest, error) {
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
		return nil, refersam.Errorf(refersam.CodeInvalidRequest, "A query is for a picture that is sent as it is; put its parameters into the form or JSON.")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody(mediaType, maxImage))
	var req *segmentRequest
	switch {
	case raw:
		req, err = parsePicture(r, maxImage)
	case mediaType == api.MediaForm:
		req, err = parseForm(r, maxImage)
	default:
		req, err = parseJSON(r.Body, maxImage)
	}
	if err != nil {
		return nil, bodyError(err)
	}
	return req, nil
}

// identityEncoded refuses bodies that are compressed.
func identityEncoded(r *http.Request) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return refersam.Errorf(refersam.CodeUnsupportedMedia, "The content encoding %q is not supported; send the body as it is.", encoding)
	}
	return nil
}

// isPicture tells media types of bodies that are a picture and nothing else.
// What it is in truth is seen from its bytes.
func isPicture(mediaType string) bool {
	return strings.HasPrefix(mediaType, "image/") || mediaType == api.MediaBytes
}

// bodyError gives an error of reading a body the code it deserves.
func bodyError(err error) error {
	var (
		known    *refersam.Error
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &tooLarge):
		return bodyTooLarge(tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refersam.Error{Code: refersam.CodeBodyTooSlow, Message: "The body of the request comes too slowly, and was not waited for.", Err: err}
	default:
		return &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: "The body is not what its content type says, or it ends too early.",
			Err:     err,
		}
	}
}

func bodyTooLarge(most int64) error {
	return refersam.Errorf(refersam.CodeImageTooLarge, "The body of the request has more than the %d bytes that this route takes.", most)
}

// parseDeadline checks how long a client waits.
func parseDeadline(ms api.Int, field string) (time.Duration, error) {
	const most = 24 * time.Hour
	if ms < 1 || int64(ms) > most.Milliseconds() {
		return 0, invalid(field, "The deadline must be a whole number of milliseconds, at least 1 and at most a day.")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

const emptyVariant = "The variant is empty; leave it out to have the split decide."

// parsePriority checks a client's priority: that of shadows is not for clients.
func parsePriority(value, field string) (refersam.Priority, error) {
	switch p := refersam.Priority(value); p {
	case refersam.PriorityInteractive, refersam.PriorityBatch:
		return p, nil
	default:
		return "", invalid(field, "The priority must be %q or %q.", refersam.PriorityInteractive, refersam.PriorityBatch)
	}
}

// checkID refuses ids that are too long to be kept, or no text.
func checkID(field, id string) error {
	if utf8.RuneCountInString(id) > api.MaxID {
		return invalid(field, "The id must have at most %d characters.", api.MaxID)
	}
	return checkText(field, id)
}

// checkText refuses what databases do not take for text.
func checkText(field, value string) error {
	if !isText(value) {
		return invalid(field, "The value must be UTF-8 without NUL.")
	}
	return nil
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func invalid(field, format string, args ...any) *refersam.Error {
	err := refersam.Errorf(refersam.CodeInvalidRequest, format, args...)
	err.Field = field
	return err
}

func tooLarge(field string, most int64) *refersam.Error {
	return &refersam.Error{
		Code:    refersam.CodeImageTooLarge,
		Message: fmt.Sprintf("The picture is larger than %d bytes.", most),
		Field:   field,
	}
}
