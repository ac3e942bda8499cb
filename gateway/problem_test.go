package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
)

var errAway = &refersam.Error{Code: refersam.CodeUnavailable, Message: "away", Err: errors.New("dial 10.1.2.3:8001")}

// firstPlace checks the first of the faults against the rest of p, and returns its
// place in the request.
func firstPlace(t *testing.T, p *api.Problem) string {
	t.Helper()
	if len(p.Errors) == 0 {
		return ""
	}
	e := p.Errors[0]
	if (e.Pointer == "") == (e.Field == "") || e.Detail != p.Detail {
		t.Errorf("the first fault is %+v", e)
	}
	if e.Field != "" {
		return e.Field
	}
	pointer, err := url.PathUnescape(strings.TrimPrefix(e.Pointer, "#"))
	if err != nil {
		t.Error(err)
	}
	return pointer
}

func expectProblem(t *testing.T, w *httptest.ResponseRecorder, status int, code, field string) {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("status %d of type %q: %.200s", w.Code, got, w.Body)
	}
	expectNames(t, w, new(documentedProblem))
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w.Code != status || string(p.Code) != code || p.Field != field {
		t.Errorf("status %d, code %q, field %q, want %d, %q, %q: %s", w.Code, p.Code, p.Field, status, code, field, w.Body)
	}
	if p.Status != w.Code || p.Title == "" || p.Detail == "" || p.RequestID != w.Header().Get("X-Request-Id") || p.Type != "/problems/"+code {
		t.Errorf("an incomplete problem: %s", w.Body)
	}
	if got := firstPlace(t, &p); got != field {
		t.Errorf("the first fault is at %q, want %q", got, field)
	}
	again := slices.Contains([]int{http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable}, status) && code != "storage_full"
	if got := w.Header().Get("Retry-After"); (got != "") != again {
		t.Errorf("Retry-After %q with status %d", got, status)
	}
}

