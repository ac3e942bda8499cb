package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
)

const (
	// maxParts bounds the fields of a form: far more than any valid one has.
	maxParts = 512
	// bodySlack is what a body may hold besides its picture.
	bodySlack = 1 << 20
	// bodyCost is how many bytes of memory a byte of a body takes at most: a
	// growing buffer is up to two beside the one that it replaces, and base64
	// is decoded beside it.
	bodyCost = 3
)

// maxBody is the size of the largest body of a media type that is read, in
// bytes: maxImage of picture, in base64 if it is JSON, and the rest.
func maxBody(mediaType string, maxImage int64) int64 {
	if mediaType == mediaJSON {
		return (maxImage+2)/3*4 + bodySlack
	}
	return maxImage + bodySlack
}

// bodyMemory is how many bytes of memory reading a request's body takes at
// most.
func bodyMemory(r *http.Request, maxImage int64) int64 {
	mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	size := maxBody(mediaType, maxImage)
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength)
	}
	return bodyCost * size
}

// segmentRequest is a request for masks, however it was written.
type segmentRequest struct {
	image   []byte
	phrases []refersam.Phrase
	variant string
	formats []string
	// deadline is how long the client waits; 0 leaves it to the service.
	deadline time.Duration
	priority refersam.Priority
	// field translates the place of an error in a refersam.Request to the
	// place in what the client sent.
	field func(pointer string) string
}

// parseSegment reads a request for masks from a form or from JSON. At most
// maxImage bytes of picture are read, and little more of anything else.
func parseSegment(w http.ResponseWriter, r *http.Request, maxImage int64) (*segmentRequest, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, refersam.Errorf(refersam.CodeUnsupportedMedia, "The content encoding %q is not supported; send the body as it is.", encoding)
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var req *segmentRequest
	switch {
	case err == nil && mediaType == "multipart/form-data":
		r.Body = http.MaxBytesReader(w, r.Body, maxBody(mediaType, maxImage))
		req, err = parseForm(r, maxImage)
	case err == nil && mediaType == mediaJSON:
		r.Body = http.MaxBytesReader(w, r.Body, maxBody(mediaType, maxImage))
		req, err = parseJSON(r.Body, maxImage)
	default:
		return nil, refersam.Errorf(refersam.CodeUnsupportedMedia, "Send multipart/form-data or application/json.")
	}
	if err != nil {
		return nil, bodyError(err)
	}
	if len(req.formats) == 0 {
		req.formats = []string{FormatRLE}
	}
	return req, nil
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
		return &refersam.Error{
			Code:    refersam.CodeImageTooLarge,
			Message: fmt.Sprintf("The request is larger than %d bytes.", tooLarge.Limit),
			Err:     err,
		}
	default:
		return &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: "The body is not what its content type says, or it ends too early.",
			Err:     err,
		}
	}
}

// onceFields are the fields of a form that may be given only once.
var onceFields = []string{"image", "variant", "threshold", "deadline_ms", "priority"}

