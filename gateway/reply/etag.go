package reply

import (
	"net/http"
	"strings"
)

// Matches reports whether If-None-Match names an ETag, by weak comparison (RFC
// 9110, section 13.1.2).
func Matches(tags []string, tag string) bool {
	for element := range strings.SplitSeq(strings.Join(tags, ","), ",") {
		if strings.TrimPrefix(strings.TrimSpace(element), "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// HasStored reports whether a client that asks for an existing resource already has
// the version with this ETag. If-None-Match: * matches every version.
func HasStored(h http.Header, tag string) bool {
	tags := h.Values("If-None-Match")
	return Matches(tags, tag) || len(tags) == 1 && strings.TrimSpace(tags[0]) == "*"
}
