package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/triton"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// maxImage is the largest picture that the tests' gateway accepts.
const maxImage = 1 << 20

// service is a gateway with a real pipeline and a model made for tests.
type service struct {
	*gatewaytest.Service
	model     *pipelinetest.ColourModel
	segmenter *pipeline.Segmenter
	state     *store.Store
	blobs     *blobs.Bucket
	engine    *jobs.Engine
	metrics   *telemetry.Metrics
	fetcher   *outside
	log       *bytes.Buffer
	// description describes the API; every answer is checked against it.
	description *description
	t           testing.TB
}

// start returns a service that is ready. Its requests are served one at a time
// by the tests, so the log needs no lock.
func start(t testing.TB, change ...func(*gateway.Config)) *service {
	t.Helper()
	s := loading(t, pipelinetest.NewColourModel("bert", "clip"), change...)
	s.waitReady(t)
	return s
}

func (s *service) waitReady(t testing.TB) {
	t.Helper()
	await.Until(t, 10*time.Second, func() error {
		if w := s.get("/readyz"); w.Code != http.StatusOK {
			return fmt.Errorf("/readyz: status %d: %s", w.Code, w.Body)
		}
		return nil
	})
	s.log.Reset()
}

// loading returns a service with a model that may not be ready yet.
func loading(t testing.TB, model *pipelinetest.ColourModel, change ...func(*gateway.Config)) *service {
	t.Helper()
	return before(t, openState(t, store.Config{Data: t.TempDir()}), model, change...)
}

// openState opens a database until the test ends.
func openState(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	state, err := store.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	})
	return state
}

// openBlobs opens a folder until the test ends.
func openBlobs(t testing.TB) *blobs.Bucket { return openBucket(t, blobs.Config{}) }

func openBucket(t testing.TB, cfg blobs.Config) *blobs.Bucket {
	t.Helper()
	bucket, err := blobs.Open(context.Background(), cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bucket.Close(); err != nil {
			t.Error(err)
		}
	})
	return bucket
}

// before returns a service that stores its state in a database.
func before(t testing.TB, state *store.Store, model *pipelinetest.ColourModel, change ...func(*gateway.Config)) *service {
	t.Helper()
	return beforeBoth(t, state, openBlobs(t), model, change...)
}

// withoutKeys are the defaults without authentication, also for clients that use
// another Host than this machine.
func withoutKeys() gateway.Config {
	cfg := gateway.DefaultConfig()
	cfg.Auth = gateway.AuthOff
	return cfg
}

// beforeBoth returns a service that stores its state in a database and a bucket.
func beforeBoth(t testing.TB, state *store.Store, bucket *blobs.Bucket, model *pipelinetest.ColourModel, change ...func(*gateway.Config)) *service {
	t.Helper()
	return assemble(t, state, bucket, model, func(*gatewaytest.Parts) {}, change...)
}

// assemble is beforeBoth with other parts.
func assemble(t testing.TB, state *store.Store, bucket *blobs.Bucket, model *pipelinetest.ColourModel, other func(*gatewaytest.Parts), change ...func(*gateway.Config)) *service {
	t.Helper()
	limits := preprocess.DefaultConfig()
	limits.MaxBytes = maxImage
	decoder, err := preprocess.New(limits)
	if err != nil {
		t.Fatal(err)
	}
	pipelineConfig := pipeline.DefaultConfig()
	pipelineConfig.Schedule.Admission = false // otherwise the model is measured, and the tests would see it
	segmenter, err := pipeline.New(pipelineConfig, decoder, model, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(segmenter.Close)
	segmenter.SetReplicas([]pipeline.Replica{model})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- segmenter.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})

	cfg := withoutKeys()
	for _, c := range change {
		c(&cfg)
	}
	s := &service{model: model, segmenter: segmenter, state: state, blobs: bucket, metrics: telemetry.NewMetrics(segmenter), fetcher: &outside{}, log: &bytes.Buffer{}}
	if s.engine, err = jobs.Open(context.Background(), jobs.DefaultConfig(), state, nil, discard); err != nil {
		t.Fatal(err)
	}
	parts := gatewaytest.Parts{
		Model: segmenter, MaxImage: maxImage, State: state, Blobs: s.blobs, Jobs: s.engine, Fetcher: s.fetcher, Metrics: s.metrics,
		Log: slog.New(slog.NewJSONHandler(s.log, nil)),
	}
	other(&parts)
	s.Service = gatewaytest.Start(t, cfg, parts)
	s.work(t)
	spec := httptest.NewRecorder()
	s.ServeHTTP(spec, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	s.description, s.t = readDescription(t, spec.Body.Bytes()), t
	return s
}

