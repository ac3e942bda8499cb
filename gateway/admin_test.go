package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/schedule"
	"github.com/refersam/refersam/telemetry"
)

// administration is the administration of a service.
func administration(s *service) func(method, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	log := slog.New(slog.DiscardHandler)
	scheduler := s.segmenter.Scheduler()
	admin := gateway.NewAdmin(scheduler, telemetry.Handler(s.metrics, scheduler, s.engine, log), log)
	return func(method, path, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.Host = "127.0.0.1:8081"
		for _, c := range change {
			c(req)
		}
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, req)
		return w
	}
}

func TestAdmin_Batching(t *testing.T) {
	s := start(t)
	do := administration(s)
	w := do("PATCH", "/v1/admin/batching", `{"mode":"fixed","max_wait_ms":2.5,"max_rows":4}`)
	want := `{"mode":"fixed","max_rows":4,"max_wait_ms":2.5,"percentile":99,"admission":false,"hedge":false}`
	if w.Code != http.StatusOK || w.Body.String() != want {
		t.Errorf("status %d, %s, want %s", w.Code, w.Body, want)
	}
	if got := do("GET", "/v1/admin/batching", "").Body.String(); got != want {
		t.Errorf("then %s, want %s", got, want)
	}
	if got := s.segmenter.Scheduler().Settings(); got.Mode != schedule.Fixed || got.MaxRows != 4 || got.MaxWait != 2500*time.Microsecond {
		t.Errorf("settings %+v", got)
	}
	for _, bad := range []struct{ body, code string }{
		{`{"mode":"wild"}`, "invalid_request"},
		{`{"max_rows":-1}`, "invalid_request"},
		{`{"max_wait_ms":1e9}`, "invalid_request"},
		{`{"percentile":100}`, "invalid_request"},
		{`{"modes":"off"}`, "invalid_request"},
		{`{"mode":1}`, "invalid_request"},
		{`{`, "malformed_request"},
		{strings.Repeat(" ", 5000), "image_too_large"},
	} {
		w := do("PATCH", "/v1/admin/batching", bad.body)
		if w.Code < 400 || w.Code >= 500 || !strings.Contains(w.Body.String(), `"code":"`+bad.code) {
			t.Errorf("%.20s: status %d, %s", bad.body, w.Code, w.Body)
		}
	}
	if got := do("GET", "/v1/admin/batching", "").Body.String(); got != want {
		t.Errorf("bad changes left %s, want %s", got, want)
	}
}

func TestAdmin_Replicas(t *testing.T) {
	s := start(t)
	do := administration(s)
	if w := s.do(segmentForm(t, "red")); w.Code != http.StatusOK {
		t.Fatal(w.Body)
	}
	var got struct {
		Replicas []gateway.AdminReplica `json:"replicas"`
	}
	w := do("GET", "/v1/admin/replicas", "")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Replicas) != 1 || !got.Replicas[0].Usable || got.Replicas[0].Rows != 1 || len(got.Replicas[0].Paces) != 2 {
		t.Errorf("replicas %s", w.Body)
	}
}

