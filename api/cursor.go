package api

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The lists of the API. A cursor is valid for one list only.
const (
	ListImages   = "images"
	ListJobs     = "jobs"
	ListFeedback = "feedback"
)

// Cursor returns the cursor of the list's entries after the entry with this
// creation time and id.
func Cursor(list string, created time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(list + " " + strconv.FormatInt(created.UnixMicro(), 10) + " " + id))
}

// ParseCursor reads a cursor of a list, and reports whether it is valid.
func ParseCursor(list, cursor string) (created time.Time, id string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(cursor)
	name, rest, _ := strings.Cut(string(raw), " ")
	micros, id, _ := strings.Cut(rest, " ")
	us, numErr := strconv.ParseInt(micros, 10, 64)
	if err != nil || name != list || numErr != nil || id == "" || !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return time.Time{}, "", false
	}
	return time.UnixMicro(us), id, true
}
