package gateway

import (
	"bytes"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/refersam/refersam"
)

// The fields of a form that bring the picture: the file itself, the id of one
// that was uploaded, or where to fetch it.
const (
	fieldImage    = "image"
	fieldImageID  = "image_id"
	fieldImageURL = "image_url"
)

// parseForm reads multipart/form-data: one of the fields that bring the
// picture, and those of fields.
func parseForm(r *http.Request, maxImage int64) (*segmentRequest, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, err
	}
	f := newFields()
	if err := readParts(parts, func(part *multipart.Part) error { return f.read(part, maxImage) }); err != nil {
		return nil, err
	}
	// Only at the very end of the body does net/http begin to watch whether the
	// client goes away.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	if f.req.source.field == "" {
		return nil, invalid(fieldImage, "The picture is missing: send it as the file %q, or say where it is in %q or %q.", fieldImage, fieldImageID, fieldImageURL)
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
	data, err := readImage(r.Body, maxImage)
	if err != nil {
		return nil, err
	}
	f.req.source = source{data: data, field: fieldImage}
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
	"size", "overlay", "quality", "deadline_ms", "priority", "webhook",
}

func newFields() *fields {
	return &fields{req: segmentRequest{naming: naming{Form: true}}, seen: make(map[string]bool)}
}

// once refuses a field that has been given before.
func (f *fields) once(name string) error {
	if f.seen[name] {
		return invalid(name, "The field %q may be given only once.", name)
	}
	f.seen[name] = true
	return nil
}

// readParts has every part of a form read.
func readParts(parts *multipart.Reader, read func(*multipart.Part) error) error {
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF { // a wrapped EOF is a form cut off between its parts
			return nil
		}
		if err != nil {
			return err
		}
		if n == maxParts {
			return tooManyFields()
		}
		if err := read(part); err != nil {
			return err
		}
	}
}

// read takes a part of a form in.
func (f *fields) read(part *multipart.Part, maxImage int64) error {
	name := part.FormName()
	brings := name == fieldImage || name == fieldImageID || name == fieldImageURL
	if brings {
		if err := f.once(name); err != nil {
			return err
		}
		if first := f.req.source.field; first != "" {
			return invalid(name, "There is a picture already, in %q.", first)
		}
		f.req.source.field = name
	}
	if name == fieldImage {
		var err error
		f.req.source.data, err = readImage(part, maxImage)
		return err
	}
	value, err := readText(part, name)
	switch {
	case err != nil:
		return err
	case !brings:
		return f.set(name, value)
	case value == "":
		return invalid(name, "The field is empty.")
	case name == fieldImageID:
		f.req.source.id = value
	default:
		f.req.source.url = value
	}
	return checkText(name, value)
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
			if len(f.options.Formats) == maxFormats {
				return invalid(name, "There are more than %d.", maxFormats)
			}
			f.options.Formats = append(f.options.Formats, strings.TrimSpace(format))
		}
		return nil
	}
	if !slices.Contains(fieldNames, name) {
		return invalid(name, "There is no field %q; there are image, image_id, image_url, %s.", name, strings.Join(fieldNames, ", "))
	}
	if err := f.once(name); err != nil {
		return err
	}
	if err := checkText(name, value); err != nil {
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
		f.options.MinArea, err = wholeNumber(name, value)
	case "fill_holes":
		f.options.FillHoles, err = wholeNumber(name, value)
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
		quality := value == "true"
		f.req.output.Quality = &quality
	case "deadline_ms":
		var ms int64
		if ms, err = strconv.ParseInt(value, 10, 64); err != nil {
			return badDeadline(name)
		}
		f.req.deadline, err = parseDeadline(ms, name)
	case "webhook":
		if f.req.webhook = value; value == "" {
			return invalid(name, "The field is empty.")
		}
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

func wholeNumber(name, value string) (*whole, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return nil, invalid(name, "The value must be a whole number.")
	}
	v := whole(n)
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
		return nil, tooLarge(fieldImage, most)
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
