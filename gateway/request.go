package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
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
	prompts []prompt
	variant string
	output  output
	// deadline is how long the client waits; 0 leaves it to the service.
	deadline time.Duration
	priority refersam.Priority
	// field translates the place of an error in a refersam.Request to the
	// place in what the client sent.
	field func(pointer string) string
}

// wants reports whether any prompt asks for a format.
func (r *segmentRequest) wants(format string) bool {
	return slices.ContainsFunc(r.prompts, func(p prompt) bool { return slices.Contains(p.formats, format) })
}

func (r *segmentRequest) checkOverlay(sizeField string) error {
	if r.output.size() == refersam.SizeModel && r.wants(FormatOverlay) {
		return invalid(sizeField, "An overlay has the size of the picture; leave it out, or ask for the size %q.", refersam.SizeOriginal)
	}
	return nil
}

// parseSegment reads a request for masks from a form, from JSON, or from a
// picture and the query. At most maxImage bytes of picture are read, and little
// more of anything else.
func parseSegment(w http.ResponseWriter, r *http.Request, maxImage int64) (*segmentRequest, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, refersam.Errorf(refersam.CodeUnsupportedMedia, "The content encoding %q is not supported; send the body as it is.", encoding)
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	raw := err == nil && isPicture(mediaType)
	switch {
	case raw:
	case err != nil || mediaType != mediaForm && mediaType != mediaJSON:
		return nil, refersam.Errorf(refersam.CodeUnsupportedMedia, "Send multipart/form-data, application/json, or a picture as image/* with the phrases in the query.")
	case r.URL.RawQuery != "":
		return nil, refersam.Errorf(refersam.CodeInvalidRequest, "A query is for a picture that is sent as it is; put its parameters into the form or JSON.")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody(mediaType, maxImage))
	var req *segmentRequest
	switch {
	case raw:
		req, err = parsePicture(r, maxImage)
	case mediaType == mediaForm:
		req, err = parseForm(r, maxImage)
	default:
		req, err = parseJSON(r.Body, maxImage)
	}
	if err != nil {
		return nil, bodyError(err)
	}
	return req, nil
}

// isPicture tells media types of bodies that are a picture and nothing else.
// What it is in truth is seen from its bytes.
func isPicture(mediaType string) bool {
	return strings.HasPrefix(mediaType, "image/") || mediaType == mediaBytes
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

// parseForm reads multipart/form-data: the field image, and those of fields.
func parseForm(r *http.Request, maxImage int64) (*segmentRequest, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, err
	}
	f := newFields()
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // a wrapped EOF is a form cut off between its parts
			break
		}
		if err != nil {
			return nil, err
		}
		if n == maxParts {
			return nil, tooManyFields()
		}
		name := part.FormName()
		if name == "image" {
			if err := f.once(name); err != nil {
				return nil, err
			}
			if f.req.image, err = readImage(part, maxImage); err != nil {
				return nil, err
			}
			continue
		}
		value, err := readText(part, name)
		if err != nil {
			return nil, err
		}
		if err := f.set(name, value); err != nil {
			return nil, err
		}
	}
	// Only at the very end of the body does net/http begin to watch whether the
	// client goes away.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	if !f.seen["image"] {
		return nil, invalid("image", "The picture is missing: send it as the field %q.", "image")
	}
	return f.request()
}

// parsePicture reads a body that is the picture, and a query with the fields
// of a form.
func parsePicture(r *http.Request, maxImage int64) (*segmentRequest, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: "The query is not of the form name=value&name=value with percent-encoded values.",
			Err:     err,
		}
	}
	f := newFields()
	n := 0
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, value := range query[name] {
			if n++; n > maxParts {
				return nil, tooManyFields()
			}
			if err := f.set(name, value); err != nil {
				return nil, err
			}
		}
	}
	if f.req.image, err = readImage(r.Body, maxImage); err != nil {
		return nil, err
	}
	return f.request()
}

func tooManyFields() error {
	return refersam.Errorf(refersam.CodeInvalidRequest, "There are more than %d fields.", maxParts)
}

// fields collects what a form or a query says beside the picture.
type fields struct {
	req     segmentRequest
	phrases []string
	options options
	seen    map[string]bool
}

// fieldNames lists the names that set knows.
var fieldNames = []string{
	"phrase", "variant", "format", "threshold", "min_area", "keep", "fill_holes", "tolerance",
	"size", "overlay", "quality", "deadline_ms", "priority",
}

func newFields() *fields {
	return &fields{req: segmentRequest{field: formField}, seen: make(map[string]bool)}
}

// once refuses a field that has been given before.
func (f *fields) once(name string) error {
	if f.seen[name] {
		return invalid(name, "The field %q may be given only once.", name)
	}
	f.seen[name] = true
	return nil
}

