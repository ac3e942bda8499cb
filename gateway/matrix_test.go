package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam/store"
)

// open are the routes for everybody; anyKey those for every key. All others
// want the scope segment.
var (
	openRoutes = map[string]bool{
		"/": true, "/docs": true, "/openapi.json": true, "/openapi.yaml": true, "/web/*file": true, "/livez": true, "/readyz": true, "/version": true, "/problems/:code": true,
	}
	anyKeyRoutes = map[string]bool{"/v1/usage": true}
)

// Every route that is served, with every kind of key: a new route that forgets
// to ask for one is found here.
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
		segment, usage int // in: neither 401 nor 403
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
	routes := 0
	for _, route := range s.Routes() {
		path := parameter.ReplaceAllString(strings.ReplaceAll(route.Path, `\:`, ":"), "/0")
		if strings.HasPrefix(route.Path, "/v1/") {
			routes++
		} else if !openRoutes[route.Path] {
			t.Errorf("%s is for whom?", route.Path)
		}
		for _, client := range clients {
			req := httptest.NewRequest(route.Method, path, nil)
			if client.token != nil {
				bearer(req, *client.token)
			}
			want := client.segment
			switch {
			case anyKeyRoutes[route.Path]:
				want = client.usage
			case openRoutes[route.Path]:
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
	if routes < 19 {
		t.Errorf("%d routes below /v1", routes)
	}
}
