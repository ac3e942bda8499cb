package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/refersam/refersam/gateway"
)

func TestCORS(t *testing.T) {
	const page, other = "https://app.example.com", "https://evil.example.com"
	preflight := func(origin string) *http.Request {
		req := httptest.NewRequest(http.MethodOptions, "/v1/segment", nil)
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "POST")
		req.Header.Set("Access-Control-Request-Headers", "authorization,idempotency-key")
		return req
	}
	for _, tc := range []struct {
		name, origins, origin, allowed string
	}{
		{"off", "", page, ""},
		{"listed", page, page, page},
		{"one of two", "http://localhost:3000," + page, page, page},
		{"not listed", page, other, ""},
		{"another scheme", page, "http://app.example.com", ""},
		{"null", page, "null", ""},
		{"any", "*", other, "*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, authenticated, func(cfg *gateway.Config) {
				if tc.origins != "" {
					cfg.CORSOrigins = strings.Split(tc.origins, ",")
				}
			})
			w := httptest.NewRecorder()
			s.ServeHTTP(w, preflight(tc.origin))
			h := w.Header()
			if got := h.Get("Access-Control-Allow-Origin"); got != tc.allowed {
				t.Errorf("preflight: %q", got)
			}
			if tc.allowed == "" {
				expectProblem(t, w, http.StatusForbidden, "forbidden", "")
				if !strings.Contains(w.Body.String(), tc.origin) {
					t.Errorf("which page? %s", w.Body)
				}
			} else if w.Code != http.StatusNoContent {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
			if (h.Get("Access-Control-Allow-Headers") != "") != (tc.allowed != "") {
				t.Errorf("%v", h)
			}
			w = s.do(with(segment(), "Origin", tc.origin)) // without a key, because pages must be able to read errors too
			h = w.Header()
			if w.Code != http.StatusUnauthorized || h.Get("Access-Control-Allow-Origin") != tc.allowed || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("status %d, %v", w.Code, h)
			}
			if tc.allowed != "" && (!strings.Contains(h.Get("Access-Control-Expose-Headers"), "RateLimit") || h.Get("Cross-Origin-Resource-Policy") != "cross-origin") {
				t.Errorf("%v", h)
			}
			if vary := strings.Join(h.Values("Vary"), ","); strings.Contains(vary, "Origin") != (tc.origins != "") {
				t.Errorf("Vary: %s", vary)
			}
			// Other origins may not read the pages.
			if got := s.do(with(httptest.NewRequest(http.MethodGet, "/", nil), "Origin", tc.origin)).Header(); got.Get("Access-Control-Allow-Origin") != "" || got.Get("Cross-Origin-Resource-Policy") != "same-origin" {
				t.Errorf("%v", got)
			}
		})
	}
	for _, origin := range []string{"app.example.com", "https://app.example.com/", "https://APP.example.com", "ftp://a", "https://*.example.com/x", "null", "https://app.example.com:443", "http://a.example:80"} {
		cfg := gateway.DefaultConfig()
		cfg.CORSOrigins = []string{origin}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "REFERSAM_CORS_ORIGINS") {
			t.Errorf("%s: %v", origin, err)
		}
	}
}