// work does jobs until the test ends.
func (s *service) work(t testing.TB) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.RunJobs(ctx, s.engine) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("jobs: %v", err)
		}
	})
}

func (s *service) do(req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, req)
	s.description.checkAnswer(s.t, req, w)
	return w
}

func (s *service) get(path string) *httptest.ResponseRecorder {
	return s.do(httptest.NewRequest(http.MethodGet, path, nil))
}

// part is one field of a form. A part with the name image is sent as a file.
type part struct{ name, value string }

func form(parts ...part) *http.Request {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, p := range parts {
		create := w.CreateFormField
		if p.name == "image" {
			create = func(name string) (io.Writer, error) { return w.CreateFormFile(name, "picture.png") }
		}
		field, err := create(p.name)
		if err != nil {
			panic(err)
		}
		if _, err := io.WriteString(field, p.value); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	req := httptest.NewRequest(http.MethodPost, "/v1/segment", &body)
	req.Header.Set("Content-Type", w.FormDataContentType())
	return req
}

func jsonRequest(format string, args ...any) *http.Request {
	req := httptest.NewRequest(http.MethodPost, "/v1/segment", strings.NewReader(fmt.Sprintf(format, args...)))
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	return req
}

func with(req *http.Request, header, value string) *http.Request {
	req.Header.Set(header, value)
	return req
}

var discard = slog.New(slog.DiscardHandler)

var (
	picture = string(pipelinetest.Squares())
	encoded = base64.StdEncoding.EncodeToString([]byte(picture))
)

// documentedAnswer and documentedProblem repeat the names of members as the documents
// and clients write them. The gateway and the tests use the same types of package
// api, so the tests would not notice a renamed tag; expectNames does.
type documentedAnswer struct {
	RequestID string `json:"request_id"`
	Image     struct{ Width, Height int }
	Mask      struct{ Width, Height int }
	Timings   struct{ Read, Fetch, Decode, Model, Mask, Total float64 }
	Model     struct{ Name, Variant, Version, Checkpoint string }
	Results   []struct {
		PromptID string `json:"prompt_id"`
		Phrase   string
		Status   string
		Score    float64
		Empty    bool
		Origin   string
		Area     int
		BBox     [4]int
		Masks    struct {
			RLE *struct {
				Size   [2]int
				Counts string
			} `json:"coco_rle"`
			Counts *struct {
				Size   [2]int
				Counts []int
			} `json:"rle"`
			Polygon *struct {
				Type        string
				Coordinates [][][][2]float64
			}
			PNG, PNG8, Probability, Overlay []byte
		}
		Files   map[string]string
		Quality *struct {
			Components int
			Stability  float64
		}
	}
	Warnings []struct {
		Code                  string
		Result, Tokens, Limit int
	}
}

type documentedProblem struct {
	Type, Title, Detail, Code, Field string
	Status                           int
	RequestID                        string `json:"request_id"`
	Errors                           []struct{ Detail, Pointer, Field string }
}

// expectNames checks that the body has no member that documented lacks.
func expectNames(t *testing.T, w *httptest.ResponseRecorder, documented any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	d.DisallowUnknownFields()
	if err := d.Decode(documented); err != nil {
		t.Fatal(err)
	}
}

func decode(t *testing.T, w *httptest.ResponseRecorder) api.Answer {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	expectNames(t, w, new(documentedAnswer))
	var a api.Answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// expectSquare allows for the model's low resolution.
func expectSquare(t *testing.T, box [4]int, want image.Rectangle) {
	t.Helper()
	for i, v := range [4]int{want.Min.X, want.Min.Y, want.Dx(), want.Dy()} {
		if box[i] < v-12 || box[i] > v+12 {
			t.Errorf("box %v, want about %v", box, want)
			return
		}
	}
}

func TestSegment_Form(t *testing.T) {
	s := start(t)
	a := decode(t, s.do(form(part{"phrase", "the red square"}, part{"image", picture}, part{"phrase", "an elephant"},
		part{"variant", "clip"}, part{"format", "png, coco_rle"})))
	if a.Image.Width != 320 || a.Image.Height != 240 || a.RequestID == "" {
		t.Errorf("image %v, request %q", a.Image, a.RequestID)
	}
	if a.Model.Name != "refersam_clip" || a.Model.Variant != "clip" || a.Model.Version != "1" {
		t.Errorf("model %v", a.Model)
	}
	if len(a.Results) != 2 || len(a.Warnings) != 0 {
		t.Fatalf("%d results, warnings %v", len(a.Results), a.Warnings)
	}
	red, none := a.Results[0], a.Results[1]
	expectSquare(t, red.BBox, pipelinetest.Red)
	if red.Status != "ok" || red.Empty || red.Score < 0.9 || red.Masks.RLE == nil || red.Masks.RLE.Size != [2]int{240, 320} {
		t.Errorf("red: %+v", red)
	}
	img, err := png.Decode(bytes.NewReader(red.Masks.PNG))
	if err != nil {
		t.Fatal(err)
	}
	if got := white(img); img.Bounds().Dx() != 320 || img.Bounds().Dy() != 240 || got != red.Area {
		t.Errorf("the PNG is %v with %d white pixels, the area is %d", img.Bounds(), got, red.Area)
	}
	if none.Status != "empty" || !none.Empty || none.Area != 0 || none.BBox != [4]int{} || none.Masks.RLE == nil {
		t.Errorf("elephant: %+v", none)
	}
}

func white(img image.Image) int {
	n := 0
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			if r, _, _, _ := img.At(x, y).RGBA(); r > 0x7fff {
				n++
			}
		}
	}
	return n
}