func TestAdmin_Metrics(t *testing.T) {
	s := start(t)
	do := administration(s)
	for range 2 {
		s.do(segmentForm(t, "red"))
	}
	s.get("/nowhere")
	s.do(httptest.NewRequest("BREW", "/nowhere", nil))
	text := do("GET", "/metrics", "").Body.String()
	for _, line := range []string{
		`refersam_answers_total{origin="model",variant="` + variantOf(text) + `"} 1`,
		`refersam_answers_total{origin="cache",variant="` + variantOf(text) + `"} 1`,
		`refersam_http_requests_total{method="POST",route="/v1/segment",status="200"} 2`,
		`refersam_http_requests_total{method="any",route="none",status="404"} 2`,
		`refersam_batches_total 1`,
		`refersam_replica_usable{replica="colour"} 1`,
		`refersam_batching_mode{mode="adaptive"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func variantOf(text string) string {
	if strings.Contains(text, `refersam_answers_total{origin="model",variant="bert"} 1`) {
		return "bert"
	}
	return "clip"
}

// samples returns the values of a scrape by their names with labels.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); strings.HasPrefix(line, "#") {
			continue
		}
		name, value, _ := strings.Cut(line, " ")
		if at := strings.LastIndex(line, "} "); at >= 0 {
			name, value = line[:at+1], line[at+2:]
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all[name] = v
	}
	return all
}

// documentedMetrics are the metrics of docs/operations.md with their labels.
func documentedMetrics(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n### Metrics\n")
	section, _, _ = strings.Cut(section, "\n### ")
	all := make(map[string][]string)
	quoted := regexp.MustCompile("`(\\w+)`")
	for _, row := range regexp.MustCompile("(?m)^\\| `(refersam_\\w+)` \\|([^|]*)\\|").FindAllStringSubmatch(section, -1) {
		labels := []string{}
		for _, label := range quoted.FindAllStringSubmatch(row[2], -1) {
			labels = append(labels, label[1])
		}
		slices.Sort(labels)
		all[row[1]] = labels
	}
	// Every other name on the page that looks like a metric must be one.
	for _, name := range regexp.MustCompile("`(refersam_\\w+)`").FindAllStringSubmatch(string(text), -1) {
		if _, listed := all[name[1]]; !listed {
			t.Errorf("%s is not in the table of metrics", name[1])
		}
	}
	return all
}

// A service that has just started serves all metrics that the documentation lists,
// and no others, with the same labels.
func TestAdmin_MetricsFromTheFirstScrape(t *testing.T) {
	histogram := regexp.MustCompile(`_(bucket|sum|count)$`)
	label := regexp.MustCompile(`[{,](\w+)="`)
	scrape := func(text string) map[string][]string {
		all := make(map[string][]string)
		for sample := range samples(t, text) {
			name, _, _ := strings.Cut(sample, "{")
			if !strings.HasPrefix(name, "refersam_") {
				continue
			}
			if base := histogram.ReplaceAllString(name, ""); strings.Contains(text, "# TYPE "+base+" histogram\n") {
				name = base
			}
			labels := []string{}
			for _, l := range label.FindAllStringSubmatch(strings.TrimPrefix(sample, name), -1) {
				if l[1] != "le" {
					labels = append(labels, l[1])
				}
			}
			slices.Sort(labels)
			all[name] = labels
		}
		return all
	}
	documented := documentedMetrics(t)
	if len(documented) < 30 {
		t.Fatalf("%d metrics are documented", len(documented))
	}
	t.Run("ready", func(t *testing.T) {
		if diff := cmp.Diff(documented, scrape(administration(start(t))("GET", "/metrics", "").Body.String())); diff != "" {
			t.Errorf("-documented +served:\n%s", diff)
		}
	})
	t.Run("loading", func(t *testing.T) {
		model := pipelinetest.NewColourModel("bert")
		model.SetDown(&refersam.Error{Code: refersam.CodeNotReady, Message: "loading"})
		served := scrape(administration(loading(t, model))("GET", "/metrics", "").Body.String())
		for name, labels := range documented {
			byModel := slices.ContainsFunc(labels, func(l string) bool { return l == "variant" || l == "model" || l == "replica" })
			if _, there := served[name]; !there && !byModel {
				t.Errorf("%s is absent", name)
			}
		}
	})
}

// If the values of a label are known, each has a series before its first event.
func TestAdmin_MetricsBeginAtZero(t *testing.T) {
	s := start(t)
	all := samples(t, administration(s)("GET", "/metrics", "").Body.String())
	asked := regexp.MustCompile(`route="/(readyz|openapi.json)"`) // routes that this test requests
	expect := func(sample string) {
		t.Helper()
		if v, there := all[sample]; !there || v != 0 && !asked.MatchString(sample) {
			t.Errorf("%s is %v, there: %t", sample, v, there)
		}
	}
	for _, variant := range []string{"bert", "clip"} {
		for _, origin := range []string{"model", "shared", "cache"} {
			expect(fmt.Sprintf(`refersam_answers_total{origin=%q,variant=%q}`, origin, variant))
		}
	}
	for _, code := range []string{"overloaded", "deadline_exceeded", "upstream_unavailable"} {
		expect(fmt.Sprintf(`refersam_requests_refused_total{code=%q}`, code))
	}
	for _, code := range []string{"upstream_failed", "not_ready", "deadline_exceeded", "upstream_unavailable"} {
		expect(fmt.Sprintf(`refersam_rows_failed_total{code=%q}`, code))
	}
	for operation, o := range s.description.operations {
		method, path, _ := strings.Cut(operation, " ")
		for status := range o.responses {
			route := regexp.MustCompile(`/\{(\w+)\}`).ReplaceAllString(path, "/:$1")
			route = strings.Replace(route, "/web/:file", "/web/*file", 1)
			expect(fmt.Sprintf(`refersam_http_requests_total{method=%q,route=%q,status=%q}`, method, route, status))
			expect(fmt.Sprintf(`refersam_http_request_seconds_count{route=%q}`, route))
		}
	}
}

// A page of another site must not reach the administration.
func TestAdmin_OtherSites(t *testing.T) {
	do := administration(start(t))
	for name, change := range map[string]func(*http.Request){
		"name":    func(r *http.Request) { r.Host = "evil.example:8081" },
		"no port": func(r *http.Request) { r.Host = "evil.example" },
		"fetch":   func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"port":    func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"origin":  func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
	} {
		if w := do("PATCH", "/v1/admin/batching", `{"mode":"off"}`, change); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d", name, w.Code)
		}
	}
	if w := do("GET", "/v1/admin/batching", ""); !strings.Contains(w.Body.String(), "adaptive") {
		t.Errorf("it was changed: %s", w.Body)
	}
	for path, want := range map[string]int{"/debug/pprof/": 200, "/debug/pprof/goroutine": 200, "/nowhere": 404} {
		if w := do("GET", path, ""); w.Code != want {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
}

// A request that would miss its deadline is refused at once, with a realistic
// Retry-After.
func TestSegment_Refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t)
		settings := s.segmenter.Scheduler().Settings()
		settings.Admission, settings.MaxRows = true, 1
		if err := s.segmenter.Scheduler().Update(settings); err != nil {
			t.Fatal(err)
		}
		s.model.SetBefore(func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
				return nil
			}
		})
		// The scheduler learns how long a row takes.
		if w := s.do(segmentForm(t, "red")); w.Code != http.StatusOK {
			t.Fatal(w.Body)
		}
		// An idle server tries at most three requests that the forecast calls late.
		var w *httptest.ResponseRecorder
		for i := range 4 {
			w = s.do(segmentForm(t, "blue "+strconv.Itoa(i), part{"deadline_ms", "20"}))
			expectProblem(t, w, http.StatusGatewayTimeout, "deadline_exceeded", "")
		}
		if !strings.Contains(w.Body.String(), "takes about") {
			t.Errorf("not refused by the forecast: %s", w.Body)
		}

		answers := make(chan *httptest.ResponseRecorder, 40)
		for i := range cap(answers) {
			go func() { answers <- s.do(segmentForm(t, "red "+strconv.Itoa(i), part{"deadline_ms", "1000"})) }()
		}
		refused := 0
		for range cap(answers) {
			w := <-answers
			if w.Code != http.StatusServiceUnavailable {
				continue
			}
			refused++
			expectProblem(t, w, http.StatusServiceUnavailable, "overloaded", "")
			if after, err := strconv.Atoi(w.Header().Get("Retry-After")); err != nil || after < 1 || after > 5 {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
		}
		if refused < 10 || refused > 38 {
			t.Errorf("%d of 40 were refused", refused)
		}
	})
}