func TestBadInput(t *testing.T) {
	s := start(t)
	const (
		unprocessable = http.StatusUnprocessableEntity
		tooLarge      = http.StatusRequestEntityTooLarge
		unsupported   = http.StatusUnsupportedMediaType
	)
	phrase := part{"phrase", "the red square"}
	image := part{"image", picture}
	withPicture := func(data string) *http.Request { return form(part{"image", data}, phrase) }
	withPhrase := func(text string) *http.Request { return form(image, part{"phrase", text}) }
	withJSON := func(rest string) *http.Request { return jsonRequest(`{"image":{"data":%q}%s}`, encoded, rest) }
	raw := func(contentType, body string) *http.Request {
		return with(httptest.NewRequest(http.MethodPost, "/v1/segment", strings.NewReader(body)), "Content-Type", contentType)
	}
	withQuery := func(req *http.Request, query string) *http.Request {
		req.URL.RawQuery = query
		return req
	}
	chunked := func(req *http.Request) *http.Request {
		req.ContentLength = -1
		return req
	}
	rawPicture := func(query string) *http.Request { return withQuery(raw("image/png", picture), query) }
	parts := make([]part, 600)
	for i := range parts {
		parts[i] = phrase
	}

	for _, tc := range []struct {
		name   string
		req    *http.Request
		status int
		code   string
		field  string
	}{
		// The picture.
		{"text for a picture", withPicture("this is not a picture"), unsupported, "unsupported_media_type", "image"},
		{"a PDF", withPicture("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), unsupported, "unsupported_media_type", "image"},
		{"an empty picture", withPicture(""), unprocessable, "invalid_image", "image"},
		{"an empty picture in JSON", jsonRequest(`{"image":{"data":""},"prompts":[{"text":"x"}]}`), unprocessable, "invalid_image", "/image/data"},
		{"half a picture", withPicture(picture[:len(picture)/2]), unprocessable, "invalid_image", "image"},
		{"a header alone", withPicture(picture[:33]), unprocessable, "invalid_image", "image"},
		{"a claim of 60,000 × 60,000", withPicture(pipelinetest.HugePNG(60_000, 60_000)), tooLarge, "image_too_large", "image"},
		{"too many bytes of picture", withPicture(picture + strings.Repeat("\x00", maxImage)), tooLarge, "image_too_large", "image"},
		{"a body that is much too large", withPicture(picture + strings.Repeat("\x00", 4*maxImage)), tooLarge, "image_too_large", ""},
		{"one of unknown length", chunked(withPicture(picture + strings.Repeat("\x00", 4*maxImage))), tooLarge, "image_too_large", "image"},
		{"a form that is too large beside the picture", chunked(form(image, phrase, part{"variant", strings.Repeat("x", 3*maxImage)})), unprocessable, "invalid_request", "variant"},
		{"JSON that is too large", withJSON(`,"prompts":[{"text":"` + strings.Repeat("x", 4*maxImage) + `"}]`), tooLarge, "image_too_large", ""},
		{"too many bytes in base64", jsonRequest(`{"image":{"data":%q},"prompts":[{"text":"x"}]}`, strings.Repeat("A", maxImage/3*4+8)), tooLarge, "image_too_large", "/image/data"},
		{"no picture", form(phrase), unprocessable, "invalid_request", "image"},
		{"no picture in JSON", jsonRequest(`{"prompts":[{"text":"x"}]}`), unprocessable, "invalid_request", "/image"},
		{"two pictures", form(image, image, phrase), unprocessable, "invalid_request", "image"},
		{"base64 that is none", jsonRequest(`{"image":{"data":"???"},"prompts":[{"text":"x"}]}`), unprocessable, "invalid_request", "/image/data"},

		// The phrases.
		{"no phrase", form(image), unprocessable, "invalid_request", "phrase"},
		{"no prompts", withJSON(``), unprocessable, "invalid_request", "/prompts"},
		{"an empty phrase", withPhrase(""), unprocessable, "phrase_empty", "phrase"},
		{"a blank phrase", withPhrase(" \t\r\n"), unprocessable, "phrase_empty", "phrase"},
		{"a blank phrase in JSON", withJSON(`,"prompts":[{"text":"red"},{"text":" "}]`), unprocessable, "phrase_empty", "/prompts/1/text"},
		{"a phrase that does not show", withPhrase("\ufeff\u200b\u202e"), unprocessable, "phrase_empty", "phrase"},
		{"a phrase of NUL in JSON", withJSON(`,"prompts":[{"text":"\u0000"}]`), unprocessable, "phrase_empty", "/prompts/0/text"},
		{"a phrase of 10 kB", withPhrase(strings.Repeat("duck ", 2000)), unprocessable, "phrase_too_long", "phrase"},
		{"a phrase of 100 kB", withPhrase(strings.Repeat("duck ", 20_000)), unprocessable, "phrase_too_long", "phrase"},
		{"a phrase that is not UTF-8", withPhrase("the d\xffck"), unprocessable, "invalid_request", "phrase"},
		{"JSON that is not UTF-8", withJSON(",\"prompts\":[{\"text\":\"d\xffck\"}]"), http.StatusBadRequest, "malformed_request", "/prompts/0/text"},
		{"half a surrogate in JSON", withJSON(`,"prompts":[{"text":"d\ud800ck"}]`), http.StatusBadRequest, "malformed_request", "/prompts/0/text"},
		{"33 phrases", form(append(bytesOf(33, phrase), image)...), unprocessable, "invalid_request", "phrase"},

		// Other fields.
		{"an unknown variant", form(image, phrase, part{"variant", "gpt"}), unprocessable, "unknown_model", "variant"},
		{"an unknown variant in JSON", withJSON(`,"prompts":[{"text":"x"}],"variant":"gpt"`), unprocessable, "unknown_model", "/variant"},
		{"two variants", form(image, phrase, part{"variant", "bert"}, part{"variant", "clip"}), unprocessable, "invalid_request", "variant"},
		{"an unknown field", form(image, phrase, part{"colour", "red"}), unprocessable, "invalid_request", "colour"},
		{"an unknown field that is not UTF-8", form(image, phrase, part{"\xff", "red"}), unprocessable, "invalid_request", "\uFFFD"},
		{"an unknown member", withJSON(`,"prompts":[{"text":"x"}],"colour":"red"`), unprocessable, "invalid_request", "/colour"},
		{"an unknown member inside", withJSON(`,"prompts":[{"text":"x","negative":["y"]}]`), unprocessable, "invalid_request", "/prompts/0/negative"},
		{"a member twice", withJSON(`,"prompts":[{"text":"x","text":"y"}]`), http.StatusBadRequest, "malformed_request", "/prompts/0/text"},
		{"a member of another type", withJSON(`,"prompts":"x"`), unprocessable, "invalid_request", "/prompts"},
		{"an unknown format", form(image, phrase, part{"format", "png,svg"}), unprocessable, "invalid_request", "format"},
		{"an unknown format in JSON", withJSON(`,"prompts":[{"text":"x"}],"output":{"formats":["png","svg"]}`), unprocessable, "invalid_request", "/output/formats/1"},
		{"more formats than there are", form(image, phrase, part{"format", strings.Repeat(",", 64<<10-1)}), unprocessable, "invalid_request", "format"},
		{"more formats in fields", form(append(bytesOf(33, part{"format", "png"}), image, phrase)...), unprocessable, "invalid_request", "format"},
		{"more formats in JSON", withJSON(`,"prompts":[{"text":"x"}],"output":{"formats":["png"` + strings.Repeat(`,"png"`, 32) + `]}`), unprocessable, "invalid_request", "/output/formats"},
		{"more formats of a prompt", withJSON(`,"prompts":[{"text":"x","formats":["png"` + strings.Repeat(`,"png"`, 32) + `]}]`), unprocessable, "invalid_request", "/prompts/0/formats"},
		{"a long id", withJSON(`,"prompts":[{"text":"x","id":"` + strings.Repeat("ü", 129) + `"}]`), unprocessable, "invalid_request", "/prompts/0/id"},
		{"an id with NUL", withJSON(`,"prompts":[{"text":"x"},{"text":"x","id":"a\u0000"}]`), unprocessable, "invalid_request", "/prompts/1/id"},
		{"a long unit", with(form(image, phrase), "X-Unit-Id", strings.Repeat("a", 129)), unprocessable, "invalid_request", "X-Unit-Id"},
		{"a unit that is not UTF-8", with(form(image, phrase), "X-Unit-Id", "\xff"), unprocessable, "invalid_request", "X-Unit-Id"},
		{"a webhook that is not UTF-8", async(form(image, phrase, part{"webhook", "https://good.example/\xff"})), unprocessable, "invalid_request", "webhook"},
		{"an address that is not UTF-8", async(form(phrase, part{"image_url", "https://good.example/\xff"})), unprocessable, "invalid_request", "image_url"},
		{"a threshold that is none", form(image, phrase, part{"threshold", "half"}), unprocessable, "invalid_request", "threshold"},
		{"a threshold of 1", form(image, phrase, part{"threshold", "1"}), unprocessable, "invalid_request", "threshold"},
		{"a threshold of NaN", form(image, phrase, part{"threshold", "NaN"}), unprocessable, "invalid_request", "threshold"},
		{"a threshold of 0 in JSON", withJSON(`,"prompts":[{"text":"x","threshold":0}]`), unprocessable, "invalid_request", "/prompts/0/threshold"},
		{"two phrases for one PNG", with(form(image, phrase, phrase), "Accept", "image/png"), unprocessable, "invalid_request", "phrase"},
		{"600 fields", form(parts...), unprocessable, "invalid_request", ""},

		// Masks.
		{"two sizes", form(image, phrase, part{"size", "model"}, part{"size", "model"}), unprocessable, "invalid_request", "size"},
		{"an unknown size", form(image, phrase, part{"size", "huge"}), unprocessable, "invalid_request", "size"},
		{"an unknown size in JSON", withJSON(`,"prompts":[{"text":"x"}],"output":{"size":"huge"}`), unprocessable, "invalid_request", "/output/size"},
		{"an unknown overlay", withJSON(`,"prompts":[{"text":"x"}],"output":{"overlay":"gif"}`), unprocessable, "invalid_request", "/output/overlay"},
		{"an overlay of another size", withJSON(`,"prompts":[{"text":"x","formats":["overlay"]}],"output":{"size":"model"}`), unprocessable, "invalid_request", "/output/size"},
		{"keep none", withJSON(`,"prompts":[{"text":"x","keep":"none"}]`), unprocessable, "invalid_request", "/prompts/0/keep"},
		{"keep none of all", withJSON(`,"prompts":[{"text":"x"}],"output":{"keep":"none"}`), unprocessable, "invalid_request", "/output/keep"},
		{"half a pixel", withJSON(`,"prompts":[{"text":"x","min_area":0.5}]`), unprocessable, "invalid_request", "/prompts/0/min_area"},
		{"less than no pixels", withJSON(`,"prompts":[{"text":"x"},{"text":"x","fill_holes":-1}]`), unprocessable, "invalid_request", "/prompts/1/fill_holes"},
		{"a tolerance that is too large", withJSON(`,"prompts":[{"text":"x"}],"output":{"tolerance":1e9}`), unprocessable, "invalid_request", "/output/tolerance"},
		{"a prompt's unknown format", withJSON(`,"prompts":[{"text":"x","formats":["png","svg"]}]`), unprocessable, "invalid_request", "/prompts/0/formats/1"},
		{"quality of 90", form(image, phrase, part{"quality", "90"}), unprocessable, "invalid_request", "quality"},
		{"quality of 90 in JSON", withJSON(`,"prompts":[{"text":"x"}],"output":{"quality":90}`), unprocessable, "invalid_request", "/output/quality"},
		{"a word for an area", form(image, phrase, part{"min_area", "small"}), unprocessable, "invalid_request", "min_area"},
		{"600 prompts", withJSON(`,"prompts":[` + strings.Repeat(`{"text":"x"},`, 599) + `{"text":"x"}]`), unprocessable, "invalid_request", "/prompts"},
		{"a PNG of run lengths", with(form(image, phrase, part{"format", "rle"}), "Accept", "image/png"), unprocessable, "invalid_request", "format"},
		{"a PNG of two formats", with(withJSON(`,"prompts":[{"text":"x","formats":["png","png8"]}]`), "Accept", "image/png"), unprocessable, "invalid_request", "/output/formats"},

		// A body that is the picture.
		{"a raw picture without phrases", rawPicture(""), unprocessable, "invalid_request", "phrase"},
		{"a raw picture with a blank phrase", rawPicture("phrase=+"), unprocessable, "phrase_empty", "phrase"},
		{"a raw picture and an unknown field", rawPicture("phrase=red&colour=red"), unprocessable, "invalid_request", "colour"},
		{"a raw picture and another in the query", rawPicture("phrase=red&image=x"), unprocessable, "invalid_request", "image"},
		{"a raw picture and two thresholds", rawPicture("phrase=red&threshold=0.5&threshold=0.4"), unprocessable, "invalid_request", "threshold"},
		{"a raw picture and a query that is none", rawPicture("phrase=%zz"), http.StatusBadRequest, "malformed_request", ""},
		{"a raw picture and 600 fields", rawPicture(strings.Repeat("phrase=x&", 600)), unprocessable, "invalid_request", ""},
		{"an empty variant", form(image, phrase, part{"variant", ""}), unprocessable, "invalid_request", "variant"},
		{"an empty variant in JSON", withJSON(`,"prompts":[{"text":"x"}],"variant":""`), unprocessable, "invalid_request", "/variant"},
		{"a field without a name", form(part{"", "https://a.example/a.png"}, image, phrase), unprocessable, "invalid_request", ""},
		{"a threshold in hexadecimal", rawPicture("phrase=red&threshold=0x1p-2"), unprocessable, "invalid_request", "threshold"},
		{"an infinite tolerance", rawPicture("phrase=red&tolerance=inf"), unprocessable, "invalid_request", "tolerance"},
		{"a tolerance of 1e999", rawPicture("phrase=red&tolerance=1e999"), unprocessable, "invalid_request", "tolerance"},
		{"an area of 30 digits", rawPicture("phrase=red&min_area=" + strings.Repeat("9", 30)), unprocessable, "invalid_request", "min_area"},
		{"an area of 1e300 in JSON", withJSON(`,"prompts":[{"text":"x","min_area":1e300}]`), unprocessable, "invalid_request", "/prompts/0/min_area"},
		{"an area of 1e999 in JSON", withJSON(`,"prompts":[{"text":"x","min_area":-1e999}]`), unprocessable, "invalid_request", "/prompts/0/min_area"},
		{"half an area", withJSON(`,"prompts":[{"text":"x","min_area":0.5}]`), unprocessable, "invalid_request", "/prompts/0/min_area"},
		{"a raw phrase that is not UTF-8", rawPicture("phrase=d%ffck"), unprocessable, "invalid_request", "phrase"},
		{"a raw picture that is text", raw("image/png", "this is not a picture"), unprocessable, "invalid_request", "phrase"},
		{"a raw picture that is too large", raw("application/octet-stream", picture+strings.Repeat("\x00", maxImage)), tooLarge, "image_too_large", "image"},
		{"a query beside a form", withQuery(form(image, phrase), "format=png"), unprocessable, "invalid_request", ""},

		// The body.
		{"half a JSON", jsonRequest(`{"image":{"data":`), http.StatusBadRequest, "malformed_request", "/image/data"},
		{"no JSON", jsonRequest(``), http.StatusBadRequest, "malformed_request", ""},
		{"two JSONs", jsonRequest(`{} {}`), http.StatusBadRequest, "malformed_request", ""},
		{"JSON that is no object", jsonRequest(`[]`), unprocessable, "invalid_request", ""},
		{"a form without its end", raw("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"phrase\"\r\n\r\nd"), http.StatusBadRequest, "malformed_request", ""},
		{"a form cut off between parts", cutOff(form(image, phrase)), http.StatusBadRequest, "malformed_request", ""},
		{"an empty form", raw("multipart/form-data; boundary=x", ""), http.StatusBadRequest, "malformed_request", ""},
		{"a form without its boundary", raw("multipart/form-data", "--x--"), http.StatusBadRequest, "malformed_request", ""},
		{"another type", raw("text/plain", "the red square"), unsupported, "unsupported_media_type", ""},
		{"no type", raw("", "the red square"), unsupported, "unsupported_media_type", ""},
		{"a compressed body", with(form(image, phrase), "Content-Encoding", "gzip"), unsupported, "unsupported_media_type", ""},
		{"another method", httptest.NewRequest(http.MethodGet, "/v1/segment", nil), http.StatusMethodNotAllowed, "method_not_allowed", ""},
		{"another route", httptest.NewRequest(http.MethodGet, "/v2/health/live", nil), http.StatusNotFound, "not_found", ""},
		{"a route that is not UTF-8", httptest.NewRequest(http.MethodGet, "/%ff", nil), http.StatusNotFound, "not_found", ""},
		{"a file that is not UTF-8", httptest.NewRequest(http.MethodGet, "/web/%ff", nil), http.StatusNotFound, "not_found", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expectProblem(t, s.do(tc.req), tc.status, tc.code, tc.field)
		})
	}
	decode(t, s.do(form(image, phrase))) // and the service still works
}

// The title of a problem must be true for each of its causes, because all causes
// share it.
func TestProblem_Titles(t *testing.T) {
	s := start(t)
	const (
		invalid  = "A part of the request is missing, unknown or not allowed"
		tooLarge = "The picture, the request or its answer is too large"
		format   = "The format of the body or of the picture is not supported"
		missing  = "The requested resource does not exist"
	)
	image, phrase := part{"image", picture}, part{"phrase", "red"}
	text := with(httptest.NewRequest(http.MethodPost, "/v1/segment", strings.NewReader("red")), "Content-Type", "text/plain")
	body := httptest.NewRequest(http.MethodPost, "/v1/jobs/job_0/cancel", strings.NewReader("{}"))
	for name, tc := range map[string]struct {
		req  *http.Request
		want string
	}{
		"an unknown field":        {form(image, phrase, part{"colour", "red"}), invalid},
		"no picture":              {form(phrase), invalid},
		"a value out of range":    {form(image, phrase, part{"threshold", "7"}), invalid},
		"a field twice":           {form(image, phrase, part{"size", "model"}, part{"size", "model"}), invalid},
		"a header":                {with(form(image, phrase), "X-Unit-Id", "\xff"), invalid},
		"a body where none is":    {body, invalid},
		"a picture of many bytes": {form(part{"image", picture + strings.Repeat("\x00", maxImage)}, phrase), tooLarge},
		"a body of many bytes":    {feedback(`{"request_id":"` + strings.Repeat("a", 8<<20) + `"}`), tooLarge},
		"a body of another type":  {text, format},
		"a picture of text":       {form(part{"image", "text"}, phrase), format},
		"a route":                 {httptest.NewRequest(http.MethodGet, "/nowhere", nil), missing},
		"a model":                 {httptest.NewRequest(http.MethodGet, "/v1/models/gpt", nil), missing},
		"an item":                 {httptest.NewRequest(http.MethodGet, "/v1/jobs/job_0/items/7", nil), "The job or item does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			var p api.Problem
			w := s.do(tc.req)
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Title != tc.want {
				t.Errorf("%v, title %q, want %q: %s", err, p.Title, tc.want, w.Body)
			}
			var kind struct{ Title string }
			if err := json.Unmarshal(s.get(p.Type).Body.Bytes(), &kind); err != nil || kind.Title != p.Title {
				t.Errorf("%v: %s is %q", err, p.Type, kind.Title)
			}
		})
	}
}

