package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/tests/await"
)

func batchRequest(format string, args ...any) *http.Request {
	return to("/v1/segment:batch", jsonRequest(format, args...))
}

func decodeBatch(t *testing.T, w *httptest.ResponseRecorder) api.BatchAnswer {
	t.Helper()
	var a api.BatchAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v: %s", w.Code, err, w.Body)
	}
	return a
}

// Every item has its own answer or problem, in order, and gets the same answer that
// it would get alone.
func TestBatch(t *testing.T) {
	s := start(t)
	a := decodeBatch(t, s.do(batchRequest(`{"items": [
		{"id": "a", "image": {"data": %[1]q}, "prompts": [{"id": "r", "text": "red"}, {"text": "green"}]},
		{"image": {"data": "bm9uZQ=="}, "prompts": [{"text": "red"}]},
		{"id": "c", "image": {"data": %[1]q}, "prompts": [{"text": "red"}, {"text": " "}]},
		{"id": "d", "image": {"data": %[1]q}, "prompts": [{"text": "red", "threshold": 7}]},
		{"id": "e", "image": {"data": %[1]q}, "prompts": [{"text": "red"}], "output": {"formats": ["rle"], "quality": false, "size": "model"}},
		{"id": "f", "prompts": [{"text": "red"}]}
	], "output": {"formats": ["png"], "quality": true}, "variant": "clip"}`, encoded)))
	if len(a.Results) != 6 {
		t.Fatalf("%d results", len(a.Results))
	}
	alone := decode(t, s.do(jsonRequest(`{"image": {"data": %q}, "prompts": [{"text": "red"}], "variant": "clip"}`, encoded)))
	first := a.Results[0]
	if first.ID != "a" || first.Answer == nil || len(first.Answer.Results) != 2 || first.Answer.Results[0].PromptID != "r" ||
		first.Answer.Results[0].Area != alone.Results[0].Area || first.Answer.Model.Variant != "clip" || first.Answer.RequestID != a.RequestID {
		t.Errorf("%+v", first)
	}
	for i, want := range map[int]struct{ id, code, field string }{
		1: {"", "unsupported_media_type", "/items/1/image/data"},
		2: {"c", "phrase_empty", "/items/2/prompts/1/text"},
		3: {"d", "invalid_request", "/items/3/prompts/0/threshold"},
		5: {"f", "invalid_request", "/items/5/image"},
	} {
		got := a.Results[i]
		if got.ID != want.id || got.Answer != nil || got.Problem == nil || string(got.Problem.Code) != want.code || got.Problem.Field != want.field ||
			got.Problem.RequestID != a.RequestID {
			t.Errorf("item %d: %+v, %+v", i, got, got.Problem)
		}
	}
	// The item's output takes precedence over the batch's.
	if masks := first.Answer.Results[0].Masks; masks.PNG == nil || masks.Counts != nil {
		t.Errorf("%+v", masks)
	}
	own := a.Results[4]
	if own.Answer == nil || own.Answer.Results[0].Masks.PNG != nil || own.Answer.Results[0].Masks.Counts == nil ||
		own.Answer.Mask.Width >= own.Answer.Image.Width || own.Answer.Results[0].Quality != nil || first.Answer.Results[0].Quality == nil {
		t.Errorf("%+v", own.Answer)
	}
}

