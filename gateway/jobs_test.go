package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
	"github.com/refersam/refersam/tests/await"
)

func async(req *http.Request) *http.Request { return with(req, "Prefer", "respond-async") }

func decodeJob(t *testing.T, w *httptest.ResponseRecorder, status int) api.Job {
	t.Helper()
	var j api.Job
	if err := json.Unmarshal(w.Body.Bytes(), &j); err != nil || w.Code != status {
		t.Fatalf("status %d, want %d, %v: %s", w.Code, status, err, w.Body)
	}
	return j
}

// finish waits for a job's end.
func (s *service) finish(t *testing.T, id string) api.Job {
	t.Helper()
	var j api.Job
	await.Until(t, 20*time.Second, func() error {
		if j = decodeJob(t, s.get("/v1/jobs/"+id), http.StatusOK); j.Status == "queued" || j.Status == "running" {
			return fmt.Errorf("not done: %+v", j)
		}
		return nil
	})
	return j
}

// The variant of a job is drawn when the job is accepted. A gateway that was
// started with another split meanwhile does not draw it again.
func TestJob_KeepsItsVariant(t *testing.T) {
	s := start(t)
	accept := func(split string) string {
		gw := gatewaytest.Start(t, withoutKeys(), gatewaytest.Parts{
			Model: s.segmenter, MaxImage: maxImage, State: s.state, Blobs: s.blobs, Jobs: s.paused(t), Fetcher: s.fetcher, Log: discard,
			Experiment: experiment.Config{Split: split},
		})
		w := httptest.NewRecorder()
		gw.ServeHTTP(w, async(form(part{"image", picture}, part{"phrase", "red"})))
		return decodeJob(t, w, http.StatusAccepted).ID
	}
	for _, variant := range []string{"bert", "clip"} {
		id := accept(variant + ":1") // s, which does the job, shares clients out evenly
		if j := s.finish(t, id); j.Status != "succeeded" {
			t.Fatalf("%+v", j)
		}
		if got := decode(t, s.get("/v1/jobs/"+id+"/items/0")).Model.Variant; got != variant {
			t.Errorf("accepted under the split %s:1 and answered by %s", variant, got)
		}
	}
}

