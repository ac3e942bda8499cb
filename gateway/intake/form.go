package intake

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

// parseForm reads multipart/form-data: one of the fields for the picture, and the
// fields that fields lists.
func parseForm(r *http.Request, maxImage int64) (*Request, error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return nil, err
	}
	f := newFields(api.FieldImage, api.FieldImageID, api.FieldImageURL)
	if err := ReadParts(parts, func(part *multipart.Part) error { return f.read(part, maxImage) }); err != nil {
		return nil, err
	}
	// net/http begins to notice a client that disconnects only at the very end of
	// the body.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	if f.req.Source.Field == "" {
		f.wrong.Add(refersam.Invalidf(api.FieldImage, "The picture is missing: send it as the file %q, or say where it is in %q or %q.", api.FieldImage, api.FieldImageID, api.FieldImageURL))
	}
	return f.request()
}

// parsePicture reads a body that is the picture, and a query with the fields of a
// form.
func parsePicture(r *http.Request, maxImage int64) (*Request, error) {
	query, err := Query(r)
	if err != nil {
		return nil, err
	}
	f := newFields()
	n := 0
	for _, name := range slices.Sorted(maps.Keys(query)) {
		for _, value := range query[name] {
			if n++; n > api.MaxPrompts {
				return nil, tooManyFields()
			}
			f.wrong.Add(f.set(name, value))
		}
	}
	data, err := readImage(r.Body, maxImage)
	if err != nil {
		return nil, err
	}
	f.req.Source = answer.Source{Data: data, Field: api.FieldImage}
	return f.request()
}

func tooManyFields() error {
	return refersam.Errorf(refersam.CodeInvalidRequest, "A form or query may have at most %d fields.", api.MaxPrompts)
}

// fields collects the values of a form or a query, and their faults.
type fields struct {
	// pictures are the names of the fields that may hold the picture.
	pictures []string
	req      Request
	phrases  []string
	options  api.Options
	seen     map[string]bool
	wrong    refersam.Faults
}

func newFields(pictures ...string) *fields {
	return &fields{pictures: pictures, req: Request{Naming: answer.Naming{Form: true}}, seen: make(map[string]bool)}
}

// markGiven refuses a field that was already given.
func (f *fields) markGiven(name string) error {
	if f.seen[name] {
		return refersam.Invalidf(name, "The field %q may be given only once.", name)
	}
	f.seen[name] = true
	return nil
}

// ReadParts reads all parts of a form.
func ReadParts(parts *multipart.Reader, read func(*multipart.Part) error) error {
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if err == io.EOF { // a wrapped EOF means that the form is cut off between two parts
			return nil
		}
		if err != nil {
			return err
		}
		if n == api.MaxPrompts {
			return tooManyFields()
		}
		if err := read(part); err != nil {
			return err
		}
	}
}

// read reads one part of a form. It returns an error only if the rest cannot be
// read; other faults are added to wrong.
func (f *fields) read(part *multipart.Part, maxImage int64) (err error) {
	name := part.FormName()
	if slices.Contains(f.pictures, name) {
		if err := f.markGiven(name); err != nil {
			f.wrong.Add(err)
			return nil
		}
		if first := f.req.Source.Field; first != "" {
			f.wrong.Add(refersam.Invalidf(name, "The picture was already given in %q.", first))
			return nil
		}
		f.req.Source.Field = name
		if name == api.FieldImage {
			f.req.Source.Data, err = readImage(part, maxImage)
			return err
		}
		value, err := readText(part, name)
		if err == nil {
			f.wrong.Add(setSource(&f.req.Source, value))
		}
		return err
	}
	value, err := readText(part, name)
	if err == nil {
		f.wrong.Add(f.set(name, value))
	}
	return err
}

// setSource sets where the picture is, from the form field that s names.
func setSource(s *answer.Source, value string) error {
	if value == "" {
		return refersam.Invalidf(s.Field, "The field is empty.")
	}
	if s.Field == api.FieldImageID {
		s.ID = value
	} else {
		s.URL = value
	}
	return CheckText(s.Field, value)
}

// set stores a field. phrase and format may be given several times, and each format
// may be a list separated by commas. The other fields may be given once.
func (f *fields) set(name, value string) error {
	switch name {
	case "phrase":
		f.phrases = append(f.phrases, value)
		return nil
	case "format":
		for format := range strings.SplitSeq(value, ",") {
			if len(f.options.Formats) == api.MaxFormats {
				return refersam.Invalidf(name, "At most %d formats are allowed.", api.MaxFormats)
			}
			f.options.Formats = append(f.options.Formats, strings.TrimSpace(format))
		}
		return nil
	}
	if !slices.Contains(api.FieldNames, name) {
		return refersam.Invalidf(name, "The field %q does not exist; the fields are %s.", name, strings.Join(slices.Concat(f.pictures, api.FieldNames), ", "))
	}
	if err := f.markGiven(name); err != nil {
		return err
	}
	if err := CheckText(name, value); err != nil {
		return err
	}
	var err error
	switch name {
	case "variant":
		if f.req.Variant = value; value == "" {
			return refersam.Invalidf(name, emptyVariant)
		}
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
		f.req.Output.Size = &value
	case "overlay":
		f.req.Output.Overlay = &value
	case "quality":
		if value != "true" && value != "false" {
			return refersam.Invalidf(name, "The value must be true or false.")
		}
		quality := value == "true"
		f.req.Output.Quality = &quality
	case "deadline_ms":
		var ms *api.Int
		if ms, err = wholeNumber(name, value); err == nil {
			f.req.Deadline, err = parseDeadline(*ms, name)
		}
	case "webhook":
		if f.req.Webhook = value; value == "" {
			return refersam.Invalidf(name, "The field is empty.")
		}
	case "priority":
		f.req.Priority, err = parsePriority(value, name)
	}
	return err
}

// numberForm matches decimal numbers. strconv also accepts other forms, which
// clients may not use.
var numberForm = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$`)

// number reads a number. A number that is too large for its type becomes the type's
// largest, which is out of every range.
func number(name, value string) (*float64, error) {
	v, err := strconv.ParseFloat(value, 64)
	if !numberForm.MatchString(value) || err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, refersam.Invalidf(name, "The value must be a number.")
	}
	return &v, nil
}

func wholeNumber(name, value string) (*api.Int, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, refersam.Invalidf(name, "The value must be a whole number.")
	}
	v := api.Int(n)
	return &v, nil
}

// request returns the request that the fields describe, or all their faults.
func (f *fields) request() (*Request, error) {
	req := &f.req
	req.Output.Options = f.options
	name := func(member string) string {
		if strings.HasPrefix(member, "formats") {
			return "format"
		}
		return member
	}
	f.wrong.Add(checkOutput(&req.Output, name))
	for _, phrase := range f.phrases {
		p, err := newPrompt("", phrase, &req.Output, &api.Options{}, name)
		f.wrong.Add(err)
		req.Prompts = append(req.Prompts, p)
	}
	f.wrong.Add(req.checkOverlay("size"))
	return req, f.wrong.Err()
}

func readImage(from io.Reader, most int64) ([]byte, error) {
	var image bytes.Buffer
	if _, err := io.Copy(&image, io.LimitReader(from, most+1)); err != nil {
		return nil, err
	}
	if int64(image.Len()) > most {
		return nil, tooLarge(api.FieldImage, most)
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
			return "", &refersam.Error{Code: refersam.CodePhraseTooLong, Message: "The phrase is far too long; use fewer words.", At: refersam.Named(name)}
		}
		return "", refersam.Invalidf(name, "The field is too long.")
	}
	return string(value), nil
}
