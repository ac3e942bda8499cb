package intake

import (
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

// ParseUpload reads a picture to store: from a form, from JSON, or from a body that
// is the picture.
func ParseUpload(w http.ResponseWriter, r *http.Request, maxImage int64) (answer.Source, error) {
	if err := identityEncoded(r); err != nil {
		return answer.Source{}, err
	}
	if r.URL.RawQuery != "" {
		return answer.Source{}, refersam.Errorf(refersam.CodeInvalidRequest, "This route has no query parameters.")
	}
	kind := MediaType(r)
	r.Body = http.MaxBytesReader(w, r.Body, MaxBody(kind, maxImage))
	var (
		from answer.Source
		err  error
	)
	switch {
	case isPicture(kind):
		from.Field = api.FieldImage
		from.Data, err = readImage(r.Body, maxImage)
	case kind == api.MediaForm:
		from, err = parseUploadForm(r, maxImage)
	case kind == api.MediaJSON:
		var b api.Upload
		if err = ReadJSON(r.Body, &b); err == nil {
			from, err = pictureSource(b.Image, "/image", maxImage)
		}
	default:
		err = refersam.Errorf(refersam.CodeUnsupportedMedia, "Send multipart/form-data, application/json, or a picture as image/*.")
	}
	if err != nil {
		return answer.Source{}, ReadError(err)
	}
	if from.ID != "" {
		return answer.Source{}, refersam.Invalidf(from.Field, "This image is already stored; use its id.")
	}
	return from, nil
}

func parseUploadForm(r *http.Request, maxImage int64) (from answer.Source, err error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return from, err
	}
	f := newFields(api.FieldImage, api.FieldImageURL)
	if err := ReadParts(parts, func(part *multipart.Part) error {
		if name := part.FormName(); !slices.Contains(f.pictures, name) {
			f.wrong.Add(refersam.Invalidf(name, "The field %q does not exist; the fields are %s.", name, strings.Join(f.pictures, ", ")))
			return nil
		}
		return f.read(part, maxImage)
	}); err != nil {
		return from, err
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return from, err
	}
	if f.req.Source.Field == "" {
		f.wrong.Add(refersam.Invalidf(api.FieldImage, "The picture is missing: send it as the file %q, or say where it is in %q.", api.FieldImage, api.FieldImageURL))
	}
	return f.req.Source, f.wrong.Err()
}