// parseForm reads multipart/form-data: image (once), phrase (once or more),
// variant, threshold, deadline_ms and priority (at most once), format (any
// number of times, each a list separated by commas).
func parseForm(r *http.Request, maxImage int64) (*segmentRequest, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, err
	}
	var (
		req       = &segmentRequest{field: formField}
		threshold float64
		seen      = make(map[string]bool)
	)
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a form cut off between its parts
			break
		}
		if err != nil {
			return nil, err
		}
		if n == maxParts {
			return nil, refersam.Errorf(refersam.CodeInvalidRequest, "The form has more than %d fields.", maxParts)
		}
		name := part.FormName()
		if slices.Contains(onceFields, name) && seen[name] {
			return nil, invalid(name, "The field %q may be given only once.", name)
		}
		seen[name] = true
		if name == "image" {
			if req.image, err = readImage(part, maxImage); err != nil {
				return nil, err
			}
			continue
		}
		value, err := readText(part, name)
		if err != nil {
			return nil, err
		}
		switch name {
		case "phrase":
			req.phrases = append(req.phrases, refersam.Phrase{Text: value})
		case "variant":
			req.variant = value
		case "threshold":
			if threshold, err = strconv.ParseFloat(value, 64); err != nil || !(threshold > 0 && threshold < 1) {
				return nil, invalid(name, "The threshold must be a number greater than 0 and less than 1.")
			}
		case "format":
			for _, format := range strings.Split(value, ",") {
				if err := req.addFormat(strings.TrimSpace(format), name); err != nil {
					return nil, err
				}
			}
		case "deadline_ms":
			ms, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, badDeadline(name)
			}
			if req.deadline, err = parseDeadline(ms, name); err != nil {
				return nil, err
			}
		case "priority":
			if req.priority, err = parsePriority(value, name); err != nil {
				return nil, err
			}
		default:
			return nil, invalid(name, "There is no field %q; there are image, phrase, variant, threshold, format, deadline_ms and priority.", name)
		}
	}
	// Only at the very end of the body does net/http begin to watch whether the
	// client goes away.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	if !seen["image"] {
		return nil, invalid("image", "The picture is missing: send it as the field %q.", "image")
	}
	for i := range req.phrases {
		req.phrases[i].Threshold = threshold
	}
	return req, nil
}