func TestSegment_JSON(t *testing.T) {
	s := start(t)
	a := decode(t, s.do(jsonRequest(`{"image":{"data":%q},"prompts":[{"id":"b","text":" blue"},{"text":"red","threshold":0.9999}],"variant":null}`, encoded)))
	if len(a.Results) != 2 || a.Results[0].PromptID != "b" || a.Results[1].PromptID != "" || a.Results[0].Phrase != " blue" || a.Results[1].Phrase != "red" {
		t.Fatalf("results %+v", a.Results)
	}
	expectSquare(t, a.Results[0].BBox, pipelinetest.Blue)
	if a.Results[0].Masks.RLE == nil || a.Results[0].Masks.PNG != nil {
		t.Error("without formats the answer has not COCO's RLE alone")
	}
	if a.Results[1].Status != "empty" {
		t.Errorf("status %q above the model's certainty", a.Results[1].Status)
	}

	// The same question in a form returns the same mask.
	b := decode(t, s.do(form(part{"image", picture}, part{"phrase", "blue"})))
	if diff := cmp.Diff(a.Results[0].Masks, b.Results[0].Masks); diff != "" {
		t.Errorf("JSON and form differ (-JSON +form):\n%s", diff)
	}
}

func TestSegment_Truncated(t *testing.T) {
	s := start(t)
	long := strings.Repeat("very ", 20) + "red square"
	a := decode(t, s.do(form(part{"image", picture}, part{"phrase", "red"}, part{"phrase", long}, part{"variant", "bert"})))
	if len(a.Warnings) != 1 {
		t.Fatalf("warnings %v, want one", a.Warnings)
	}
	if w := a.Warnings[0]; w.Code != "phrase_truncated" || w.Result != 1 || w.Tokens != 24 || w.Limit != 16 {
		t.Errorf("warning %+v", w)
	}
	w := s.do(with(form(part{"image", picture}, part{"phrase", long}, part{"variant", "bert"}), "Accept", "image/png"))
	if got, want := w.Header().Get("X-Refersam-Warning"), "phrase_truncated; tokens=24; limit=16"; got != want {
		t.Errorf("warning %q, want %q", got, want)
	}
}