func TestBatchBadInput(t *testing.T) {
	s := start(t)
	item := fmt.Sprintf(`{"image": {"data": %q}, "prompts": [{"text": "red"}]}`, encoded)
	unprocessable := http.StatusUnprocessableEntity
	for _, tc := range []struct {
		name   string
		req    *http.Request
		status int
		code   string
		field  string
	}{
		{"no items", batchRequest(`{}`), unprocessable, "invalid_request", "/items"},
		{"65 items", batchRequest(`{"items": [%s]}`, strings.Repeat(item+",", 64)+item), unprocessable, "invalid_request", "/items"},
		{"600 prompts", batchRequest(`{"items": [%s, {"prompts": [%s{"text": "x"}]}]}`, item, strings.Repeat(`{"text": "x"},`, 600)), unprocessable, "invalid_request", "/items/1/prompts"},
		{"an unknown member", batchRequest(`{"items": [%s], "colour": "red"}`, item), unprocessable, "invalid_request", "/colour"},
		{"an item's variant", batchRequest(`{"items": [{"variant": "bert"}]}`), unprocessable, "invalid_request", "/items/0/variant"},
		{"half a body", batchRequest(`{"items": [%s`, item), http.StatusBadRequest, "malformed_request", "/items"},
		{"a bad output", batchRequest(`{"items": [%s], "output": {"size": "huge"}}`, item), unprocessable, "invalid_request", "/output/size"},
		{"an unknown variant", batchRequest(`{"items": [%s], "variant": "gpt"}`, item), unprocessable, "unknown_model", "/variant"},
		{"a bad deadline", batchRequest(`{"items": [%s], "deadline_ms": 0}`, item), unprocessable, "invalid_request", "/deadline_ms"},
		{"a form", to("/v1/segment:batch", form(part{"image", picture})), http.StatusUnsupportedMediaType, "unsupported_media_type", ""},
		{"a query", func() *http.Request {
			r := batchRequest(`{"items": [%s]}`, item)
			r.URL.RawQuery = "phrase=red"
			return r
		}(), unprocessable, "invalid_request", ""},
		{"a PNG", with(batchRequest(`{"items": [%s]}`, item), "Accept", "image/png"), http.StatusNotAcceptable, "not_acceptable", ""},
		{"a compressed body", with(batchRequest(`{"items": [%s]}`, item), "Content-Encoding", "gzip"), http.StatusUnsupportedMediaType, "unsupported_media_type", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expectProblem(t, s.do(tc.req), tc.status, tc.code, tc.field)
		})
	}
}

// One deadline applies to all items, and usage counts one request and every
// picture, both for a batch and for a job.
func TestBatchDeadlineAndUsage(t *testing.T) {
	s := start(t, authenticated)
	key := s.newKey(t, store.Key{})
	var once sync.Once
	s.model.SetBefore(func(ctx context.Context) (err error) {
		once.Do(func() {
			<-ctx.Done()
			err = ctx.Err()
		})
		return err
	})
	w := s.do(bearer(batchRequest(`{"items": [{"image": {"data": %[1]q}, "prompts": [{"text": "red"}]}, {"image": {"data": "bm9uZQ=="}, "prompts": [{"text": "red"}]}],
		"deadline_ms": 200}`, encoded), key))
	late := decodeBatch(t, w)
	if p := late.Results[0].Problem; p == nil || p.Code != "deadline_exceeded" || p.Status != http.StatusGatewayTimeout {
		t.Errorf("%+v", p)
	}
	s.model.SetBefore(nil)
	s.Access.Forget()
	decodeBatch(t, s.do(bearer(batchRequest(`{"items": [{"image": {"data": %[1]q}, "prompts": [{"text": "red"}]}, {"image": {"data": %[1]q}, "prompts": [{"text": "green"}]}]}`, encoded), key)))
	used := usage(t, s.do(bearer(httptest.NewRequest(http.MethodGet, "/v1/usage", nil), key)))
	if len(used) != 1 || used[0].Requests != 1 || used[0].Pictures != 2 || used[0].Day != time.Now().UTC().Format(time.DateOnly) {
		t.Errorf("%+v", used)
	}
	w = s.do(bearer(async(batchRequest(`{"items": [{"image": {"data": %[1]q}, "prompts": [{"text": "red"}]}, {"image": {"data": %[1]q}, "prompts": [{"text": "green"}]}]}`, encoded)), key))
	id := decodeJob(t, w, http.StatusAccepted).ID
	await.Until(t, 20*time.Second, func() error {
		if j := decodeJob(t, s.ask(http.MethodGet, "/v1/jobs/"+id, key), http.StatusOK); j.Status != "succeeded" {
			return fmt.Errorf("the job is %s", j.Status)
		}
		return nil
	})
	used = usage(t, s.do(bearer(httptest.NewRequest(http.MethodGet, "/v1/usage", nil), key)))
	if len(used) != 1 || used[0].Requests != 2 || used[0].Pictures != 4 {
		t.Errorf("%+v", used)
	}
}
