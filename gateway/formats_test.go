package gateway_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"maps"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/postprocess"
)

// rawRequest is a picture as the body, and the rest in the query.
func rawRequest(query string) *http.Request {
	req := httptest.NewRequest(http.MethodPost, "/v1/segment?"+query, strings.NewReader(picture))
	req.Header.Set("Content-Type", "image/png")
	return req
}

func prompts(rest string) *http.Request {
	return jsonRequest(`{"image":{"data":%q},%s}`, encoded, rest)
}

func decodePNG(t *testing.T, data []byte) image.Image {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestSegment_Raw(t *testing.T) {
	s := start(t)
	want := decode(t, s.do(form(part{"image", picture}, part{"phrase", "red"}, part{"phrase", "blue"}, part{"threshold", "0.3"})))
	for _, contentType := range []string{"image/png", "image/jpeg", "application/octet-stream"} {
		req := with(rawRequest("phrase=red&phrase=blue&threshold=0.3&format=coco_rle&deadline_ms=9000&priority=batch"), "Content-Type", contentType)
		got := decode(t, s.do(req))
		if len(got.Results) != 2 {
			t.Fatalf("%s: %d results", contentType, len(got.Results))
		}
		for i := range got.Results {
			if *got.Results[i].Masks.RLE != *want.Results[i].Masks.RLE {
				t.Errorf("%s: mask %d is not that of the form", contentType, i)
			}
		}
	}
}

// All formats contain the same mask.
func TestSegment_Formats(t *testing.T) {
	s := start(t)
	a := decode(t, s.do(rawRequest("phrase=red&quality=true&format="+strings.Join(api.Formats, ","))))
	r := &a.Results[0]
	mask, err := postprocess.DecodeRLE(r.Masks.RLE.Counts, 320, 240)
	if err != nil {
		t.Fatal(err)
	}
	if r.Area == 0 || r.Area != postprocess.Area(mask) {
		t.Errorf("area %d, in the RLE %d", r.Area, postprocess.Area(mask))
	}
	uncompressed, err := json.Marshal(r.Masks.Counts)
	if err != nil {
		t.Fatal(err)
	}
	counts, err := postprocess.ParseRLE(uncompressed)
	if err != nil || !slices.Equal(counts.Runs, mask.Runs) {
		t.Errorf("the uncompressed RLE is another mask: %v", err)
	}
	geometry, err := json.Marshal(r.Masks.Polygon)
	if err != nil {
		t.Fatal(err)
	}
	polygons, err := postprocess.ParseGeoJSON(geometry)
	if err != nil {
		t.Fatal(err)
	}
	if drawn, err := postprocess.FromPolygons(polygons, 320, 240); err != nil || !slices.Equal(drawn.Runs, mask.Runs) {
		t.Errorf("the polygon is another mask: %v", err)
	}
	for name, data := range map[string][]byte{"png": r.Masks.PNG, "png8": r.Masks.PNG8} {
		if got := white(decodePNG(t, data)); got != r.Area {
			t.Errorf("%s: %d white pixels, want %d", name, got, r.Area)
		}
	}
	probability, ok := decodePNG(t, r.Masks.Probability).(*image.Gray16)
	if !ok || probability.Gray16At(80, 100).Y < 65_000 || probability.Gray16At(300, 20).Y > 500 {
		t.Error("the probabilities are not high in the square and low elsewhere")
	}
	overlay, original := decodePNG(t, r.Masks.Overlay), decodePNG(t, []byte(picture))
	if overlay.Bounds() != original.Bounds() || overlay.At(80, 100) == original.At(80, 100) {
		t.Error("the overlay does not show the mask")
	}
	if r1, g1, b1, _ := overlay.At(300, 20).RGBA(); true {
		if r2, g2, b2, _ := original.At(300, 20).RGBA(); r1 != r2 || g1 != g2 || b1 != b2 {
			t.Error("the overlay changes what is outside of the mask")
		}
	}
	if r.Quality == nil || r.Quality.Components != 1 || r.Quality.Stability < 0.8 || r.Quality.Stability > 1 {
		t.Errorf("quality %+v", r.Quality)
	}

	a = decode(t, s.do(rawRequest("phrase=red&format=overlay&overlay=jpeg")))
	if img, err := jpeg.Decode(bytes.NewReader(a.Results[0].Masks.Overlay)); err != nil || img.Bounds() != original.Bounds() {
		t.Errorf("the overlay is no JPEG: %v", err)
	}
	if a.Results[0].Quality != nil {
		t.Error("quality that nobody asked for")
	}
	h := s.do(with(rawRequest("phrase=red&quality=true"), "Accept", "image/png")).Header()
	if stability, err := strconv.ParseFloat(h.Get("X-Refersam-Stability"), 64); err != nil || math.Abs(stability-r.Quality.Stability) > 1e-4 || h.Get("X-Refersam-Components") != "1" {
		t.Errorf("quality of a PNG: %v", h)
	}
	if h := s.do(with(rawRequest("phrase=red"), "Accept", "image/png")).Header(); h.Get("X-Refersam-Stability") != "" || h.Get("X-Refersam-Components") != "" {
		t.Errorf("quality that nobody asked for: %v", h)
	}
	empty := decode(t, s.do(rawRequest("phrase=nothing&quality=true&format=polygon,png,overlay")))
	if r := empty.Results[0]; r.Masks.Polygon.Coordinates == nil || r.Status != "empty" || r.Quality.Stability != 1 {
		t.Errorf("nothing found: %+v", r)
	}
}

// Each prompt has its own options; options that it leaves out come from output.
func TestSegment_PromptOptions(t *testing.T) {
	s := start(t)
	a := decode(t, s.do(prompts(`"output":{"formats":["png"],"min_area":50000},"prompts":[
		{"text":"red"},
		{"text":"red","min_area":0,"formats":["polygon"],"tolerance":5},
		{"text":"blue","min_area":10,"keep":"largest","fill_holes":9,"threshold":0.9}]`)))
	if r := a.Results[0]; r.Status != "empty" || r.Masks.PNG == nil || r.Masks.RLE != nil {
		t.Errorf("the output's options do not hold for a prompt without: %+v", r)
	}
	if r := a.Results[1]; r.Status != "ok" || r.Masks.PNG != nil || len(r.Masks.Polygon.Coordinates) != 1 || len(r.Masks.Polygon.Coordinates[0][0]) > 9 {
		t.Errorf("a prompt's own options do not hold: %+v", r.Masks.Polygon)
	}
	low := decode(t, s.do(prompts(`"prompts":[{"text":"blue","threshold":0.1}]`)))
	if a.Results[2].Area == 0 || a.Results[2].Area >= low.Results[0].Area {
		t.Errorf("area %d at 0.9, %d at 0.1", a.Results[2].Area, low.Results[0].Area)
	}
}

func TestSegment_Size(t *testing.T) {
	s := start(t)
	a := decode(t, s.do(rawRequest("phrase=red&size=model&format=png,probability")))
	if a.Image.Width != 320 || a.Mask.Width != 32 || a.Mask.Height != 32 {
		t.Errorf("picture %v, mask %v", a.Image, a.Mask)
	}
	if img := decodePNG(t, a.Results[0].Masks.PNG); img.Bounds() != image.Rect(0, 0, 32, 32) || white(img) != a.Results[0].Area {
		t.Errorf("a mask of %v, area %d", img.Bounds(), a.Results[0].Area)
	}
	if img := decodePNG(t, a.Results[0].Masks.Probability); img.Bounds() != image.Rect(0, 0, 32, 32) {
		t.Errorf("probabilities of %v", img.Bounds())
	}
	if a = decode(t, s.do(rawRequest("phrase=red&size=original"))); a.Mask != a.Image {
		t.Errorf("picture %v, mask %v", a.Image, a.Mask)
	}
}

func TestSegment_OnePNG(t *testing.T) {
	s := start(t)
	for format, depth := range map[string]byte{"png": 1, "png8": 8, "probability": 16, "overlay": 8} {
		w := s.do(with(rawRequest("phrase=red&format="+format), "Accept", "image/png"))
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "image/png" || w.Body.Bytes()[24] != depth {
			t.Errorf("%s: status %d, %.40q", format, w.Code, w.Body)
		}
	}
	expectProblem(t, s.do(with(rawRequest("phrase=red&format=overlay&overlay=jpeg"), "Accept", "image/png")), 422, "invalid_request", "format")
}

const twoFormats = `"prompts":[{"text":"red","formats":["png","coco_rle"]},{"text":"blue","formats":["polygon"]}]`

// expectFiles checks the files that twoFormats returns.
func expectFiles(t *testing.T, types, contents map[string]string) {
	t.Helper()
	var result api.Answer
	if err := json.Unmarshal([]byte(contents["result.json"]), &result); err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{{"png": "0-png.png", "coco_rle": "0-coco_rle.json"}, {"polygon": "1-polygon.geojson"}}
	for i, r := range result.Results {
		if phrase := []string{"red", "blue"}[i]; r.Phrase != phrase {
			t.Errorf("result %d answers the phrase %q, want %q", i, r.Phrase, phrase)
		}
		if fmt.Sprint(r.Files) != fmt.Sprint(want[i]) {
			t.Errorf("result %d: files %v, want %v", i, r.Files, want[i])
		}
	}
	if len(contents) != 4 || strings.Contains(contents["result.json"], `"masks"`) {
		t.Errorf("%d files, result.json: %s", len(contents), contents["result.json"])
	}
	if got := white(decodePNG(t, []byte(contents["0-png.png"]))); got != result.Results[0].Area {
		t.Errorf("%d white pixels, area %d", got, result.Results[0].Area)
	}
	if !strings.Contains(contents["1-polygon.geojson"], "MultiPolygon") || !strings.Contains(contents["0-coco_rle.json"], "counts") {
		t.Errorf("%q", contents)
	}
	if types != nil && (types["1-polygon.geojson"] != "application/geo+json" || types["0-png.png"] != "image/png") {
		t.Errorf("%q", types)
	}
}

func TestSegment_Zip(t *testing.T) {
	s := start(t)
	w := s.do(with(prompts(twoFormats), "Accept", "application/zip"))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/zip" {
		t.Fatalf("status %d: %.300s", w.Code, w.Body)
	}
	archive, err := zip.NewReader(bytes.NewReader(w.Body.Bytes()), int64(w.Body.Len()))
	if err != nil {
		t.Fatal(err)
	}
	contents := make(map[string]string)
	for _, f := range archive.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		contents[f.Name] = string(data)
		if age := time.Since(f.Modified); age < -2*time.Second || age > time.Minute { // the archive stores full seconds, or two of them
			t.Errorf("%s is from %s", f.Name, f.Modified)
		}
	}
	expectFiles(t, nil, contents)
}

