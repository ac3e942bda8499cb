package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Model is a model that the service has loaded.
type Model struct {
	Name, Variant, Version, Label, Tokenizer, Precision, Checkpoint string
	// Weight is the part of the units that gets this model. Threshold is the
	// lowest foreground probability of a pixel of a mask. Both are in [0, 1].
	Weight, Threshold float64
	// ImageSize is the side of the square that pictures are scaled to, in pixels,
	// and MaxTokens is how many tokens of a phrase the model reads.
	ImageSize int `json:"image_size"`
	MaxTokens int `json:"max_tokens"`
}

// UnusableModel is a configured variant that cannot be used.
type UnusableModel struct {
	Name, Variant string
	// Weight is the part of the units that gets this variant, and so no answer.
	Weight float64
	// Reason says which stage is broken, and why.
	Reason string
}

// Models lists the loaded models and the service's limits.
type Models struct {
	Models []Model
	// Unusable are the configured variants that cannot be used.
	Unusable []UnusableModel
	// Formats are the formats of masks that the service can write, such as coco_rle.
	Formats []string
	Limits  Limits
}

// Limits are the service's limits for all models.
type Limits struct {
	// MaxImageBytes is for a picture as it is sent, MaxImagePixels for its width
	// times its height, MaxImageSide for its width and for its height, and
	// MaxImageFrames for the number of pictures in its file.
	MaxImageBytes  int64 `json:"max_image_bytes"`
	MaxImagePixels int   `json:"max_image_pixels"`
	MaxImageSide   int   `json:"max_image_side"`
	MaxImageFrames int   `json:"max_image_frames"`
	// MaxPhrases is per picture, MaxPhraseBytes is for one phrase in Unicode's form
	// NFC, and MaxMaskPixels is for the pixels of a picture times its phrases.
	MaxPhrases     int `json:"max_phrases"`
	MaxPhraseBytes int `json:"max_phrase_bytes"`
	MaxMaskPixels  int `json:"max_mask_pixels"`
	// MaxBatchItems and MaxBatchBytes are for a batch or a job as it is sent; in
	// base64 pictures take a third more.
	MaxBatchItems int `json:"max_batch_items"`
	MaxBatchBytes int `json:"max_batch_bytes"`
	// RequestTimeout is how long a request may take; a job may take longer.
	RequestTimeout time.Duration `json:"request_timeout_ms"`
}

// Models returns the models and the service's limits; CodeNotReady while the models
// are loading.
func (c *Client) Models(ctx context.Context) (*Models, error) {
	return get[Models](ctx, c, call{method: http.MethodGet, path: "v1/models"})
}

// Usage is the usage of one API key on one day.
type Usage struct {
	// Day is the day's beginning, midnight UTC.
	Day time.Time
	// Key is the id of the key; anonymous without authentication.
	Key string
	// Requests counts the requests that were answered with masks or a job, Pictures
	// counts the pictures that masks were made for, and GPU is how long model
	// servers were busy with them.
	Requests, Pictures int64
	GPU                time.Duration
}

// UnmarshalJSON reads usage as the service writes it.
func (u *Usage) UnmarshalJSON(data []byte) error {
	var b struct {
		Day, Key           string
		Requests, Pictures int64
		GPU                time.Duration `json:"gpu_ms"`
	}
	if err := decode(data, &b); err != nil {
		return err
	}
	day, err := time.Parse(time.DateOnly, b.Day)
	*u = Usage{day, b.Key, b.Requests, b.Pictures, b.GPU}
	return err
}

// UsageQuery selects usage.
type UsageQuery struct {
	// From and To are the first and the last day, in UTC, at most 366 days. A zero
	// To is today, and a zero From is 29 days before To.
	From, To time.Time
	// Key is the id of a key. If it is "", Usage returns all keys that the client's
	// key may see: every key with the scope admin, otherwise its own.
	Key string
}

// Usage returns the usage per day and key.
func (c *Client) Usage(ctx context.Context, q UsageQuery) ([]Usage, error) {
	query := url.Values{}
	for name, day := range map[string]time.Time{"from": q.From, "to": q.To} {
		if !day.IsZero() {
			query.Set(name, day.UTC().Format(time.DateOnly))
		}
	}
	if q.Key != "" {
		query.Set("key", q.Key)
	}
	list, err := get[struct{ Usage []Usage }](ctx, c, call{method: http.MethodGet, path: "v1/usage", query: query})
	if err != nil {
		return nil, err
	}
	return list.Usage, nil
}
