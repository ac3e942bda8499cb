package api

// The media types of requests and answers.
const (
	MediaJSON    = "application/json"
	MediaProblem = "application/problem+json"
	MediaGeoJSON = "application/geo+json"
	MediaForm    = "multipart/form-data"
	MediaMixed   = "multipart/mixed"
	MediaBytes   = "application/octet-stream"
	MediaPNG     = "image/png"
	MediaJPEG    = "image/jpeg"
	MediaZip     = "application/zip"
	MediaEvents  = "text/event-stream"
	MediaText    = "text/plain"
	MediaHTML    = "text/html"
	MediaYAML    = "application/yaml"
)

// The file types of overlays.
const (
	OverlayPNG  = "png"
	OverlayJPEG = "jpeg"
)