// Text editors and shells write JSON with a byte order mark or as UTF-16. The
// problem names this cause, on every route that reads JSON.
func TestJSON_Encodings(t *testing.T) {
	s := start(t)
	const text = `{"image":{"data":""},"prompts":[{"text":"red"}]}`
	utf16LE, utf16BE := new(strings.Builder), new(strings.Builder)
	for _, unit := range utf16.Encode([]rune(text)) {
		utf16LE.Write([]byte{byte(unit), byte(unit >> 8)})
		utf16BE.Write([]byte{byte(unit >> 8), byte(unit)})
	}
	for name, tc := range map[string]struct{ body, want string }{
		"UTF-8 with a mark":                 {"\xef\xbb\xbf" + text, "byte order mark (EF BB BF)"},
		"UTF-16, low bytes first":           {"\xff\xfe" + utf16LE.String(), "UTF-16 (FF FE)"},
		"UTF-16, high bytes first":          {"\xfe\xff" + utf16BE.String(), "UTF-16 (FE FF)"},
		"UTF-16 without a mark":             {utf16LE.String(), "UTF-16 or UTF-32"},
		"UTF-16 without a mark, high first": {utf16BE.String(), "UTF-16 or UTF-32"},
		"UTF-32":                            {"\xff\xfe\x00\x00{\x00\x00\x00}\x00\x00\x00", "UTF-32"},
		"a mark alone":                      {"\xef\xbb\xbf", "byte order mark (EF BB BF)"},
	} {
		for _, path := range []string{"/v1/segment", "/v1/segment:batch", "/v1/images", "/v1/feedback"} {
			t.Run(name+" to "+path, func(t *testing.T) {
				w := s.do(to(path, jsonRequest("%s", tc.body)))
				expectProblem(t, w, http.StatusBadRequest, "malformed_request", "")
				if !strings.Contains(w.Body.String(), tc.want) {
					t.Errorf("want a detail with %q: %s", tc.want, w.Body)
				}
			})
		}
	}
	for name, body := range map[string]string{"broken JSON": `{"image":`, "a mark behind": "{}\xef\xbb\xbf", "a mark inside": "{\xef\xbb\xbf}"} {
		if w := s.do(jsonRequest("%s", body)); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "not valid JSON (near byte ") {
			t.Errorf("%s: status %d: %s", name, w.Code, w.Body)
		}
	}
}

