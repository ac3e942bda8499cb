package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam/api"
)

// anyOrigin is the entry of CORSOrigins for all pages.
const anyOrigin = "*"

// validateOrigins reports entries that are not origins as browsers send them.
func validateOrigins(origins []string) error {
	var errs []error
	for _, origin := range origins {
		u, err := url.Parse(origin)
		if origin != anyOrigin && (err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || origin != u.Scheme+"://"+strings.ToLower(u.Host) ||
			u.Port() == "443" && u.Scheme == "https" || u.Port() == "80" && u.Scheme == "http") { // browsers leave these ports out
			errs = append(errs, fmt.Errorf("REFERSAM_CORS_ORIGINS has %q, allowed: origins such as https://app.example.com, or *", origin))
		}
	}
	return errors.Join(errs...)
}

var (
	corsMethods = strings.Join([]string{http.MethodGet, http.MethodPost, http.MethodDelete}, ", ")
	corsRequest = strings.Join([]string{
		"Authorization", "X-API-Key", "Content-Type", api.HeaderIdempotencyKey, "If-None-Match", api.HeaderEventID, api.HeaderPrefer, api.HeaderRequestID, api.HeaderUnitID,
	}, ", ")
	corsAnswer = strings.Join([]string{
		api.HeaderRequestID, "ETag", "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "Server-Timing", "WWW-Authenticate", api.HeaderReplayed, api.HeaderApplied,
		"X-Refersam-Model", "X-Refersam-Variant", "X-Refersam-Status", "X-Refersam-Score", "X-Refersam-Origin", "X-Refersam-Area", "X-Refersam-Bbox",
		"X-Refersam-Components", "X-Refersam-Stability", "X-Refersam-Warning",
	}, ", ")
)

// mayShare reports whether pages of an origin may use the API.
func mayShare(origins []string, origin string) bool {
	return slices.Contains(origins, anyOrigin) || slices.Contains(origins, origin)
}

// corsMaxAge is how many seconds a browser may cache the answer to a preflight
// request.
const corsMaxAge = "7200"

// allowOrigins is middleware that lets pages of other origins use the API (Fetch
// standard, section 3.3). Credentials that a browser adds by itself are never
// allowed: a page must send its key.
//
// rs/cors answers a preflight of a page that may not use the API with 204 instead of
// an error that names the origin, and sets neither Timing-Allow-Origin nor
// Cross-Origin-Resource-Policy, so TestCORS fails with it.
func allowOrigins(origins []string) gin.HandlerFunc {
	return func(c *gin.Context) {
		if !strings.HasPrefix(c.Request.URL.Path, "/v1/") {
			return
		}
		h := c.Writer.Header()
		if len(origins) > 0 {
			h.Add("Vary", "Origin")
		}
		origin := c.GetHeader("Origin")
		preflight := origin != "" && c.Request.Method == http.MethodOptions && c.GetHeader("Access-Control-Request-Method") != ""
		if origin == "" || !mayShare(origins, origin) {
			if preflight {
				fail(c, foreignOrigin(c))
			}
			return
		}
		if slices.Contains(origins, anyOrigin) {
			origin = anyOrigin
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", corsAnswer)
		h.Set("Timing-Allow-Origin", origin)
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		if preflight {
			h.Set("Access-Control-Allow-Methods", corsMethods)
			h.Set("Access-Control-Allow-Headers", corsRequest)
			h.Set("Access-Control-Max-Age", corsMaxAge)
			c.AbortWithStatus(http.StatusNoContent)
		}
	}
}
