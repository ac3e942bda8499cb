package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/refersam/refersam/store"
)

// A parameter that a route does not have is refused, whatever else is sent.
func TestUnknownParameters(t *testing.T) {
	s := start(t)
	image := decodeImage(t, s.do(upload()), http.StatusCreated).ID
	job := s.finish(t, decodeJob(t, s.do(async(segment())), http.StatusAccepted).ID).ID
	for path, method := range map[string]string{
		"/v1/models":                             http.MethodGet,
		"/v1/models/bert":                        http.MethodGet,
		"/v1/images/" + image:                    http.MethodGet,
		"/v1/images/" + image + "/content":       http.MethodGet,
		"/v1/jobs/" + job:                        http.MethodGet,
		"/v1/jobs/" + job + "/items/0":           http.MethodGet,
		"/v1/jobs/" + job + "/cancel":            http.MethodPost,
		"/v1/jobs/" + job + "/webhook/redeliver": http.MethodPost,
		"/v1/webhooks/secret":                    http.MethodGet,
		"/v1/webhooks/secret/rotate":             http.MethodPost,
		"/v1/images/" + image + "?":              http.MethodDelete,
		"/v1/jobs/" + job + "?":                  http.MethodDelete,
	} {
		path, _, _ = strings.Cut(path, "?")
		for _, key := range []string{"", "a"} {
			expectProblem(t, s.do(idempotent(httptest.NewRequest(method, path+"?colour=red", nil), key)), http.StatusUnprocessableEntity, "invalid_request", "colour")
			expectProblem(t, s.do(idempotent(httptest.NewRequest(method, path+"?%zz", nil), key)), http.StatusBadRequest, "malformed_request", "")
			if method == http.MethodGet {
				continue
			}
			w := s.do(idempotent(httptest.NewRequest(method, path, strings.NewReader("{}")), key))
			expectProblem(t, w, http.StatusUnprocessableEntity, "invalid_request", "")
			if !strings.Contains(w.Body.String(), "no body") {
				t.Errorf("%s %s: %s", method, path, w.Body)
			}
			chunked := httptest.NewRequest(method, path, struct{ *strings.Reader }{strings.NewReader("{}")})
			chunked.ContentLength = -1
			expectProblem(t, s.do(idempotent(chunked, key)), http.StatusUnprocessableEntity, "invalid_request", "")
		}
	}
	empty := httptest.NewRequest(http.MethodPost, "/v1/jobs/"+job+"/cancel", strings.NewReader(""))
	empty.ContentLength = -1
	decodeJob(t, s.do(empty), http.StatusOK)
}

func idempotent(req *http.Request, key string) *http.Request {
	if key == "" {
		return req
	}
	return with(req, "Idempotency-Key", key)
}

// A cursor is valid only for its own list.
func TestCursor_OfAnotherList(t *testing.T) {
	s := start(t)
	for _, pixels := range []string{picture, picture + " "} {
		decodeImage(t, s.do(upload(part{"image", pixels})), http.StatusCreated)
		decodeJob(t, s.do(async(segment())), http.StatusAccepted)
		s.do(feedback(`{"request_id": "r", "rating": 2}`))
	}
	admin := s.newKey(t, store.Key{Scopes: []store.Scope{store.ScopeAdmin}})
	lists := []string{"/v1/images", "/v1/jobs", "/v1/feedback"}
	for _, from := range lists {
		var page struct{ Next string }
		w := s.ask(http.MethodGet, from+"?limit=1", admin)
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || page.Next == "" {
			t.Fatalf("%s: %v: %s", from, err, w.Body)
		}
		for _, to := range lists {
			w := s.ask(http.MethodGet, to+"?cursor="+page.Next, admin)
			if from == to && w.Code != http.StatusOK {
				t.Errorf("%s: status %d: %s", from, w.Code, w.Body)
			} else if from != to {
				expectProblem(t, w, http.StatusUnprocessableEntity, "invalid_request", "cursor")
			}
		}
	}
}
