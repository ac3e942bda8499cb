package api

import "time"

// Image describes a picture that is kept.
type Image struct {
	_         struct{}  `doc:"A picture that is kept."`
	ID        string    `json:"id" doc:"'img_' and the SHA-256 of its bytes"`
	Width     int       `json:"width" doc:"Of the upright picture, in pixels"`
	Height    int       `json:"height" doc:"Of the upright picture, in pixels"`
	MediaType string    `json:"media_type" doc:"What it is"`
	Bytes     int64     `json:"bytes" doc:"How large it is"`
	CreatedAt time.Time `json:"created_at" doc:"When it was first sent"`
	ExpiresAt time.Time `json:"expires_at" doc:"Until when it is kept"`
}

// Images is a page of GET /v1/images.
type Images struct {
	_      struct{} `doc:"A page of images, the newest first."`
	Images []Image  `json:"images" doc:"The images"`
	Next   string   `json:"next,omitempty" doc:"What to give as 'cursor' for the next page; absent on the last one"`
}
