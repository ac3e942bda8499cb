package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refersam/refersam"
)

// outside is a gateway.Fetcher for addresses that a test makes up. Package fetch
// tests that the real fetcher reaches no other addresses.
type outside struct {
	mu       sync.Mutex
	pictures map[string]string
	during   func()
}

func (o *outside) put(url, content string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pictures == nil {
		o.pictures = make(map[string]string)
	}
	o.pictures[url] = content
}

func (o *outside) Picture(ctx context.Context, url string, most int64, reserve func(context.Context, int64) error) ([]byte, error) {
	o.mu.Lock()
	content, ok := o.pictures[url]
	o.mu.Unlock()
	if o.during != nil {
		o.during()
	}
	if !ok {
		return nil, refersam.Errorf(refersam.CodeFetchFailed, "The picture's address answered with status 404.")
	}
	if err := reserve(ctx, int64(len(content))); err != nil {
		return nil, err
	}
	time.Sleep(5 * time.Millisecond) // so that the time of the fetch, which answers name, is not 0
	return []byte(content), nil
}

func (o *outside) CheckPicture(url string) error {
	if !strings.HasPrefix(url, "https://good.example/") {
		return refersam.Errorf(refersam.CodeFetchRefused, "The service may not reach the address.")
	}
	return nil
}

func (o *outside) CheckWebhook(url string) error { return o.CheckPicture(url) }

// A picture is fetched in every form of request.
func TestSegmentURL(t *testing.T) {
	s := start(t)
	const there, notThere, evil = "https://good.example/a.png", "https://good.example/b.png", "https://evil.example/a.png"
	s.fetcher.put(there, picture)
	alone := decode(t, s.do(form(part{"image", picture}, part{"phrase", "red"})))
	asForm := func(url string) *http.Request { return form(part{"image_url", url}, part{"phrase", "red"}) }
	asJSON := func(url string) *http.Request {
		return jsonRequest(`{"image": {"url": %q}, "prompts": [{"text": "red"}]}`, url)
	}
	for _, req := range []*http.Request{asForm(there), asJSON(there)} {
		w := s.do(req)
		a := decode(t, w)
		if a.Results[0].Area != alone.Results[0].Area || a.Timings.Fetch < 5 || !strings.Contains(w.Header().Get("Server-Timing"), "fetch;dur=") {
			t.Errorf("%+v", a)
		}
	}
	unprocessable := http.StatusUnprocessableEntity
	expectProblem(t, s.do(asForm(notThere)), unprocessable, "fetch_failed", "image_url")
	expectProblem(t, s.do(asJSON(notThere)), unprocessable, "fetch_failed", "/image/url")
	expectProblem(t, s.do(asForm(evil)), unprocessable, "fetch_refused", "image_url")

	sent := decodeImage(t, s.do(to("/v1/images", jsonRequest(`{"image": {"url": %q}}`, there))), http.StatusCreated)
	if again := decodeImage(t, s.do(upload()), http.StatusOK); again.ID != sent.ID {
		t.Errorf("%+v, %+v", sent, again)
	}
	expectProblem(t, s.do(upload(part{"image_url", evil})), unprocessable, "fetch_refused", "image_url")

	// A job fetches its picture when it runs, and an address that may never be
	// fetched is refused at once.
	j := s.finish(t, decodeJob(t, s.do(async(asForm(there))), http.StatusAccepted).ID)
	if j.Status != "succeeded" || decode(t, s.get(j.Items[0].Result)).Results[0].Area != alone.Results[0].Area {
		t.Errorf("%+v", j)
	}
	if j = s.finish(t, decodeJob(t, s.do(async(asJSON(notThere))), http.StatusAccepted).ID); j.Items[0].Problem == nil || j.Items[0].Problem.Code != "fetch_failed" || j.Items[0].Problem.Field != "/image/url" {
		t.Errorf("%+v", j)
	}
	expectProblem(t, s.do(async(asForm(evil))), unprocessable, "fetch_refused", "image_url")
	expectProblem(t, s.do(async(form(part{"image", picture}, part{"phrase", "red"}, part{"webhook", evil}))), unprocessable, "fetch_refused", "webhook")
	withHook := decodeJob(t, s.do(async(form(part{"image", picture}, part{"phrase", "red"}, part{"webhook", "https://good.example/hook"}))), http.StatusAccepted)
	if withHook.Webhook == nil || withHook.Webhook.Status != "pending" || withHook.Webhook.URL != "https://good.example/hook" {
		t.Errorf("%+v", withHook)
	}
}