func TestSegment_Mixed(t *testing.T) {
	s := start(t)
	w := s.do(with(prompts(twoFormats), "Accept", "multipart/mixed"))
	mediaType, params, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if w.Code != http.StatusOK || err != nil || mediaType != "multipart/mixed" {
		t.Fatalf("status %d, %q: %.300s", w.Code, mediaType, w.Body)
	}
	types, contents, descriptions := make(map[string]string), make(map[string]string), make(map[string]string)
	for parts := multipart.NewReader(w.Body, params["boundary"]); ; {
		p, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // the reader returns it unwrapped
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		types[p.FileName()], contents[p.FileName()] = p.Header.Get("Content-Type"), string(data)
		descriptions[p.FileName()] = p.Header.Get("Content-Description")
	}
	expectFiles(t, types, contents)
	want := map[string]string{"result.json": "", "0-png.png": "red", "0-coco_rle.json": "red", "1-polygon.geojson": "blue"}
	if !maps.Equal(descriptions, want) {
		t.Errorf("descriptions %q, want %q", descriptions, want)
	}
}

// A part's header names the phrase in ASCII, whatever its length and characters.
func TestSegment_MixedPhrase(t *testing.T) {
	s := start(t)
	phrase := "die Ente\r\nX-Forged: 1 " + strings.Repeat("größte ", 40) + "🦆"
	text, err := json.Marshal(phrase)
	if err != nil {
		t.Fatal(err)
	}
	w := s.do(with(prompts(fmt.Sprintf(`"prompts":[{"text":%s}]`, text)), "Accept", "multipart/mixed"))
	_, params, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if w.Code != http.StatusOK || err != nil {
		t.Fatalf("status %d: %.300s", w.Code, w.Body)
	}
	parts := multipart.NewReader(w.Body, params["boundary"])
	var p *multipart.Part
	for range 2 {
		if p, err = parts.NextPart(); err != nil {
			t.Fatal(err)
		}
	}
	got, err := new(mime.WordDecoder).DecodeHeader(p.Header.Get("Content-Description"))
	if err != nil || got != phrase || p.Header.Get("X-Forged") != "" {
		t.Errorf("%v, headers %q say the phrase %q, want %q", err, p.Header, got, phrase)
	}
}

