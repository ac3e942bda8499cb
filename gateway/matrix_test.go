package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam/store"
)

// The routes by the clients that may use them: everybody, every key, or keys with
// the scope segment.
var (
	openRoutes = []string{
		"/", "/docs", "/openapi.json", "/openapi.yaml", "/web/*file", "/livez", "/readyz", "/version", "/problems/:code",
	}
	anyKeyRoutes = []string{"/v1/usage"}
	// otherRoutes require other scopes; they are listed by method.
	otherRoutes   = map[string]store.Scope{"POST /v1/feedback": store.ScopeFeedback, "GET /v1/feedback": store.ScopeAdmin}
	segmentRoutes = []string{
		"/v1/segment", "/v1/segment:batch", "/v1/models", "/v1/models/:name",
		"/v1/images", "/v1/images/:id", "/v1/images/:id/content",
		"/v1/jobs", "/v1/jobs/:id", "/v1/jobs/:id/events", "/v1/jobs/:id/items/:index", "/v1/jobs/:id/cancel", "/v1/jobs/:id/webhook/redeliver",
		"/v1/webhooks/secret", "/v1/webhooks/secret/rotate",
	}
)

// Every served route, with every kind of key. A new route that does not require a
// key fails here.
func TestAccessMatrix(t *testing.T) {
	s := start(t, authenticated)
	now := time.Now()
	right := s.newKey(t, store.Key{})
	admin := s.newKey(t, store.Key{Scopes: []store.Scope{store.ScopeAdmin, store.ScopeFeedback}})
	expired := s.newKey(t, store.Key{Expires: now.Add(-time.Minute)})
	revoked := s.newKey(t, store.Key{})
	if err := s.state.RevokeKey(t.Context(), revoked.ID, now); err != nil {
		t.Fatal(err)
	}
	rotated := s.newKey(t, store.Key{})
	if _, err := s.state.RotateKey(t.Context(), rotated.ID, now.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	wrong := store.Token{ID: right.ID, Secret: admin.Secret}
	const unauthorized, forbidden, in = http.StatusUnauthorized, http.StatusForbidden, 0
	clients := []struct {
		name           string
		token          *store.Token
		segment, usage int // accepted: neither 401 nor 403
	}{
		{"no key", nil, unauthorized, unauthorized},
		{"a wrong secret", &wrong, unauthorized, unauthorized},
		{"an expired key", &expired, unauthorized, unauthorized},
		{"a revoked key", &revoked, unauthorized, unauthorized},
		{"a key before its rotation", &rotated, unauthorized, unauthorized},
		{"another scope", &admin, forbidden, in},
		{"the right key", &right, in, in},
	}
	parameter := regexp.MustCompile(`/[:*]\w+`)
	for _, route := range s.Routes() {
		known := strings.ReplaceAll(route.Path, `\:`, ":")
		path := parameter.ReplaceAllString(known, "/0")
		_, isOther := otherRoutes[route.Method+" "+known]
		if !isOther && !slices.Contains(slices.Concat(openRoutes, anyKeyRoutes, segmentRoutes), known) {
			t.Errorf("whom is %s for?", known)
		}
		for _, client := range clients {
			req := httptest.NewRequest(route.Method, path, nil)
			if client.token != nil {
				bearer(req, *client.token)
			}
			want := client.segment
			switch {
			case isOther && client.token == &right:
				want = forbidden
			case isOther && client.token == &admin:
				want = in
			case slices.Contains(anyKeyRoutes, known):
				want = client.usage
			case slices.Contains(openRoutes, known):
				want = in
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, req)
			got := w.Code
			if got != unauthorized && got != forbidden {
				got = in
			}
			if got != want {
				t.Errorf("%s %s with %s: status %d", route.Method, path, client.name, w.Code)
			}
			for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "X-Request-Id"} {
				if w.Header().Get(name) == "" {
					t.Errorf("%s %s with %s: no %s", route.Method, path, client.name, name)
				}
			}
		}
	}
}
