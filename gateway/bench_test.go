package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/store"
)

// The cost of a key for a request for masks: the difference between the two is
// looking the key up, checking its secret, and counting it against rate and
// concurrency. It must stay below 50 µs. The picture has 4 × 2 pixels and the
// phrase's answer is cached, so that little else is done.
func BenchmarkKey(b *testing.B) {
	for _, auth := range []string{gateway.AuthOff, gateway.AuthOn} {
		b.Run(auth, func(b *testing.B) {
			s := start(b, func(cfg *gateway.Config) { cfg.Auth = auth })
			token := s.newKey(b, store.Key{Rate: store.Rate{Requests: 1_000_000_000, Window: time.Second}, Concurrency: 100})
			for b.Loop() {
				req := bearer(jsonRequest(`{"image": {"data": %q}, "prompts": [{"text": "red"}]}`, tiny), token)
				w := httptest.NewRecorder()
				if s.ServeHTTP(w, req); w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
				s.log.Reset()
			}
		})
	}
}

// tiny is a PNG of 4 × 2 pixels in base64.
const tiny = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAACCAIAAADwyuo0AAAAEElEQVR42mP476AARwzIHACVqgr5fE1q6QAAAABJRU5ErkJggg=="

// An answer of 8 phrases with cached logits, 320 × 240 pixels, from the form to the
// JSON: reading, looking up, making and writing the masks. It must stay below 1 ms,
// a target that was set for the work without the masks.
func BenchmarkAnswer(b *testing.B) {
	s := start(b)
	parts := []part{{"image", picture}}
	for i := range 8 {
		parts = append(parts, part{"phrase", "the red square " + strconv.Itoa(i)})
	}
	for b.Loop() {
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, form(parts...)); w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
		s.log.Reset()
	}
}