// However many faults a request has, the answer has at most a few thousand bytes.
func TestProblem_Short(t *testing.T) {
	s := start(t)
	long := strings.Repeat("x", 100_000)
	prompts := strings.Repeat(fmt.Sprintf(`{"text":"x","formats":[%q]},`, long), 8)
	for name, req := range map[string]*http.Request{
		"a field":   form(part{long, "x"}),
		"a member":  jsonRequest(`{%q: 1}`, long),
		"formats":   jsonRequest(`{"image":{"data":%q},"prompts":[%s{"text":"x"}]}`, encoded, prompts),
		"a query":   httptest.NewRequest(http.MethodGet, "/v1/jobs?"+long+"=1", nil),
		"a variant": form(part{"image", picture}, part{"phrase", "x"}, part{"variant", long[:60_000]}),
	} {
		w := s.do(req)
		if w.Code != http.StatusUnprocessableEntity || w.Body.Len() > 40_000 {
			t.Errorf("%s: status %d and %d bytes", name, w.Code, w.Body.Len())
		}
	}
}

// Text that no database accepts does not cause an error of the database.
func TestNoText(t *testing.T) {
	for name, state := range map[string]*store.Store{
		"SQLite":     openState(t, store.Config{Data: t.TempDir()}),
		"PostgreSQL": openState(t, store.Config{DatabaseURL: storetest.NewCluster(t).NewDatabase(t)}),
	} {
		t.Run(name, func(t *testing.T) {
			s := before(t, state, pipelinetest.NewColourModel("bert"))
			s.waitReady(t)
			for path, status := range map[string]int{
				"/v1/jobs/%00": 404, "/v1/jobs/%ff": 404, "/v1/images/%00": 404, "/v1/jobs/%00/events": 404, "/v1/models/%00": 404,
				"/v1/usage?key=%00": 422, "/v1/usage?key=": 422, "/v1/feedback?request_id=": 422, "/v1/feedback?request_id=a%20b": 422, "/v1/feedback?request_id=%ff": 422, "/v1/jobs?status=%00": 422, "/v1/jobs?cursor=%00": 422,
			} {
				if w := s.get(path); w.Code != status {
					t.Errorf("%s: status %d: %s", path, w.Code, w.Body)
				}
			}
			expectProblem(t, s.do(feedback(`{"request_id":"a","comment":"a\u0000b"}`)), 422, "invalid_request", "/comment")
			batch := batchRequest(`{"items": [{"id": "\u0000", "image": {"data": %[1]q}, "prompts": [{"text": "red"}]}]}`, encoded)
			expectProblem(t, s.do(async(batch)), 422, "invalid_request", "/items/0/id")
			long := batchRequest(`{"items": [{"id": %[2]q, "image": {"data": %[1]q}, "prompts": [{"text": "red"}]}]}`, encoded, strings.Repeat("a", 129))
			expectProblem(t, s.do(long), 422, "invalid_request", "/items/0/id")
		})
	}
}

