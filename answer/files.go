package answer

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam/api"
)

// file is a mask in one format, as a file of its own.
type file struct {
	format, name, mediaType string
	phrase                  string // "" for the answer
	content                 []byte
}

// mediaOf returns the media type of a file in a format.
func mediaOf(format, overlay string) string {
	switch format {
	case api.FormatRLE, api.FormatCounts:
		return api.MediaJSON
	case api.FormatPolygon:
		return api.MediaGeoJSON
	case api.FormatOverlay:
		if overlay == api.OverlayJPEG {
			return api.MediaJPEG
		}
	}
	return api.MediaPNG
}

// extensions maps a media type to the extension of a file.
var extensions = map[string]string{
	api.MediaJSON: "json", api.MediaGeoJSON: "geojson", api.MediaPNG: "png", api.MediaJPEG: "jpg",
}

// onlyPNG returns the one mask of an answer that is a PNG.
func onlyPNG(m *api.AnswerMasks) []byte {
	for _, content := range [][]byte{m.PNG, m.PNG8, m.Probability, m.Overlay} {
		if content != nil {
			return content
		}
	}
	return nil
}

// maskFiles returns the masks of the i-th result, in the order of api.Formats.
func maskFiles(m *api.AnswerMasks, i int, overlay string) ([]file, error) {
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
		{api.FormatRLE, m.RLE, m.RLE != nil},
		{api.FormatCounts, m.Counts, m.Counts != nil},
		{api.FormatPolygon, m.Polygon, m.Polygon != nil},
	} {
		if document.there {
			content, err := json.Marshal(document.value)
			if err != nil {
				return nil, err
			}
			add(document.format, content)
		}
	}
	add(api.FormatPNG, m.PNG)
	add(api.FormatPNG8, m.PNG8)
	add(api.FormatProbability, m.Probability)
	add(api.FormatOverlay, m.Overlay)
	return files, nil
}

// split moves the masks of an answer into files and leaves their names in the
// answer. The first file is the answer.
func split(a *api.Answer, overlay string) ([]file, error) {
	files := make([]file, 1)
	for i := range a.Results {
		r := &a.Results[i]
		own, err := maskFiles(&r.Masks, i, overlay)
		if err != nil {
			return nil, err
		}
		r.Masks, r.Files = api.AnswerMasks{}, make(map[string]string, len(own))
		for _, f := range own {
			r.Files[f.format] = f.name
			f.phrase = r.Phrase
			files = append(files, f)
		}
	}
	content, err := json.Marshal(a, json.Deterministic(true))
	files[0] = file{name: "result.json", mediaType: api.MediaJSON, content: content}
	return files, err
}