// paused is a job engine on the service's database that accepts jobs and does none.
func (s *service) paused(t *testing.T) *jobs.Engine {
	t.Helper()
	engine, err := jobs.Open(t.Context(), jobs.DefaultConfig(), s.state, nil, discard)
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// A job gives the same answer as a request, in every form of request and answer.
func TestJob(t *testing.T) {
	s := start(t)
	sent := decodeImage(t, s.do(upload()), http.StatusCreated)
	for name, newRequest := range map[string]func() *http.Request{
		"form": func() *http.Request {
			return form(part{"image", picture}, part{"phrase", "red"}, part{"quality", "true"})
		},
		"by id": func() *http.Request {
			return form(part{"image_id", sent.ID}, part{"phrase", "red"}, part{"variant", "clip"})
		},
		"JSON": func() *http.Request {
			return jsonRequest(`{"image": {"data": %q}, "prompts": [{"id": "a", "text": "green", "formats": ["polygon"], "tolerance": 2, "threshold": 0.4}]}`, encoded)
		},
		"raw": func() *http.Request { return rawRequest("phrase=blue&size=model") },
		"PNG": func() *http.Request {
			return with(form(part{"image", picture}, part{"phrase", "red"}, part{"format", "probability"}), "Accept", "image/png")
		},
		"zip": func() *http.Request {
			return with(form(part{"image", picture}, part{"phrase", "red"}, part{"format", "png,overlay"}), "Accept", "application/zip")
		},
	} {
		t.Run(name, func(t *testing.T) {
			sync := s.do(newRequest())
			w := s.do(async(newRequest()))
			j := decodeJob(t, w, http.StatusAccepted)
			if w.Header().Get("Location") != "/v1/jobs/"+j.ID || w.Header().Get("Preference-Applied") != "respond-async" || j.Kind != "segment" || j.Progress.Total != 1 {
				t.Errorf("%+v, %v", j, w.Header())
			}
			j = s.finish(t, j.ID)
			if j.Status != "succeeded" || j.Progress.Succeeded != 1 {
				t.Fatalf("%+v", j)
			}
			got := s.get(j.Items[0].Result)
			if got.Code != http.StatusOK || got.Header().Get("Content-Type") != sync.Header().Get("Content-Type") ||
				got.Header().Get("X-Refersam-Area") != sync.Header().Get("X-Refersam-Area") {
				t.Fatalf("status %d: %v, want %v", got.Code, got.Header(), sync.Header())
			}
			if got.Header().Get("Content-Type") == "application/json" {
				a, b := decode(t, got), decode(t, sync)
				for i := range a.Results {
					a.Results[i].Origin = b.Results[i].Origin
				}
				if diff := cmp.Diff(b.Results, a.Results); diff != "" {
					t.Error(diff)
				}
			} else if name == "PNG" && !bytes.Equal(got.Body.Bytes(), sync.Body.Bytes()) {
				t.Error("another PNG")
			}
			tag := got.Header().Get("ETag")
			if !strings.HasPrefix(tag, `W/"`) { // all encodings have the same tag
				t.Errorf("ETag %s", tag)
			}
			for _, known := range []string{tag, "*"} {
				if w := s.do(with(httptest.NewRequest(http.MethodGet, j.Items[0].Result, nil), "If-None-Match", known)); w.Code != http.StatusNotModified {
					t.Errorf("%s: status %d", known, w.Code)
				}
			}
		})
	}
}

// Every item of a batch has its own outcome.
func TestJobBatch(t *testing.T) {
	s := start(t)
	broken := base64.StdEncoding.EncodeToString([]byte(pipelinetest.HugePNG(10, 10))) // no pixels behind the header
	j := decodeJob(t, s.do(with(async(batchRequest(`{"items": [{"id": "a", "image": {"data": %[1]q}, "prompts": [{"text": "red"}]},
		{"id": "b", "image": {"data": %[2]q}, "prompts": [{"text": "red"}]}]}`, encoded, broken)), "X-Request-Id", "mine")), http.StatusAccepted)
	j = s.finish(t, j.ID)
	if j.Status != "failed" || j.Kind != "batch" || j.Progress.Succeeded != 1 || j.Progress.Failed != 1 || j.Items[0].ID != "a" || j.Items[0].Status != "succeeded" {
		t.Errorf("%+v", j)
	}
	p := j.Items[1].Problem
	if p == nil || p.Code != "invalid_image" || p.Field != "/items/1/image/data" || j.Items[1].Result != "" {
		t.Errorf("%+v", p)
	}
	if a := decode(t, s.get(j.Items[0].Result)); a.RequestID != "mine" || j.RequestID != "mine" || p.RequestID != "mine" {
		t.Errorf("the request is %q in the answer, %q in the job, %q in the problem", a.RequestID, j.RequestID, p.RequestID)
	}
	expectProblem(t, s.get("/v1/jobs/"+j.ID+"/items/1"), http.StatusGone, "item_failed", "")
	expectProblem(t, s.get("/v1/jobs/"+j.ID+"/items/2"), http.StatusNotFound, "job_not_found", "")
	for _, index := range []string{"x", "00", "+0", "-1", "99999999999999999999"} {
		w := s.get("/v1/jobs/" + j.ID + "/items/" + index)
		expectProblem(t, w, http.StatusNotFound, "job_not_found", "")
		if !strings.Contains(w.Body.String(), "job or item does not exist") {
			t.Errorf("%s: %s", index, w.Body)
		}
	}
}

// A request that could never succeed is refused at once.
func TestJobBadInput(t *testing.T) {
	s := start(t)
	image := part{"image", picture}
	unprocessable := http.StatusUnprocessableEntity
	for _, tc := range []struct {
		name   string
		req    *http.Request
		status int
		code   string
		field  string
	}{
		{"no picture", async(form(part{"image", "none"}, part{"phrase", "red"})), http.StatusUnsupportedMediaType, "unsupported_media_type", "image"},
		{"no phrase", async(form(image)), unprocessable, "invalid_request", "phrase"},
		{"a blank phrase", async(form(image, part{"phrase", " "})), unprocessable, "phrase_empty", "phrase"},
		{"an unknown variant", async(form(image, part{"phrase", "red"}, part{"variant", "gpt"})), unprocessable, "unknown_model", "variant"},
		{"an unknown image", async(form(part{"image_id", "img_" + strings.Repeat("0", 64)}, part{"phrase", "red"})), http.StatusNotFound, "image_not_found", "image_id"},
		{"a webhook without a job", form(image, part{"phrase", "red"}, part{"webhook", "https://example.com/"}), unprocessable, "invalid_request", "webhook"},
		{"a webhook without a job in JSON", jsonRequest(`{"image": {"data": %q}, "prompts": [{"text": "x"}], "webhook": {"url": "https://example.com/"}}`, encoded), unprocessable, "invalid_request", "/webhook/url"},
		{"an empty webhook", async(form(image, part{"phrase", "red"}, part{"webhook", ""})), unprocessable, "invalid_request", "webhook"},
		{"an unknown job", httptest.NewRequest(http.MethodGet, "/v1/jobs/job_1", nil), http.StatusNotFound, "job_not_found", ""},
		{"events of an unknown job", httptest.NewRequest(http.MethodGet, "/v1/jobs/job_1/events", nil), http.StatusNotFound, "job_not_found", ""},
		{"an event that is none", httptest.NewRequest(http.MethodGet, "/v1/jobs/job_1/events?last_event_id=x", nil), unprocessable, "invalid_request", "last_event_id"},
		{"an unknown status", httptest.NewRequest(http.MethodGet, "/v1/jobs?status=done", nil), unprocessable, "invalid_request", "status"},
		{"cancelling an unknown job", httptest.NewRequest(http.MethodPost, "/v1/jobs/job_1/cancel", nil), http.StatusNotFound, "job_not_found", ""},
		{"deleting an unknown job", httptest.NewRequest(http.MethodDelete, "/v1/jobs/job_1", nil), http.StatusNotFound, "job_not_found", ""},
		{"telling of an unknown job", httptest.NewRequest(http.MethodPost, "/v1/jobs/job_1/webhook/redeliver", nil), http.StatusNotFound, "job_not_found", ""},
	} {
		t.Run(tc.name, func(t *testing.T) { expectProblem(t, s.do(tc.req), tc.status, tc.code, tc.field) })
	}
	w := s.do(async(batchRequest(`{"items": [{"image": {"data": %[1]q}, "prompts": [{"text": "x", "threshold": 7}]}, {"prompts": [{"text": "x"}]}]}`, encoded)))
	expectProblem(t, w, unprocessable, "invalid_request", "/items/0/prompts/0/threshold")
	if !strings.Contains(w.Body.String(), "#/items/1/image") {
		t.Errorf("the second fault is not told: %s", w.Body)
	}
}

// stuck makes the model wait until the test releases it.
func (s *service) stuck(t *testing.T) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	s.model.SetBefore(func(ctx context.Context) error {
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return func() { s.model.SetBefore(nil); close(gate) }
}

func TestJobCancel(t *testing.T) {
	s := start(t)
	release := s.stuck(t)
	j := decodeJob(t, s.do(async(form(part{"image", picture}, part{"phrase", "red"}))), http.StatusAccepted)
	expectProblem(t, s.get("/v1/jobs/"+j.ID+"/items/0"), http.StatusConflict, "job_unfinished", "")
	for range 2 {
		if j = decodeJob(t, s.do(httptest.NewRequest(http.MethodPost, "/v1/jobs/"+j.ID+"/cancel", nil)), http.StatusOK); j.Status != "cancelled" {
			t.Errorf("%+v", j)
		}
	}
	expectProblem(t, s.get("/v1/jobs/"+j.ID+"/items/0"), http.StatusGone, "cancelled", "")
	release()
	if w := s.do(httptest.NewRequest(http.MethodDelete, "/v1/jobs/"+j.ID, nil)); w.Code != http.StatusNoContent {
		t.Errorf("status %d", w.Code)
	}
	expectProblem(t, s.get("/v1/jobs/"+j.ID), http.StatusNotFound, "job_not_found", "")
}

func TestJobList(t *testing.T) {
	s := start(t)
	var want, got []string
	for range 3 {
		want = append([]string{decodeJob(t, s.do(async(form(part{"image", picture}, part{"phrase", "red"}))), http.StatusAccepted).ID}, want...)
	}
	for query := "?limit=2"; query != ""; {
		var list api.Jobs
		w := s.get("/v1/jobs" + query)
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Jobs) > 2 {
			t.Fatalf("%v: %s", err, w.Body)
		}
		for _, j := range list.Jobs {
			got = append(got, j.ID)
		}
		query = ""
		if list.Next != "" {
			query = "?limit=2&cursor=" + url.QueryEscape(list.Next)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	s.finish(t, want[0])
}

// A job belongs to its key.
func TestJobAccess(t *testing.T) {
	s := start(t, authenticated)
	key, other := s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
	j := decodeJob(t, s.do(bearer(async(segment()), key)), http.StatusAccepted)
	for _, path := range []string{"", "/events", "/items/0"} {
		expectProblem(t, s.ask(http.MethodGet, "/v1/jobs/"+j.ID+path, other), http.StatusNotFound, "job_not_found", "")
	}
	expectProblem(t, s.ask(http.MethodPost, "/v1/jobs/"+j.ID+"/cancel", other), http.StatusNotFound, "job_not_found", "")
	expectProblem(t, s.ask(http.MethodDelete, "/v1/jobs/"+j.ID, other), http.StatusNotFound, "job_not_found", "")
	expectProblem(t, s.ask(http.MethodPost, "/v1/jobs/"+j.ID+"/webhook/redeliver", other), http.StatusNotFound, "job_not_found", "")
	if got := decodeJob(t, s.ask(http.MethodGet, "/v1/jobs/"+j.ID, key), http.StatusOK); got.ID != j.ID {
		t.Errorf("%+v", got)
	}
	var first, second, rotated api.WebhookSecret
	for _, step := range []struct {
		to           any
		method, path string
		token        store.Token
	}{
		{&first, http.MethodGet, "/v1/webhooks/secret", key},
		{&second, http.MethodGet, "/v1/webhooks/secret", other},
		{&rotated, http.MethodPost, "/v1/webhooks/secret/rotate", key},
	} {
		w := s.ask(step.method, step.path, step.token)
		if err := json.Unmarshal(w.Body.Bytes(), step.to); err != nil || w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
		}
	}
	if first.Secret == second.Secret || first.Secret == rotated.Secret || rotated.PreviousUntil == nil || first.PreviousUntil != nil {
		t.Errorf("%+v, %+v, %+v", first, second, rotated)
	}
}

// The same request with the same idempotency key is the same job, even if its
// answer was lost.
func TestJobIdempotency(t *testing.T) {
	s := start(t)
	newRequest := func(phrase string) *http.Request {
		return async(with(form(part{"image", picture}, part{"phrase", phrase}), "Idempotency-Key", "a"))
	}
	first := decodeJob(t, s.do(newRequest("red")), http.StatusAccepted)
	again := s.do(newRequest("red"))
	if got := decodeJob(t, again, http.StatusAccepted); got.ID != first.ID || again.Header().Get("Idempotency-Replayed") != "true" || again.Header().Get("Location") == "" ||
		again.Header().Get("Preference-Applied") != "respond-async" {
		t.Errorf("%+v, %v", got, again.Header())
	}
	expectProblem(t, s.do(newRequest("green")), http.StatusUnprocessableEntity, "idempotency_key_reused", "")
	// As if the gateway had crashed before it stored the answer.
	storetest.Exec(t, s.state, `UPDATE idempotency SET done = 0, answer = NULL, lease_us = 1`)
	if got := decodeJob(t, s.do(newRequest("red")), http.StatusAccepted); got.ID != first.ID {
		t.Errorf("another job: %+v", got)
	}
	// After its key has expired, the same request creates a new job, even if the
	// old job still exists.
	if err := s.state.Sweep(t.Context(), time.Now().Add(25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := decodeJob(t, s.do(newRequest("red")), http.StatusAccepted); got.ID == first.ID {
		t.Errorf("the job of the day before: %+v", got)
	}
	// A request without a job needs no idempotency key.
	decode(t, s.do(with(segment(), "Idempotency-Key", "a")))
}

// Only a delivered webhook can be delivered again.
func TestJobRedeliver_NoWebhook(t *testing.T) {
	s := start(t)
	j := s.finish(t, decodeJob(t, s.do(async(segment())), http.StatusAccepted).ID)
	path := "/v1/jobs/" + j.ID + "/webhook/redeliver"
	w := s.do(httptest.NewRequest(http.MethodPost, path, nil))
	expectProblem(t, w, http.StatusNotFound, "not_found", "")
	if !strings.Contains(w.Body.String(), "no webhook") {
		t.Errorf("%s", w.Body)
	}
}

// A picture that is too large for its phrases creates no job, whatever its source.
func TestJobTooManyPhrases(t *testing.T) {
	s := start(t)
	large := pipelinetest.HugePNG(7000, 7000)
	kept := decodeImage(t, s.do(upload(part{"image", large})), http.StatusCreated)
	for field, value := range map[string]string{"image": large, "image_id": kept.ID} {
		parts := []part{{field, value}}
		for range 6 {
			parts = append(parts, part{"phrase", "red"})
		}
		expectProblem(t, s.do(async(form(parts...))), http.StatusRequestEntityTooLarge, "image_too_large", field)
	}
}

// event is one event of a stream.
type event struct{ id, kind, data string }

func events(t *testing.T, body string) (all []event) {
	t.Helper()
	var e event
	for line := range strings.SplitSeq(body, "\n") {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data = value
		case "":
			if e != (event{}) {
				all = append(all, e)
			}
			e = event{}
		}
	}
	return all
}

// A stream sends the job's events and ends with the job. A client that reconnects
// gets the events after its last one.
func TestJobEvents(t *testing.T) {
	s := start(t)
	release := s.stuck(t)
	j := decodeJob(t, s.do(async(batchRequest(`{"items": [{"id": "a", "image": {"data": %[1]q}, "prompts": [{"text": "red"}]}, {"id": "b", "image": {"data": %[1]q}, "prompts": [{"text": "green"}]}]}`, encoded))), http.StatusAccepted)
	time.AfterFunc(300*time.Millisecond, release)
	w := s.get("/v1/jobs/" + j.ID + "/events")
	if w.Header().Get("Content-Type") != "text/event-stream" {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	all := events(t, w.Body.String())
	if len(all) != 5 {
		t.Fatalf("%d events: %s", len(all), w.Body)
	}
	for i, e := range all {
		kind, status := "job", []string{"queued", "running", "", "", "succeeded"}[i]
		if status == "" {
			kind, status = "item", "succeeded"
		}
		if e.id != fmt.Sprint(i+1) || e.kind != kind || !strings.Contains(e.data, `"status":"`+status+`"`) {
			t.Errorf("%+v, want %s %s", e, kind, status)
		}
		if kind == "item" && !strings.Contains(e.data, "/v1/jobs/"+j.ID+"/items/") {
			t.Errorf("%+v", e)
		}
	}
	for query, header := range map[string]string{"": "3", "?last_event_id=3": ""} {
		req := httptest.NewRequest(http.MethodGet, "/v1/jobs/"+j.ID+"/events"+query, nil)
		if header != "" {
			req.Header.Set("Last-Event-ID", header)
		}
		if diff := cmp.Diff(all[3:], events(t, s.do(req).Body.String()), cmp.AllowUnexported(event{})); diff != "" {
			t.Error(diff)
		}
	}
	expectProblem(t, s.get("/v1/jobs/"+j.ID+"/events?last_event_id=6"), http.StatusUnprocessableEntity, "invalid_request", "last_event_id")
	expectProblem(t, s.do(with(httptest.NewRequest(http.MethodGet, "/v1/jobs/"+j.ID+"/events", nil), "Last-Event-ID", "99")), http.StatusUnprocessableEntity, "invalid_request", "Last-Event-ID")
	// A browser that has all events does not reconnect.
	if w := s.get("/v1/jobs/" + j.ID + "/events?last_event_id=5"); w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

// A stream survives long silence, and ends when the service stops.
func TestJobEventsWhileStopping(t *testing.T) {
	s := start(t)
	defer s.stuck(t)()
	j := decodeJob(t, s.do(async(form(part{"image", picture}, part{"phrase", "red"}))), http.StatusAccepted)
	address, stop := listenUntil(t, s)
	resp, err := http.Get("http://" + address + "/v1/jobs/" + j.ID + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && lines.Text() != "event: job" {
	}
	begun := time.Now()
	stop()
	for lines.Scan() {
	}
	if time.Since(begun) > 3*time.Second {
		t.Errorf("the stream ended %s after the stop", time.Since(begun))
	}
}

// Pictures and answers of jobs count against the storage of their key.
func TestJobQuota(t *testing.T) {
	s := start(t, func(cfg *gateway.Config) { cfg.Images.StoragePerKey = int64(len(picture)) + 100 })
	j := decodeJob(t, s.do(async(form(part{"image", picture}, part{"phrase", "red"}))), http.StatusAccepted)
	if j = s.finish(t, j.ID); j.Status != "failed" || j.Items[0].Problem.Code != "storage_full" {
		t.Errorf("%+v", j)
	}
	expectProblem(t, s.do(async(form(part{"image", picture}, part{"phrase", "red"}))), http.StatusTooManyRequests, "storage_full", "")
}

// A job that is not accepted leaves no pictures behind.
func TestJobRefusedKeepsNothing(t *testing.T) {
	s := start(t)
	refused := func() *http.Request {
		return async(batchRequest(`{"items": [{"image": {"data": %q}, "prompts": [{"text": "red"}]}, {"image": {"id": "img_nothing"}, "prompts": [{"text": "red"}]}]}`, encoded))
	}
	expectProblem(t, s.do(refused()), http.StatusNotFound, "image_not_found", "/items/1/image/id")
	if n, err := s.state.Stored(t.Context(), "anonymous"); err != nil || n != 0 || objects(t, s.blobs) != 0 {
		t.Errorf("%d bytes and %d objects are left: %v", n, objects(t, s.blobs), err)
	}
	// So does a job for a key with too many jobs.
	release := s.stuck(t)
	defer release()
	storetest.Exec(t, s.state, `INSERT INTO jobs (id, api_key, kind, status, total, seq, created_us) VALUES ('job_many', 'anonymous', 'batch', 'queued', 10000, 1, 1)`)
	expectProblem(t, s.do(async(segment())), http.StatusTooManyRequests, "quota_exceeded", "")
	if n, err := s.state.Stored(t.Context(), "anonymous"); err != nil || n != 0 || objects(t, s.blobs) != 0 {
		t.Errorf("%d bytes and %d objects are left: %v", n, objects(t, s.blobs), err)
	}
}

// blocked is a client that does not read its answer.
type blocked struct {
	*httptest.ResponseRecorder
	begun, release chan struct{}
}

func (b blocked) Write(p []byte) (int, error) {
	b.begun <- struct{}{}
	<-b.release
	return b.ResponseRecorder.Write(p)
}

// A stored result takes only as much memory as it needs.
func TestJobResultMemory(t *testing.T) {
	s := start(t, func(cfg *gateway.Config) { cfg.Answers.AnswerMemory = 64 << 10 })
	j := s.finish(t, decodeJob(t, s.do(async(segment())), http.StatusAccepted).ID)
	begun, release := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			s.ServeHTTP(blocked{httptest.NewRecorder(), begun, release}, httptest.NewRequest(http.MethodGet, j.Items[0].Result, nil))
		})
		<-begun
	}
	if w := s.get(j.Items[0].Result); w.Code != http.StatusOK {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	decode(t, s.do(segment()))
	close(release)
	group.Wait()
}

// A stream ends when its key is revoked.
func TestJobEvents_Revoked(t *testing.T) {
	t.Parallel()
	s := start(t, authenticated)
	key := s.newKey(t, store.Key{})
	release := s.stuck(t)
	defer release()
	j := decodeJob(t, s.do(bearer(async(segment()), key)), http.StatusAccepted)
	time.AfterFunc(100*time.Millisecond, func() {
		if err := s.state.RevokeKey(context.Background(), key.ID, time.Now()); err != nil {
			t.Error(err)
		}
	})
	begun := time.Now()
	s.ask(http.MethodGet, "/v1/jobs/"+j.ID+"/events", key)
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the stream went on for %s", took)
	}
}