// All faults of a request are reported at once.
func TestAllFaults(t *testing.T) {
	s := start(t)
	item := fmt.Sprintf(`{"image": {"data": %q}, "prompts": [{"text": "red"}]}`, encoded)
	for name, tc := range map[string]struct {
		req    *http.Request
		places []string
	}{
		"options": {
			jsonRequest(`{"image": {"data": %q}, "prompts": [{"text": "a", "threshold": 2}, {"text": "b"}, {"text": "c", "keep": "some", "formats": ["svg"]}]}`, encoded),
			[]string{"#/prompts/0/threshold", "#/prompts/2/formats/0", "#/prompts/2/keep"},
		},
		"JSON": {
			jsonRequest(`{"image": {}, "prompts": [{"text": "a", "id": "\u0000"}], "output": {"size": "huge"}, "deadline_ms": 0, "priority": "high", "webhook": {"url": ""}}`),
			[]string{"#/deadline_ms", "#/priority", "#/webhook/url", "#/image", "#/output/size", "#/prompts/0/id"},
		},
		"phrases": {
			jsonRequest(`{"image": {"data": %q}, "prompts": [{"text": " "}, {"text": "b"}, {"text": ""}]}`, encoded),
			[]string{"#/prompts/0/text", "#/prompts/2/text"},
		},
		"a form": {
			form(part{"image", picture}, part{"image_id", "img_0"}, part{"phrase", "red"}, part{"threshold", "7"}, part{"colour", "red"}, part{"size", "huge"}, part{"keep", "all"}, part{"keep", "all"}, part{"priority", "high"}),
			[]string{"image_id", "colour", "keep", "priority", "threshold", "size"},
		},
		"a query":        {rawRequest("phrase=red&min_area=-1&quality=yes&tolerance=x&variant=a&variant=b"), []string{"quality", "tolerance", "variant", "min_area"}},
		"a form to keep": {upload(part{"phrase", "red"}, part{"size", "model"}), []string{"phrase", "size", "image"}},
		"a batch": {
			batchRequest(`{"items": [%s, {"id": "\u0000"}], "output": {"overlay": "gif"}, "deadline_ms": -1}`, item),
			[]string{"#/deadline_ms", "#/output/overlay", "#/items/1/id"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := s.do(tc.req)
			var p api.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusUnprocessableEntity {
				t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
			}
			var places []string
			for _, e := range p.Errors {
				places = append(places, e.Pointer+e.Field)
			}
			if diff := cmp.Diff(tc.places, places); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func bytesOf(n int, p part) []part {
	parts := make([]part, n)
	for i := range parts {
		parts[i] = p
	}
	return parts
}

// cutOff removes the closing boundary from a form.
func cutOff(req *http.Request) *http.Request {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(err)
	}
	_, boundary, _ := strings.Cut(req.Header.Get("Content-Type"), "boundary=")
	body = bytes.TrimSuffix(body, []byte("--"+boundary+"--\r\n"))
	req.Body = io.NopCloser(bytes.NewReader(body))
	return req
}

// endless is a body without an end.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'A'
	}
	e.read += int64(len(p))
	return len(p), nil
}

func TestBadInput_MemoryStaysBounded(t *testing.T) {
	s := start(t)
	allocated := func(req *http.Request) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := s.do(req)
		runtime.ReadMemStats(&after)
		if w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d: %.200s", w.Code, w.Body)
		}
		return after.TotalAlloc - before.TotalAlloc
	}

	// 60,000 × 60,000 pixels would take 10.8 GB.
	if got := allocated(form(part{"image", pipelinetest.HugePNG(60_000, 60_000)}, part{"phrase", "red"})); got > 1<<20 {
		t.Errorf("a header that claims much cost %d bytes", got)
	}
	for _, tc := range []struct{ name, contentType, start string }{
		{"JSON", "application/json", `{"image":{"data":"`},
		{"form", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\n"},
	} {
		body := &endless{}
		req := httptest.NewRequest(http.MethodPost, "/v1/segment", io.MultiReader(strings.NewReader(tc.start), body))
		req.Header.Set("Content-Type", tc.contentType)
		got := allocated(req)
		if body.read > 4*maxImage {
			t.Errorf("%s: %d bytes of an endless body were read", tc.name, body.read)
		}
		if got > 16*maxImage {
			t.Errorf("%s: an endless body cost %d bytes", tc.name, got)
		}
	}
}