func TestSegment_DeadlineAndPriority(t *testing.T) {
	s := start(t)
	for _, tc := range []struct {
		part  part
		field string
	}{
		{part{"deadline_ms", "0"}, "deadline_ms"},
		{part{"deadline_ms", "soon"}, "deadline_ms"},
		{part{"deadline_ms", "86400001"}, "deadline_ms"},
		{part{"priority", "shadow"}, "priority"},
		{part{"priority", ""}, "priority"},
	} {
		expectProblem(t, s.do(segmentForm(t, "red", tc.part)), http.StatusUnprocessableEntity, "invalid_request", tc.field)
	}
	for _, ok := range []part{{"deadline_ms", "86400000"}, {"priority", "batch"}, {"priority", "interactive"}} {
		if w := s.do(segmentForm(t, "red", ok)); w.Code != http.StatusOK {
			t.Errorf("%v: %s", ok, w.Body)
		}
	}
}

// Equal requests at the same time cost one row, and so do equal phrases of one
// request.
func TestSegment_Origin(t *testing.T) {
	s := start(t)
	origins := func(w *httptest.ResponseRecorder) (origins []string) {
		var a api.Answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err, w.Body)
		}
		for _, r := range a.Results {
			origins = append(origins, r.Origin)
		}
		return origins
	}
	if got := origins(s.do(segmentForm(t, "red", part{"phrase", " red "}, part{"phrase", "blue"}))); strings.Join(got, " ") != "model shared model" {
		t.Errorf("origins %v", got)
	}
	if got := origins(s.do(segmentForm(t, "blue", part{"phrase", "green"}))); strings.Join(got, " ") != "cache model" {
		t.Errorf("then origins %v", got)
	}
	if batches := s.model.Batches(); len(batches) != 2 || batches[0] != 2 || batches[1] != 1 {
		t.Errorf("batches %v, want one of 2 rows and one of 1", batches)
	}
}

// segmentForm asks for one phrase of the squares, always of the same variant.
func segmentForm(t *testing.T, phrase string, more ...part) *http.Request {
	t.Helper()
	return form(append([]part{{"image", picture}, {"phrase", phrase}, {"variant", "bert"}}, more...)...)
}

var _ gateway.Batching = (*pipeline.Scheduler)(nil)

// A client that reaches the administration may change settings, so it listens only
// on this machine.
func TestConfig_AdminListen(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:8081": true, "[::1]:0": true, "localhost:8081": true, "off": true,
		"": false, "0.0.0.0:8081": false, ":8081": false, "10.0.0.1:8081": false, "example.org:8081": false, "127.0.0.1": false,
	} {
		cfg := gateway.DefaultConfig()
		cfg.AdminListen = address
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
