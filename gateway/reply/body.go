package reply

import "net/http"

// WriteBody sends a whole body.
func WriteBody(w http.ResponseWriter, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body) // fails only when the client has gone
}