func TestTriton(t *testing.T) {
	ask := func(s *service) *httptest.ResponseRecorder {
		return s.do(form(part{"image", picture}, part{"phrase", "red"}))
	}
	t.Run("still loading", func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		model.SetDown(&refersam.Error{Code: refersam.CodeNotReady, Message: "loading"})
		s := loading(t, model)
		expectProblem(t, ask(s), http.StatusServiceUnavailable, "not_ready", "")
		s.log.Reset()
		expectProblem(t, s.get("/readyz"), http.StatusServiceUnavailable, "not_ready", "")
		if s.log.Len() > 0 {
			t.Errorf("a probe that is asked every second fills the log: %s", s.log)
		}
	})
	t.Run("down", func(t *testing.T) {
		s := start(t)
		s.model.SetDown(errAway)
		w := ask(s)
		expectProblem(t, w, http.StatusServiceUnavailable, "upstream_unavailable", "")
		if strings.Contains(w.Body.String(), "10.1.2.3") {
			t.Errorf("the problem tells an address: %s", w.Body)
		}
		if !strings.Contains(s.log.String(), "10.1.2.3") {
			t.Errorf("the log does not tell the cause: %s", s.log)
		}
	})
	t.Run("too slow", func(t *testing.T) {
		s := start(t, func(c *gateway.Config) { c.Answers.RequestTimeout = 20 * time.Millisecond })
		s.model.SetBefore(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		expectProblem(t, ask(s), http.StatusGatewayTimeout, "deadline_exceeded", "")
	})
	t.Run("broken", func(t *testing.T) {
		s := start(t)
		s.model.SetBefore(func(context.Context) error { return errors.New("CUDA error at 0xdeadbeef") })
		w := ask(s)
		expectProblem(t, w, http.StatusBadGateway, "upstream_failed", "")
		if strings.Contains(w.Body.String(), "CUDA") || !strings.Contains(s.log.String(), "CUDA") {
			t.Errorf("the cause belongs in the log, not in the answer %s", w.Body)
		}
	})
}