func TestSegment_Compressed(t *testing.T) {
	s := start(t)
	const much = "phrase=red&format=rle,polygon"
	for _, tc := range []struct{ accept, query, want string }{
		{"", much, ""},
		{"gzip", much, "gzip"},
		{"gzip, deflate, br, zstd", much, "zstd"},
		{"zstd;q=0.5, gzip", much, "gzip"},
		{"zstd;q=0, *", much, "gzip"},
		{"br", much, ""},
		{"identity, gzip;q=0.5", much, ""},
		{"gzip;q=none", much, ""},
		{"gzip", "phrase=nothing", ""}, // too small
	} {
		w := s.do(with(rawRequest(tc.query), "Accept-Encoding", tc.accept))
		if got := w.Header().Get("Content-Encoding"); got != tc.want {
			t.Errorf("Accept-Encoding %q: %q, want %q", tc.accept, got, tc.want)
			continue
		}
		var plain io.Reader = w.Body
		var err error
		switch tc.want {
		case "gzip":
			plain, err = gzip.NewReader(w.Body)
		case "zstd":
			plain, err = zstd.NewReader(w.Body, zstd.WithDecoderConcurrency(1))
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		w.Body = bytes.NewBuffer(body)
		decode(t, w)
	}
}

func TestSegment_Timings(t *testing.T) {
	s := start(t)
	w := s.do(rawRequest("phrase=red"))
	header := w.Header().Get("Server-Timing")
	got := decode(t, w).Timings
	if got.Decode <= 0 || got.Model <= 0 || got.Mask <= 0 || got.Read+got.Decode+got.Model+got.Mask > got.Total+0.01 {
		t.Errorf("%+v", got)
	}
	if want := fmt.Sprintf("total;dur=%.3f", got.Total); !strings.Contains(header, want) || !strings.Contains(header, "decode;dur=") {
		t.Errorf("Server-Timing %q, want %q in it", header, want)
	}
	if again := decode(t, s.do(rawRequest("phrase=red"))).Timings; again.Decode != 0 {
		t.Errorf("decoding took %v ms for what was known", again.Decode)
	}
}

func TestSegment_ETag(t *testing.T) {
	s := start(t)
	const query = "phrase=red&variant=bert"
	tag := s.do(rawRequest(query)).Header().Get("ETag")
	if !strings.HasPrefix(tag, `W/"`) {
		t.Fatalf("ETag %q", tag)
	}
	ran := len(s.model.Batches())
	w := s.do(with(rawRequest(query+"&deadline_ms=5000"), "If-None-Match", `"other", `+tag))
	if w.Code != http.StatusNotModified || w.Body.Len() != 0 || w.Header().Get("ETag") != tag {
		t.Errorf("status %d, ETag %q", w.Code, w.Header().Get("ETag"))
	}
	if w := s.do(with(form(part{"image", picture}, part{"phrase", "red"}, part{"variant", "bert"}), "If-None-Match", tag)); w.Code != http.StatusNotModified {
		t.Errorf("the same as a form: status %d", w.Code)
	}
	if len(s.model.Batches()) != ran {
		t.Error("the model was asked again")
	}
	for name, req := range map[string]*http.Request{
		"another phrase":    rawRequest("phrase=blue&variant=bert"),
		"another variant":   rawRequest("phrase=red&variant=clip"),
		"another threshold": rawRequest(query + "&threshold=0.4"),
		"another format":    rawRequest(query + "&format=png"),
		"another size":      rawRequest(query + "&size=model"),
		"another form":      with(rawRequest(query), "Accept", "application/zip"),
	} {
		if w := s.do(with(req, "If-None-Match", tag)); w.Code != http.StatusOK || w.Header().Get("ETag") == tag {
			t.Errorf("%s: status %d", name, w.Code)
		}
	}
	w = s.do(with(rawRequest("phrase=+"), "If-None-Match", tag))
	expectProblem(t, w, 422, "phrase_empty", "phrase")
}

// Masks that would take too much memory are refused, and the memory taken so far is
// returned.
func TestSegment_AnswerMemory(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.Answers.AnswerMemory = 2000 })
	for range 20 {
		decode(t, s.do(rawRequest("phrase=nothing")))
		expectProblem(t, s.do(rawRequest("phrase=red&format=overlay,probability")), 503, "overloaded", "")
	}
}