func TestSegment_PNG(t *testing.T) {
	s := start(t)
	w := s.do(with(form(part{"image", picture}, part{"phrase", "red"}, part{"variant", "bert"}), "Accept", "image/png"))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "image/png" {
		t.Fatalf("status %d, type %q: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	img, err := png.Decode(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	h := w.Header()
	if got := fmt.Sprint(white(img)); got == "0" || got != h.Get("X-Refersam-Area") {
		t.Errorf("%s white pixels, X-Refersam-Area %q", got, h.Get("X-Refersam-Area"))
	}
	for name, want := range map[string]string{
		"X-Refersam-Model":   "refersam_bert",
		"X-Refersam-Variant": "bert",
		"X-Refersam-Status":  "ok",
		"X-Refersam-Score":   "0.9", // and more digits
		"X-Refersam-Bbox":    ",",
		"X-Request-Id":       "",
	} {
		if got, ok := h[name]; !ok || !strings.Contains(got[0], want) {
			t.Errorf("%s: %v, want %q", name, got, want)
		}
	}
}

func TestSegment_Accept(t *testing.T) {
	s := start(t)
	for _, tc := range []struct{ accept, want string }{
		{"", "application/json"},
		{"*/*", "application/json"},
		{"application/*", "application/json"},
		{"image/*", "image/png"},
		{"image/webp, image/png;q=0.8, */*;q=0.1", "image/png"},
		{"image/png, application/json", "application/json"},
		{"application/json;q=0.5, image/png", "image/png"},
		{"image/png;q=0, */*", "application/json"},
		{"text/html", "application/problem+json"},
		{"application/json;q=0, image/png;q=0", "application/problem+json"},
	} {
		w := s.do(with(form(part{"image", picture}, part{"phrase", "red"}), "Accept", tc.accept))
		if got := w.Header().Get("Content-Type"); got != tc.want {
			t.Errorf("Accept %q: %d %s, want %s", tc.accept, w.Code, got, tc.want)
		}
		if tc.want == "application/problem+json" && w.Code != http.StatusNotAcceptable {
			t.Errorf("Accept %q: %d, want 406", tc.accept, w.Code)
		}
	}
}

func TestSegment_Unit(t *testing.T) {
	s := start(t)
	variant := func(unit, address string) string {
		req := form(part{"image", picture}, part{"phrase", "red"})
		req.RemoteAddr = address
		if unit != "" {
			req.Header.Set("X-Unit-Id", unit)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.9") // from a proxy that is not trusted
		return decode(t, s.do(req)).Model.Variant
	}
	units, clients := make(map[string]int), make(map[string]int)
	for i := range 20 {
		unit, client := fmt.Sprint("unit-", i), fmt.Sprintf("192.0.2.%d", i)
		v := variant(unit, client+":1000")
		if again := variant(unit, "198.51.100.1:7"); again != v {
			t.Errorf("%s got %s, and %s from another address", unit, v, again)
		}
		units[v]++
		v = variant("", client+":1000")
		if again := variant("", client+":2000"); again != v {
			t.Errorf("%s got %s, and %s from another port", client, v, again)
		}
		clients[v]++
	}
	if len(units) != 2 || len(clients) != 2 {
		t.Errorf("20 units got %v, 20 clients %v", units, clients)
	}
}

func TestModels(t *testing.T) {
	s := start(t)
	var got api.Models
	if err := json.Unmarshal(s.get("/v1/models").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Models) != 2 || len(got.Formats) != 7 {
		t.Fatalf("%+v", got)
	}
	m := got.Models[1]
	if m.Name != "refersam_clip" || m.Variant != "clip" || m.Version != "1" || m.Label != "demo" || m.Weight != 0.5 ||
		m.Tokenizer != "clip-vit-large-patch14" || m.MaxTokens != 16 || m.ImageSize != 128 || m.Threshold != 0.5 ||
		m.Precision != "fp32" || len(m.Checkpoint) != 64 {
		t.Errorf("%+v", m)
	}
	if l := got.Limits; l.MaxImageBytes != maxImage || l.MaxImagePixels != 50_000_000 || l.MaxImageSide != 16384 || l.MaxImageFrames != 1000 || l.MaxPhrases != 32 || l.MaxPhraseBytes != 1000 || l.MaxMaskPixels != 256<<20 ||
		l.MaxBatchItems != 64 || l.MaxBatchBytes != 100<<20 || l.RequestTimeoutMS != 30_000 {
		t.Errorf("%+v", l)
	}
	for _, name := range []string{"refersam_clip", "clip"} {
		if w := s.get("/v1/models/" + name); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"name":"refersam_clip"`) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	}
	expectProblem(t, s.get("/v1/models/gpt"), http.StatusNotFound, "not_found", "")
}

func TestProbes(t *testing.T) {
	model := pipelinetest.NewColourModel("bert")
	model.SetDown(errAway)
	s := loading(t, model)
	if w := s.get("/livez"); w.Code != http.StatusOK {
		t.Errorf("/livez says %d while loading", w.Code)
	}
	for _, path := range []string{"/readyz", "/v1/models"} {
		expectProblem(t, s.get(path), http.StatusServiceUnavailable, "not_ready", "")
	}
	model.SetDown(nil)
	s.waitReady(t)
	if model.Probes() == 0 {
		t.Error("ready without a real inference")
	}
}

func TestRequestID(t *testing.T) {
	s := start(t)
	for _, tc := range []struct {
		sent string
		kept bool
	}{
		{"client-1:2.3_4", true},
		{"", false},
		{"has space", false},
		{`"quoted"`, false},
		{strings.Repeat("x", 129), false},
	} {
		w := s.do(with(httptest.NewRequest(http.MethodGet, "/nowhere", nil), "X-Request-Id", tc.sent))
		var p api.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		got := w.Header().Get("X-Request-Id")
		if got == "" || got != p.RequestID || (got == tc.sent) != tc.kept {
			t.Errorf("sent %q, got %q in the header and %q in the body", tc.sent, got, p.RequestID)
		}
	}
}

func TestAccessLog(t *testing.T) {
	s := start(t)
	req := rawRequest("phrase=the+red+secret&variant=clip")
	req.Header.Set("X-Request-Id", "me-1")
	req.Header.Set("Authorization", "Bearer secret")
	decode(t, s.do(req))
	var line struct {
		Level, Method, Route, Variant string
		RequestID                     string `json:"request_id"`
		Status                        int
		BytesIn                       int64 `json:"bytes_in"`
		BytesOut                      int   `json:"bytes_out"`
	}
	if err := json.Unmarshal(s.log.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, s.log)
	}
	if line.Level != "INFO" || line.Method != "POST" || line.Route != "/v1/segment" || line.Variant != "clip" ||
		line.RequestID != "me-1" || line.Status != 200 || line.BytesIn < 500 || line.BytesOut < 100 {
		t.Errorf("%+v", line)
	}
	if strings.Contains(s.log.String(), "secret") {
		t.Errorf("the log tells secrets: %s", s.log)
	}
}

func TestPage(t *testing.T) {
	s := start(t)
	w := s.get("/")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		t.Fatalf("status %d, type %q", w.Code, w.Header().Get("Content-Type"))
	}
	csp := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("CSP %q lacks %q", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
		t.Errorf("CSP %q is too wide", csp)
	}
	if w := s.do(with(httptest.NewRequest(http.MethodGet, "/", nil), "If-None-Match", w.Header().Get("ETag"))); w.Code != http.StatusNotModified {
		t.Errorf("status %d for the page that the browser has", w.Code)
	}
	for path, mediaType := range map[string]string{
		"/web/segment/page.js":  "text/javascript",
		"/web/shared/style.css": "text/css",
		"/web/shared/icon.svg":  "image/svg+xml",
	} {
		w := s.get(path)
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), mediaType) {
			t.Errorf("%s: status %d, type %q", path, w.Code, w.Header().Get("Content-Type"))
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s may be sniffed", path)
		}
	}
	for _, path := range []string{"/web/", "/web/nothing.js", "/web/../gateway.go", "/index.html", "/web/%2e%2e/config.go"} {
		expectProblem(t, s.get(path), http.StatusNotFound, "not_found", "")
	}
	if w := s.do(httptest.NewRequest(http.MethodHead, "/", nil)); w.Code != http.StatusOK {
		t.Errorf("HEAD /: %d", w.Code)
	}
}

// listen makes the service answer on a port until stop is called. Then served
// returns Serve's result.
func (s *service) listen(t *testing.T) (address string, stop func(), served <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- s.Serve(ctx, ln) }()
	return ln.Addr().String(), stop, result
}

// post asks for red on a connection of its own and returns the status.
func post(address string) (status int, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req := form(part{"image", picture}, part{"phrase", "red"})
	resp, err := client.Post("http://"+address+"/v1/segment", req.Header.Get("Content-Type"), req.Body)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// SIGTERM ends Serve's context.
func TestServe_Graceful(t *testing.T) {
	s := start(t)
	entered, proceed := make(chan struct{}), make(chan struct{})
	s.model.SetBefore(func(context.Context) error {
		close(entered)
		<-proceed
		return nil
	})
	address, stop, served := s.listen(t)
	status := make(chan int, 1)
	go func() {
		got, err := post(address)
		if err != nil {
			t.Error(err)
		}
		status <- got
	}()
	<-entered
	stop()
	await.True(t, 5*time.Second, "no more connections are accepted", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	expectProblem(t, s.get("/readyz"), http.StatusServiceUnavailable, "not_ready", "")
	close(proceed)
	if got := <-status; got != http.StatusOK {
		t.Errorf("the request under way got %d", got)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// After it was asked to stop, the service continues for a while, and reports that
// it is stopping.
func TestServe_Drains(t *testing.T) {
	const delay = 500 * time.Millisecond
	s := start(t, func(c *gateway.Config) { c.DrainDelay = delay })
	address, stop, served := s.listen(t)
	stop()
	begun := time.Now()
	await.True(t, delay/2, "/readyz says that the service stops", func() bool {
		return s.get("/readyz").Code == http.StatusServiceUnavailable
	})
	status, err := post(address)
	if err != nil {
		t.Fatal(err)
	}
	if status != http.StatusOK {
		t.Errorf("a request that came then got %d", status)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(begun); took < delay {
		t.Errorf("it stopped after %v, want %v", took, delay)
	}
}

func TestServe_GraceEnds(t *testing.T) {
	s := start(t, func(c *gateway.Config) { c.ShutdownGrace = 50 * time.Millisecond })
	entered := make(chan struct{})
	s.model.SetBefore(func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	address, stop, served := s.listen(t)
	failed := make(chan error, 1)
	go func() {
		_, err := post(address)
		failed <- err
	}()
	<-entered
	stop()
	if err := <-served; err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("Serve: %v, want that requests were cut off", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request that was cut off got an answer")
	}
}

// When a client disconnects, the work for it stops.
func TestSegment_ClientGone(t *testing.T) {
	s := start(t)
	server := httptest.NewServer(s)
	for name, source := range map[string]*http.Request{
		"form":  form(part{"image", picture}, part{"phrase", "red"}),
		"JSON":  jsonRequest(`{"image":{"data":%q},"prompts":[{"text":"red"}]}`, encoded),
		"batch": batchRequest(`{"items":[{"image":{"data":%q},"prompts":[{"text":"red"}]}]}`, encoded),
	} {
		entered, left := make(chan struct{}), make(chan struct{})
		s.model.SetBefore(func(ctx context.Context) error {
			close(entered)
			<-ctx.Done()
			close(left)
			return ctx.Err()
		})
		ctx, leave := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+source.URL.Path, source.Body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = source.Header
		done := make(chan error)
		go func() {
			resp, err := server.Client().Do(req)
			if err == nil {
				resp.Body.Close()
			}
			done <- err
		}()
		<-entered
		leave()
		if err := <-done; err == nil {
			t.Errorf("%s: an answer in spite of leaving", name)
		}
		select {
		case <-left:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: still at work 10 s after the client left", name)
		}
	}
	server.Close()
	if n := strings.Count(s.log.String(), `"status":499`); n != 3 || strings.Contains(s.log.String(), `"code"`) {
		t.Errorf("the log does not tell that clients left, and no more: %s", s.log)
	}
}

func TestConfig_Validate(t *testing.T) {
	cfg := gateway.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	bad := gateway.Config{Listen: "8080", TrustedProxies: []string{"10.0.0.0/8", "nginx"}}
	err := bad.Validate()
	for _, want := range []string{"REFERSAM_LISTEN", "MAX_IN_FLIGHT", "REQUEST_TIMEOUT", "READ_TIMEOUT", "WRITE_TIMEOUT", `"nginx"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// The list of models and /readyz name a broken variant, and a request for it gets
// the reason and not another variant's mask.
func TestBrokenVariant(t *testing.T) {
	model := pipelinetest.NewColourModel("bert", "clip")
	model.SetBroken(triton.Broken{Model: "refersam_clip", Variant: "clip", Stage: "refersam_clip_vli", Reason: "no memory"})
	s := loading(t, model)
	s.waitReady(t)
	const why = "its stage refersam_clip_vli is not loaded: no memory"
	if body := s.get("/readyz").Body.String(); body != "ok\nvariant clip cannot be used: "+why+"\n" {
		t.Errorf("readyz: %q", body)
	}
	want := `"unusable":[{"name":"refersam_clip","variant":"clip","weight":0,"reason":"` + why + `"}]`
	if body := s.get("/v1/models").Body.String(); !strings.Contains(body, want) || strings.Contains(body, `"image_size":128,"tokenizer":"clip`) {
		t.Errorf("models: %s", body)
	}
	for _, name := range []string{"clip", "refersam_clip"} {
		w := s.get("/v1/models/" + name)
		expectProblem(t, w, http.StatusServiceUnavailable, "not_ready", "")
		if !strings.Contains(w.Body.String(), why) {
			t.Errorf("the broken model: %s", w.Body)
		}
	}
	w := s.do(form(part{"image", string(pipelinetest.Squares())}, part{"phrase", "red"}, part{"variant", "clip"}))
	expectProblem(t, w, http.StatusServiceUnavailable, "not_ready", "")
	if !strings.Contains(w.Body.String(), why) || w.Header().Get("Retry-After") == "" {
		t.Errorf("a request for the broken variant: %s", w.Body)
	}
}