func TestOverload(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.MaxInFlight = 1 })
	entered, proceed := make(chan struct{}), make(chan struct{})
	s.model.SetBefore(func(context.Context) error {
		close(entered)
		<-proceed
		return nil
	})
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- s.do(form(part{"image", picture}, part{"phrase", "red"})) }()
	<-entered
	expectProblem(t, s.do(form(part{"image", picture}, part{"phrase", "red"})), http.StatusServiceUnavailable, "overloaded", "")
	if w := s.get("/livez"); w.Code != http.StatusOK {
		t.Errorf("/livez says %d under load", w.Code)
	}
	close(proceed)
	decode(t, <-first)
	s.model.SetBefore(nil)
	decode(t, s.do(form(part{"image", picture}, part{"phrase", "red"})))
}

// Bodies share a bound: a body that would exceed it waits, but not for ever.
func TestBodyMemory(t *testing.T) {
	s := start(t, func(c *gateway.Config) {
		c.Answers.BodyMemory = 1 // every body takes all of it
		c.Answers.RequestTimeout = 500 * time.Millisecond
	})
	body, client := io.Pipe()
	req := form(part{"image", picture}, part{"phrase", "red"})
	req.Body = body
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- s.do(req) }()
	if _, err := client.Write([]byte("-")); err != nil { // the body is being read
		t.Fatal(err)
	}
	expectProblem(t, s.do(form(part{"image", picture}, part{"phrase", "red"})), http.StatusServiceUnavailable, "overloaded", "")

	third := make(chan *httptest.ResponseRecorder)
	go func() { third <- s.do(form(part{"image", picture}, part{"phrase", "red"})) }()
	client.CloseWithError(io.ErrUnexpectedEOF)
	expectProblem(t, <-first, http.StatusBadRequest, "malformed_request", "")
	decode(t, <-third)
}