// parseDeadline checks how long a client waits.
func parseDeadline(ms int64, field string) (time.Duration, error) {
	const most = 24 * time.Hour
	if ms < 1 || ms > most.Milliseconds() {
		return 0, badDeadline(field)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func badDeadline(field string) error {
	return invalid(field, "The deadline must be a whole number of milliseconds, at least 1 and at most a day.")
}

// parsePriority checks a client's priority: that of shadows is not for clients.
func parsePriority(value, field string) (refersam.Priority, error) {
	switch p := refersam.Priority(value); p {
	case refersam.PriorityInteractive, refersam.PriorityBatch:
		return p, nil
	default:
		return "", invalid(field, "The priority must be %q or %q.", refersam.PriorityInteractive, refersam.PriorityBatch)
	}
}

// formField names the form field that a pointer into a refersam.Request is
// about.
func formField(pointer string) string {
	name, rest, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	switch {
	case name == "phrases" && strings.HasSuffix(rest, "/threshold"):
		return "threshold"
	case name == "phrases":
		return "phrase"
	default:
		return name
	}
}

func readImage(part *multipart.Part, most int64) ([]byte, error) {
	var image bytes.Buffer
	if _, err := io.Copy(&image, io.LimitReader(part, most+1)); err != nil {
		return nil, err
	}
	if int64(image.Len()) > most {
		return nil, tooLarge("image", most)
	}
	return image.Bytes(), nil
}

func readText(part *multipart.Part, name string) (string, error) {
	const most = 64 << 10
	value, err := io.ReadAll(io.LimitReader(part, most+1))
	if err != nil {
		return "", err
	}
	if len(value) > most {
		if name == "phrase" {
			return "", &refersam.Error{Code: refersam.CodePhraseTooLong, Message: "The phrase is far too long.", Field: name}
		}
		return "", invalid(name, "The field is too long.")
	}
	return string(value), nil
}

// body is the JSON form of a request for masks.
type body struct {
	Image *struct {
		Data []byte `json:"data"`
	} `json:"image"`
	Prompts []struct {
		ID        string   `json:"id"`
		Text      string   `json:"text"`
		Threshold *float64 `json:"threshold"`
	} `json:"prompts"`
	Output struct {
		Formats []string `json:"formats"`
	} `json:"output"`
	Variant  string  `json:"variant"`
	Deadline *int64  `json:"deadline_ms"`
	Priority *string `json:"priority"`
}

// parseJSON reads a body. Unknown and repeated members are errors, and so is
// text that is not UTF-8.
func parseJSON(r io.Reader, maxImage int64) (*segmentRequest, error) {
	var b body
	if err := json.UnmarshalRead(r, &b, json.RejectUnknownMembers(true)); err != nil {
		return nil, jsonError(err)
	}
	if b.Image == nil || b.Image.Data == nil {
		return nil, invalid("/image/data", "The picture is missing: send it as base64 in image.data.")
	}
	if int64(len(b.Image.Data)) > maxImage {
		return nil, tooLarge("/image/data", maxImage)
	}
	req := &segmentRequest{image: b.Image.Data, variant: b.Variant, field: jsonField}
	var err error
	if b.Deadline != nil {
		if req.deadline, err = parseDeadline(*b.Deadline, "/deadline_ms"); err != nil {
			return nil, err
		}
	}
	if b.Priority != nil {
		if req.priority, err = parsePriority(*b.Priority, "/priority"); err != nil {
			return nil, err
		}
	}
	for i, p := range b.Prompts {
		phrase := refersam.Phrase{ID: p.ID, Text: p.Text}
		if p.Threshold != nil {
			if phrase.Threshold = *p.Threshold; !(phrase.Threshold > 0 && phrase.Threshold < 1) {
				return nil, invalid(fmt.Sprintf("/prompts/%d/threshold", i), "The threshold must be greater than 0 and less than 1.")
			}
		}
		req.phrases = append(req.phrases, phrase)
	}
	for i, format := range b.Output.Formats {
		if err := req.addFormat(format, fmt.Sprintf("/output/formats/%d", i)); err != nil {
			return nil, err
		}
	}
	return req, nil
}

// jsonField names the member of a body that a pointer into a refersam.Request
// is about.
func jsonField(pointer string) string {
	switch {
	case pointer == "/image":
		return "/image/data"
	case pointer == "/phrases":
		return "/prompts"
	case strings.HasPrefix(pointer, "/phrases/"):
		pointer = "/prompts" + strings.TrimPrefix(pointer, "/phrases")
		if !strings.HasSuffix(pointer, "/threshold") {
			pointer += "/text"
		}
	}
	return pointer
}

// jsonError tells JSON that is no JSON from JSON that says something else than
// a request. Errors of reading pass through.
func jsonError(err error) error {
	var (
		syntax   *jsontext.SyntacticError
		semantic *json.SemanticError
	)
	switch {
	case errors.As(err, &syntax):
		message := "The body is not valid JSON"
		if errors.Is(err, jsontext.ErrDuplicateName) {
			message = "The body has a member twice"
		}
		return &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: fmt.Sprintf("%s (near byte %d).", message, syntax.ByteOffset),
			Field:   string(syntax.JSONPointer),
			Err:     err,
		}
	case errors.As(err, &semantic):
		message := "The value is not " + wanted(semantic.GoType) + "."
		if errors.Is(err, json.ErrUnknownName) {
			message = fmt.Sprintf("There is no field %q here.", semantic.JSONPointer.LastToken())
		}
		return &refersam.Error{
			Code:    refersam.CodeInvalidRequest,
			Message: message,
			Field:   string(semantic.JSONPointer),
			Err:     err,
		}
	default:
		return err
	}
}

// wanted says in JSON's words what a value for t must be.
func wanted(t reflect.Type) string {
	if t == nil {
		return "allowed here"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Float64:
		return "a number"
	case reflect.Struct:
		return "an object"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a string of base64 (standard alphabet, padded, without line breaks)"
		}
		return "an array"
	default:
		return "allowed here"
	}
}

func (r *segmentRequest) addFormat(format, field string) error {
	if !slices.Contains(Formats, format) {
		return invalid(field, "There is no format %q; there are %s.", format, strings.Join(Formats, " and "))
	}
	if !slices.Contains(r.formats, format) {
		r.formats = append(r.formats, format)
	}
	return nil
}

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
