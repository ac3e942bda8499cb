package tests_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/refersam/refersam/pipeline/pipelinetest"
)

const (
	// atOnce is how many of the largest bodies are sent at the same time.
	atOnce = 6
	// memoryBound is how much resident memory the gateway may have used after
	// TestBadInput: three bytes for each byte of these bodies of 20 MiB, as much
	// again that the collector has not freed yet, and the gateway itself. A decoded
	// picture of 60,000 × 60,000 alone would take 10.8 GB. The settings allow more,
	// see docs/operations.md.
	memoryBound = 768 << 20
)

func TestBadInput(t *testing.T) {
	s := up(t) // its own service, because the test measures its memory
	scene := scenes(t)[0]
	picture := string(scene.picture(t))
	encoded := base64.StdEncoding.EncodeToString([]byte(picture))
	const phrase = "the duck"

	type request struct {
		contentType string
		body        []byte
	}
	asForm := func(parts ...part) request {
		contentType, body := form(t, parts...)
		return request{contentType, body}
	}
	asJSON := func(format string, args ...any) request {
		return request{"application/json", fmt.Appendf(nil, format, args...)}
	}
	withPicture := func(data string) request { return asForm(part{"image", data}, part{"phrase", phrase}) }
	withPhrase := func(text string) request { return asForm(part{"image", picture}, part{"phrase", text}) }

	for _, tc := range []struct {
		name    string
		request request
		status  int
		code    string
	}{
		{"text for a picture", withPicture("this is not a picture"), 415, "unsupported_media_type"},
		{"a PDF", withPicture("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), 415, "unsupported_media_type"},
		{"an empty picture", withPicture(""), 422, "invalid_image"},
		{"half a picture", withPicture(picture[:len(picture)/2]), 422, "invalid_image"},
		{"a header alone", withPicture(picture[:20]), 422, "invalid_image"},
		{"60,000 × 60,000", withPicture(pipelinetest.HugePNG(60_000, 60_000)), 413, "image_too_large"},
		{"more than 20 MB", withPicture(picture + strings.Repeat("\x00", 21<<20)), 413, "image_too_large"},
		{"more than 20 MB of JSON", asJSON(`{"image":{"data":%q},"prompts":[{"text":"x"}]}`, strings.Repeat("A", 40<<20)), 413, "image_too_large"},
		{"no picture", asForm(part{"phrase", phrase}), 422, "invalid_request"},
		{"two pictures", asForm(part{"image", picture}, part{"image", picture}, part{"phrase", phrase}), 422, "invalid_request"},
		{"no phrase", asForm(part{"image", picture}), 422, "invalid_request"},
		{"an empty phrase", withPhrase(""), 422, "phrase_empty"},
		{"a blank phrase", withPhrase(" \t\n"), 422, "phrase_empty"},
		{"a phrase of 10 kB", withPhrase(strings.Repeat("duck ", 2000)), 422, "phrase_too_long"},
		{"a phrase that is not UTF-8", withPhrase("the d\xffck"), 422, "invalid_request"},
		{"a variant that is not there", asForm(part{"image", picture}, part{"phrase", phrase}, part{"variant", "gpt"}), 422, "unknown_model"},
		{"a field that is not there", asForm(part{"image", picture}, part{"phrase", phrase}, part{"colour", "red"}), 422, "invalid_request"},
		{"a JSON field that is not there", asJSON(`{"image":{"data":%q},"prompts":[{"text":"x"}],"colour":"red"}`, encoded), 422, "invalid_request"},
		{"a format that is not there", asJSON(`{"image":{"data":%q},"prompts":[{"text":"x"}],"output":{"formats":["svg"]}}`, encoded), 422, "invalid_request"},
		{"no prompts", asJSON(`{"image":{"data":%q},"prompts":[]}`, encoded), 422, "invalid_request"},
		{"half a JSON", asJSON(`{"image":{"data":`), 400, "malformed_request"},
		{"JSON that is not UTF-8", asJSON("{\"image\":{\"data\":%q},\"prompts\":[{\"text\":\"d\xffck\"}]}", encoded), 400, "malformed_request"},
		{"a form without its end", request{"multipart/form-data; boundary=x", []byte("--x\r\nContent-Disposition: form-data; name=\"phrase\"\r\n\r\nd")}, 400, "malformed_request"},
		{"a body of another type", request{"text/plain", []byte(phrase)}, 415, "unsupported_media_type"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.post(t, tc.request.contentType, tc.request.body).expectProblem(t, tc.status, tc.code)
		})
	}

	t.Run("large bodies at once", func(t *testing.T) {
		large := withPicture(strings.Repeat("x", 20<<20))
		var all sync.WaitGroup
		for range atOnce {
			all.Go(func() {
				resp, err := client.Post(s.url+"/v1/segment", large.contentType, bytes.NewReader(large.body))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if resp.StatusCode != http.StatusUnsupportedMediaType {
					t.Errorf("status %d, want 415", resp.StatusCode)
				}
			})
		}
		all.Wait()
	})
	t.Run("and still serves", func(t *testing.T) {
		if a := s.segment(t, "", part{"image", picture}, part{"phrase", phrase}); len(a.Results) != 1 {
			t.Errorf("%d results, want 1", len(a.Results))
		}
	})
	if peak := peakMemory(t, s.cmd.Process.Pid); peak > memoryBound {
		t.Errorf("the gateway used %d MiB at its peak, want at most %d", peak>>20, memoryBound>>20)
	} else {
		t.Logf("the gateway used %d MiB at its peak", peak>>20)
	}
}

// A gateway that cannot reach its Triton is alive and reports that it is not ready.
func TestTritonDown(t *testing.T) {
	dead, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, dead)
	expectNotReady(t, s)
}

// The same holds if a listener on Triton's port never answers, like a server that
// is still loading.
func TestTritonSilent(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := serve(t, listener.Addr().String())
	expectNotReady(t, s)
}

func expectNotReady(t *testing.T, s *service) {
	t.Helper()
	s.waitAlive(t)
	if status, err := s.status("/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz says %d, %v; want 503", status, err)
	}
	contentType, body := form(t, part{"image", string(scenes(t)[0].picture(t))}, part{"phrase", "the duck"})
	refused := s.post(t, contentType, body)
	refused.expectProblem(t, http.StatusServiceUnavailable, "not_ready")
	if refused.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}