// panicking is a Segmenter with a bug.
type panicking struct{ experiment.Inner }

func (panicking) Prepare(*refersam.Request, pipeline.Options) (*pipeline.Prepared, error) {
	panic("a bug at line 12")
}

func TestPanic(t *testing.T) {
	s := start(t)
	gw := gatewaytest.Start(t, withoutKeys(), gatewaytest.Parts{Model: panicking{s.segmenter}, MaxImage: maxImage, State: s.state, Blobs: openBlobs(t), Log: discard})
	s.Service = gw
	w := s.do(form(part{"image", picture}, part{"phrase", "red"}))
	expectProblem(t, w, http.StatusInternalServerError, "internal", "")
	if strings.Contains(w.Body.String(), "bug") {
		t.Errorf("the answer tells of the bug: %s", w.Body)
	}
}

func TestProblemKinds(t *testing.T) {
	s := start(t)
	w := s.get("/problems/phrase_empty")
	var kind struct {
		Code, Title string
		Status      int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &kind); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	if kind.Code != "phrase_empty" || kind.Status != 422 || kind.Title == "" {
		t.Errorf("%+v", kind)
	}
	expectProblem(t, s.get("/problems/bad_weather"), http.StatusNotFound, "not_found", "")
}

// FuzzSegment sends arbitrary requests. The answer must be a result, or a problem
// that blames the client.
func FuzzSegment(f *testing.F) {
	for _, req := range []*http.Request{
		form(part{"image", picture}, part{"phrase", "red"}, part{"threshold", "0.5"}, part{"format", "png"}, part{"variant", "bert"}),
		jsonRequest(`{"image":{"data":%q},"prompts":[{"id":"a","text":"red","threshold":0.5}],"output":{"formats":["png"]},"variant":"clip"}`, encoded),
		jsonRequest(`{"image":{"data":"iVBORw0KGgo="},"prompts":[{"text":"\ud83d\ude00"}]}`),
		jsonRequest(`{"image":{"data":%q},"prompts":[{"text":"red","formats":["polygon","overlay"],"tolerance":1.5,"min_area":3,"fill_holes":9,"keep":"largest"}],"output":{"size":"original","overlay":"jpeg","quality":true,"formats":["probability"]}}`, encoded),
		form(part{"image", picture}, part{"phrase", "red"}, part{"size", "model"}, part{"quality", "true"}, part{"format", "rle,png8"}),
		form(part{"phrase", "\xff"}),
		form(part{"\xff", "red"}),
	} {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(req.Header.Get("Content-Type"), "*/*", body)
	}
	s := loading(f, pipelinetest.NewColourModel("bert", "clip"))
	s.waitReady(f)
	f.Fuzz(func(t *testing.T, contentType, accept string, body []byte) {
		s.log.Reset()
		req := httptest.NewRequest(http.MethodPost, "/v1/segment", bytes.NewReader(body))
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Accept", accept)
		s := *s
		s.t = t
		w := s.do(req)
		switch {
		case w.Code == http.StatusOK:
		case w.Code >= 400 && w.Code < 500 && w.Header().Get("Content-Type") == "application/problem+json":
		default:
			t.Errorf("status %d: %.300s", w.Code, w.Body)
		}
	})
}

// FuzzSegment_Query sends any query with a picture; see FuzzSegment.
func FuzzSegment_Query(f *testing.F) {
	for _, query := range []string{
		"phrase=red&phrase=blue&format=png,rle&threshold=0.4&deadline_ms=9000&priority=batch",
		"phrase=red&format=polygon&tolerance=1.5&min_area=3&fill_holes=9&keep=largest&quality=true",
		"phrase=red&format=overlay&overlay=jpeg", "phrase=red&size=model&variant=clip&format=probability", "phrase=%ff&%ff=%zz",
	} {
		f.Add(query, "application/zip", "gzip")
		f.Add(query, "application/json", "zstd;q=0.5")
	}
	s := loading(f, pipelinetest.NewColourModel("bert", "clip"))
	s.waitReady(f)
	f.Fuzz(func(t *testing.T, query, accept, acceptEncoding string) {
		s.log.Reset()
		req := rawRequest("")
		req.URL.RawQuery = query
		req.Header.Set("Accept", accept)
		req.Header.Set("Accept-Encoding", acceptEncoding)
		s := *s
		s.t = t
		w := s.do(req)
		late := w.Code == http.StatusGatewayTimeout && strings.Contains(query, "deadline_ms")
		if w.Code != http.StatusOK && (w.Code < 400 || w.Code >= 500) && !late {
			t.Errorf("status %d: %.300s", w.Code, w.Body)
		}
	})
}