// set takes a field in: phrase once or more, format any number of times, each
// a list separated by commas, and the others at most once.
func (f *fields) set(name, value string) error {
	switch name {
	case "phrase":
		f.phrases = append(f.phrases, value)
		return nil
	case "format":
		for format := range strings.SplitSeq(value, ",") {
			f.options.Formats = append(f.options.Formats, strings.TrimSpace(format))
		}
		return nil
	}
	if !slices.Contains(fieldNames, name) {
		return invalid(name, "There is no field %q; there are image, %s.", name, strings.Join(fieldNames, ", "))
	}
	if err := f.once(name); err != nil {
		return err
	}
	var err error
	switch name {
	case "variant":
		f.req.variant = value
	case "threshold":
		f.options.Threshold, err = number(name, value)
	case "tolerance":
		f.options.Tolerance, err = number(name, value)
	case "min_area":
		f.options.MinArea, err = whole(name, value)
	case "fill_holes":
		f.options.FillHoles, err = whole(name, value)
	case "keep":
		f.options.Keep = &value
	case "size":
		f.req.output.Size = &value
	case "overlay":
		f.req.output.Overlay = &value
	case "quality":
		if value != "true" && value != "false" {
			return invalid(name, "The value must be true or false.")
		}
		f.req.output.Quality = value == "true"
	case "deadline_ms":
		var ms int64
		if ms, err = strconv.ParseInt(value, 10, 64); err != nil {
			return badDeadline(name)
		}
		f.req.deadline, err = parseDeadline(ms, name)
	case "priority":
		f.req.priority, err = parsePriority(value, name)
	}
	return err
}

func number(name, value string) (*float64, error) {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return nil, invalid(name, "The value must be a number.")
	}
	return &v, nil
}

func whole(name, value string) (*int, error) {
	v, err := strconv.Atoi(value)
	if err != nil {
		return nil, invalid(name, "The value must be a whole number.")
	}
	return &v, nil
}

// request returns what the fields say.
func (f *fields) request() (*segmentRequest, error) {
	req := &f.req
	req.output.options = f.options
	name := func(member string) string {
		if strings.HasPrefix(member, "formats") {
			return "format"
		}
		return member
	}
	if err := req.output.check(name); err != nil {
		return nil, err
	}
	for _, phrase := range f.phrases {
		p, err := newPrompt("", phrase, &req.output, &options{}, name)
		if err != nil {
			return nil, err
		}
		req.prompts = append(req.prompts, p)
	}
	return req, req.checkOverlay("size")
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
	case name == "formats":
		return "format"
	default:
		return name
	}
}

func readImage(from io.Reader, most int64) ([]byte, error) {
	var image bytes.Buffer
	if _, err := io.Copy(&image, io.LimitReader(from, most+1)); err != nil {
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
	Prompts  promptList `json:"prompts"`
	Output   output     `json:"output"`
	Variant  string     `json:"variant"`
	Deadline *int64     `json:"deadline_ms"`
	Priority *string    `json:"priority"`
}

type promptBody struct {
	ID   string `json:"id"`
	Text string `json:"text"`
	options
}

// promptList is read one by one, and no further than to maxParts: a body has
// room for millions.
type promptList []promptBody

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *promptList) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch d.PeekKind() {
	case 'n':
		return d.SkipValue()
	case '[':
	default:
		return errors.ErrUnsupported // as an array is what it should be
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if len(*l) == maxParts {
			return invalid("/prompts", "There are more than %d prompts.", maxParts)
		}
		var p promptBody
		if err := json.UnmarshalDecode(d, &p); err != nil {
			return err
		}
		*l = append(*l, p)
	}
	_, err := d.ReadToken()
	return err
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
	req := &segmentRequest{image: b.Image.Data, variant: b.Variant, output: b.Output, field: jsonField}
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
	if err := req.output.check(func(member string) string { return "/output/" + member }); err != nil {
		return nil, err
	}
	for i := range b.Prompts {
		p := &b.Prompts[i]
		made, err := newPrompt(p.ID, p.Text, &req.output, &p.options, func(member string) string {
			return fmt.Sprintf("/prompts/%d/%s", i, member)
		})
		if err != nil {
			return nil, err
		}
		req.prompts = append(req.prompts, made)
	}
	return req, req.checkOverlay("/output/size")
}

// jsonField names the member of a body that a pointer into a refersam.Request
// is about.
func jsonField(pointer string) string {
	switch {
	case pointer == "/image":
		return "/image/data"
	case pointer == "/phrases":
		return "/prompts"
	case pointer == "/formats":
		return "/output/formats"
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
		known    *refersam.Error
		syntax   *jsontext.SyntacticError
		semantic *json.SemanticError
	)
	switch {
	case errors.As(err, &known):
		return known
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
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
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
