package answer

import (
	"archive/zip"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// Rendered is an answer in the form that the client asked for.
type Rendered struct {
	// Header holds the header fields that belong to the form, including
	// Content-Type.
	Header map[string]string
	// Body writes the answer. Its error is the writer's.
	Body func(w io.Writer) error
}

// Render writes the answer in a form: api.MediaJSON, api.MediaPNG (after
// Question.OnlyPNG), api.MediaZip or api.MediaMixed. The answer must not be used
// afterwards.
func (a *Answered) Render(form string) (*Rendered, error) {
	switch form {
	case api.MediaPNG:
		return a.renderPNG(), nil
	case api.MediaZip, api.MediaMixed:
		files, err := split(a.Answer, a.overlay)
		if err != nil {
			return nil, err
		}
		if form == api.MediaZip {
			return renderZip(files), nil
		}
		return renderMixed(files), nil
	default:
		content, err := json.Marshal(a.Answer)
		return &Rendered{Header: map[string]string{"Content-Type": api.MediaJSON}, Body: written(content)}, err
	}
}

// written returns a Body that writes existing bytes.
func written(content []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	}
}

// renderPNG renders the first mask as a PNG. The other members of the result
// become header fields.
func (a *Answered) renderPNG() *Rendered {
	r := &a.Response.Results[0]
	h := map[string]string{
		"Content-Type":       api.MediaPNG,
		"X-Refersam-Model":   a.Response.Model,
		"X-Refersam-Variant": a.Response.Variant,
		"X-Refersam-Status":  api.Status(r),
		"X-Refersam-Score":   strconv.FormatFloat(r.Score, 'f', 4, 64),
		"X-Refersam-Origin":  string(r.Origin),
		"X-Refersam-Area":    strconv.Itoa(r.Area),
		"X-Refersam-Bbox":    fmt.Sprintf("%d,%d,%d,%d", r.Box.X, r.Box.Y, r.Box.W, r.Box.H),
	}
	if q := a.Answer.Results[0].Quality; q != nil {
		h["X-Refersam-Components"] = strconv.Itoa(q.Components)
		h["X-Refersam-Stability"] = strconv.FormatFloat(q.Stability, 'f', 4, 64)
	}
	if r.Truncated() {
		h["X-Refersam-Warning"] = fmt.Sprintf("%s; tokens=%d; limit=%d", api.WarningTruncated, r.Tokens, r.Limit)
	}
	return &Rendered{Header: h, Body: written(onlyPNG(&a.masks[0]))}
}

// renderZip renders result.json and the masks as an archive.
func renderZip(files []file) *Rendered {
	return &Rendered{
		Header: map[string]string{"Content-Type": api.MediaZip, "Content-Disposition": `attachment; filename="masks.zip"`},
		Body: func(w io.Writer) error {
			z := zip.NewWriter(w)
			made := time.Now()
			for _, f := range files {
				header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: made}
				if f.mediaType == api.MediaPNG || f.mediaType == api.MediaJPEG {
					header.Method = zip.Store // compressed already
				}
				entry, err := z.CreateHeader(header)
				if err != nil {
					return err
				}
				if _, err := entry.Write(f.content); err != nil {
					return err
				}
			}
			return z.Close()
		},
	}
}

// renderMixed renders the result and the masks as parts.
func renderMixed(files []file) *Rendered {
	boundary := multipart.NewWriter(io.Discard).Boundary()
	return &Rendered{
		Header: map[string]string{"Content-Type": api.MediaMixed + "; boundary=" + boundary},
		Body: func(w io.Writer) error {
			parts := multipart.NewWriter(w)
			if err := parts.SetBoundary(boundary); err != nil {
				return err
			}
			for _, f := range files {
				header := textproto.MIMEHeader{
					"Content-Type":        {f.mediaType},
					"Content-Disposition": {fmt.Sprintf(`attachment; filename="%s"`, f.name)},
				}
				if f.phrase != "" {
					header.Set("Content-Description", mime.QEncoding.Encode("utf-8", f.phrase))
				}
				part, err := parts.CreatePart(header)
				if err != nil {
					return err
				}
				if _, err := part.Write(f.content); err != nil {
					return err
				}
			}
			return parts.Close()
		},
	}
}

// NewAnswer writes a response with the masks of its results.
func NewAnswer(requestID string, resp *refersam.Response, masks []api.AnswerMasks) *api.Answer {
	a := &api.Answer{
		RequestID: requestID,
		Image:     api.AnswerImage{Width: resp.Width, Height: resp.Height},
		Mask:      api.AnswerImage{Width: resp.MaskWidth, Height: resp.MaskHeight},
		Model:     api.AnswerModel{Name: resp.Model, Variant: resp.Variant, Version: resp.Version, Checkpoint: resp.Checkpoint},
		Results:   make([]api.AnswerResult, len(resp.Results)),
	}
	for i := range resp.Results {
		r := &resp.Results[i]
		a.Results[i] = api.AnswerResult{
			PromptID: r.PhraseID,
			Phrase:   r.Phrase,
			Status:   api.Status(r),
			Score:    r.Score,
			Empty:    r.Empty(),
			Origin:   string(r.Origin),
			Area:     r.Area,
			BBox:     [4]int{r.Box.X, r.Box.Y, r.Box.W, r.Box.H},
			Masks:    masks[i],
		}
		if r.Truncated() {
			a.Warnings = append(a.Warnings, api.Warning{Code: api.WarningTruncated, Result: i, Tokens: r.Tokens, Limit: r.Limit})
		}
	}
	return a
}
