package gateway

import (
	"archive/zip"
	"fmt"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"time"

	"github.com/go-json-experiment/json"
)

// file is a mask in one format, as a file of its own.
type file struct {
	format, name, mediaType string
	phrase                  string // "" for the answer
	content                 []byte
}

// mediaOf is the media type of a format's file.
func mediaOf(format, overlay string) string {
	switch format {
	case FormatRLE, FormatCounts:
		return mediaJSON
	case FormatPolygon:
		return "application/geo+json"
	case FormatOverlay:
		if overlay == overlayJPEG {
			return mediaJPEG
		}
	}
	return mediaPNG
}

// extensions are the ends of the names of files, by media type.
var extensions = map[string]string{
	mediaJSON: "json", "application/geo+json": "geojson", mediaPNG: "png", mediaJPEG: "jpg",
}

// png is the only mask there is, which is a PNG.
func (m *AnswerMasks) png() []byte {
	for _, content := range [][]byte{m.PNG, m.PNG8, m.Probability, m.Overlay} {
		if content != nil {
			return content
		}
	}
	return nil
}

// files are the masks of the i-th result, in the order of Formats.
func (m *AnswerMasks) files(i int, overlay string) ([]file, error) {
	var files []file
	add := func(format string, content []byte) {
		if content != nil {
			mediaType := mediaOf(format, overlay)
			name := fmt.Sprintf("%d-%s.%s", i, format, extensions[mediaType])
			files = append(files, file{format: format, name: name, mediaType: mediaType, content: content})
		}
	}
	for _, document := range []struct {
		format string
		value  any
		there  bool
	}{
		{FormatRLE, m.RLE, m.RLE != nil},
		{FormatCounts, m.Counts, m.Counts != nil},
		{FormatPolygon, m.Polygon, m.Polygon != nil},
	} {
		if document.there {
			content, err := json.Marshal(document.value)
			if err != nil {
				return nil, err
			}
			add(document.format, content)
		}
	}
	add(FormatPNG, m.PNG)
	add(FormatPNG8, m.PNG8)
	add(FormatProbability, m.Probability)
	add(FormatOverlay, m.Overlay)
	return files, nil
}

// split moves the masks of an answer into files, of which the answer keeps the
// names. The first file is the answer.
func (a *Answer) split(overlay string) ([]file, error) {
	files := make([]file, 1)
	for i := range a.Results {
		r := &a.Results[i]
		own, err := r.Masks.files(i, overlay)
		if err != nil {
			return nil, err
		}
		r.Masks, r.Files = AnswerMasks{}, make(map[string]string, len(own))
		for _, f := range own {
			r.Files[f.format] = f.name
			f.phrase = r.Phrase
			files = append(files, f)
		}
	}
	content, err := json.Marshal(a, json.Deterministic(true))
	files[0] = file{name: "result.json", mediaType: mediaJSON, content: content}
	return files, err
}

// writeZip answers with result.json and the masks in an archive.
func writeZip(w http.ResponseWriter, a *Answer, overlay string) error {
	files, err := a.split(overlay)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", mediaZip)
	w.Header().Set("Content-Disposition", `attachment; filename="masks.zip"`)
	w.WriteHeader(http.StatusOK)
	z := zip.NewWriter(w)
	made := time.Now()
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: made}
		if f.mediaType == mediaPNG || f.mediaType == mediaJPEG {
			header.Method = zip.Store // they are compressed already
		}
		entry, err := z.CreateHeader(header)
		if err != nil {
			return err
		}
		if _, err := entry.Write(f.content); err != nil {
			return nil // the client has gone
		}
	}
	_ = z.Close() // likewise
	return nil
}

// writeMixed answers with the result and the masks as parts.
func writeMixed(w http.ResponseWriter, a *Answer, overlay string) error {
	files, err := a.split(overlay)
	if err != nil {
		return err
	}
	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", mediaMixed+"; boundary="+parts.Boundary())
	w.WriteHeader(http.StatusOK)
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
			return nil // the client has gone
		}
		if _, err := part.Write(f.content); err != nil {
			return nil // likewise
		}
	}
	_ = parts.Close() // likewise
	return nil
}
