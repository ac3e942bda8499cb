package api

import "time"

// Image describes a stored picture.
type Image struct {
	_         struct{}  `doc:"A stored picture."`
	ID        string    `json:"id" doc:"'img_' and the SHA-256 of its bytes"`
	Width     int       `json:"width" doc:"Width of the upright picture, in pixels"`
	Height    int       `json:"height" doc:"Height of the upright picture, in pixels"`
	MediaType string    `json:"media_type" doc:"The media type of the picture"`
	Bytes     int64     `json:"bytes" doc:"Size of the picture as it was sent, in bytes"`
	CreatedAt time.Time `json:"created_at" doc:"When it was first sent"`
	ExpiresAt time.Time `json:"expires_at" doc:"When the picture is deleted"`
}

// Images is a page of GET /v1/images.
type Images struct {
	_      struct{} `doc:"A page of images, the newest first."`
	Images []Image  `json:"images" doc:"The images"`
	Next   string   `json:"next,omitempty" doc:"The 'cursor' of the next page; absent on the last page"`
}
