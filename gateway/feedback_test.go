package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/store"
)

func feedback(body string) *http.Request { return to("/v1/feedback", jsonRequest("%s", body)) }

// Feedback is stored once per idempotency key, and keys with the scope admin see
// the feedback of all keys.
func TestFeedback(t *testing.T) {
	s := start(t, authenticated)
	key := s.newKey(t, store.Key{Scopes: []store.Scope{store.ScopeFeedback}})
	admin := s.newKey(t, store.Key{Scopes: []store.Scope{store.ScopeAdmin}})
	whole := `{"request_id": "r-1", "item": 7, "result": 2, "verdict": "bad", "rating": 1, "corrected_mask": {"size": [2, 4], "counts": "242"}, "comment": "the other one"}`
	for range 2 {
		w := s.do(bearer(with(feedback(whole), "Idempotency-Key", "a"), key))
		var f api.Feedback
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || w.Code != http.StatusCreated || f.Key != key.ID || f.Item != 7 || f.Result != 2 || f.Rating != 1 ||
			f.Verdict != "bad" || f.Mask == nil || f.Mask.Counts != "242" || f.RequestID != "r-1" || !strings.HasPrefix(f.ID, "fb_") {
			t.Errorf("status %d, %v: %s", w.Code, err, w.Body)
		}
	}
	if w := s.do(bearer(feedback(`{"request_id": "r-2", "rating": 5}`), key)); w.Code != http.StatusCreated {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	var list api.FeedbackList
	for query, want := range map[string][]string{"": {"r-2", "r-1"}, "?request_id=r-1": {"r-1"}, "?limit=1": {"r-2"}} {
		w := s.ask(http.MethodGet, "/v1/feedback"+query, admin)
		list.Feedback, list.Next = nil, ""
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Feedback) != len(want) || (list.Next != "") != (query == "?limit=1") {
			t.Fatalf("%s: %v: %s", query, err, w.Body)
		}
		for i := range want {
			if f := list.Feedback[i]; f.RequestID != want[i] || f.Item != map[string]int{"r-1": 7}[want[i]] {
				t.Errorf("%s: %+v", query, list.Feedback)
			}
		}
	}
	expectProblem(t, s.ask(http.MethodGet, "/v1/feedback", key), http.StatusForbidden, "forbidden", "")
	expectProblem(t, s.do(bearer(feedback(whole), admin)), http.StatusForbidden, "forbidden", "")
}

func TestFeedbackBadInput(t *testing.T) {
	s := start(t)
	for name, tc := range map[string]struct{ body, field string }{
		"no request":        {`{"verdict": "good"}`, "/request_id"},
		"nothing said":      {`{"request_id": "r"}`, ""},
		"a bad verdict":     {`{"request_id": "r", "verdict": "so-so"}`, "/verdict"},
		"a rating of 6":     {`{"request_id": "r", "rating": 6}`, "/rating"},
		"half a rating":     {`{"request_id": "r", "rating": 2.5}`, "/rating"},
		"no result":         {`{"request_id": "r", "rating": 2, "result": -1}`, "/result"},
		"no item":           {`{"request_id": "r", "rating": 2, "item": 64}`, "/item"},
		"a long comment":    {`{"request_id": "r", "comment": "` + strings.Repeat("a", 2001) + `"}`, "/comment"},
		"an empty comment":  {`{"request_id": "r", "comment": ""}`, "/comment"},
		"a huge rating":     {`{"request_id": "r", "rating": 1e300}`, "/rating"},
		"half a size":       {`{"request_id": "r", "corrected_mask": {"size": [2], "counts": "9"}}`, "/corrected_mask/size"},
		"no mask":           {`{"request_id": "r", "corrected_mask": {"size": [2, 4], "counts": "9"}}`, "/corrected_mask/counts"},
		"a mask of no size": {`{"request_id": "r", "corrected_mask": {"size": [0, 4], "counts": ""}}`, "/corrected_mask/size"},
		"a mask too large":  {`{"request_id": "r", "corrected_mask": {"size": [100000, 100000], "counts": "0"}}`, "/corrected_mask/size"},
		"an unknown member": {`{"request_id": "r", "rating": 2, "stars": 3}`, "/stars"},
	} {
		t.Run(name, func(t *testing.T) {
			expectProblem(t, s.do(feedback(tc.body)), http.StatusUnprocessableEntity, "invalid_request", tc.field)
		})
	}
	w := s.do(with(httptest.NewRequest(http.MethodPost, "/v1/feedback", strings.NewReader("verdict=good")), "Content-Type", "application/x-www-form-urlencoded"))
	expectProblem(t, w, http.StatusUnsupportedMediaType, "unsupported_media_type", "")
}
