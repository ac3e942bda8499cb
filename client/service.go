package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Model is a model that the service has loaded.
type Model struct {
	Name, Variant, Version, Label, Tokenizer, Precision, Checkpoint string
	// Weight is the part of the units that gets it, and Threshold the foreground
	// probability from which a pixel belongs to a mask, both in [0, 1].
	Weight, Threshold float64
	// ImageSize is the side of the square that pictures are scaled to, in pixels,
	// and MaxTokens how many tokens of a phrase are read.
	ImageSize int `json:"image_size"`
	MaxTokens int `json:"max_tokens"`
}

// Models lists the models; CodeNotReady while they are being loaded.
func (c *Client) Models(ctx context.Context) ([]Model, error) {
	list, err := get[struct{ Models []Model }](ctx, c, call{method: http.MethodGet, path: "v1/models"})
	if err != nil {
		return nil, err
	}
	return list.Models, nil
}

// Usage is what a key has used on a day.
type Usage struct {
	// Day is midnight UTC, when it began.
	Day time.Time
	// Key is the id of the key; anonymous without authentication.
	Key string
	// Requests are those that were answered with masks or a job, Pictures those
	// that masks were made for, and GPU is how long model servers were busy with them.
	Requests, Pictures int64
	GPU                time.Duration
}

// UsageQuery says which usage is wanted.
type UsageQuery struct {
	// From and To are the first and the last day, in UTC, at most 366 of them. A
	// zero To is today, and a zero From is 29 days before To.
	From, To time.Time
	// Key is the id of a key, "" for all that the client's key may see: all with
	// the scope admin, else its own.
	Key string
}

// Usage returns what keys have used, by day and key.
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
	type usageBody struct {
		Day, Key           string
		Requests, Pictures int64
		GPUMS              float64 `json:"gpu_ms"`
	}
	list, err := get[struct{ Usage []usageBody }](ctx, c, call{method: http.MethodGet, path: "v1/usage", query: query})
	if err != nil {
		return nil, err
	}
	used := make([]Usage, len(list.Usage))
	for i, u := range list.Usage {
		day, err := time.Parse(time.DateOnly, u.Day)
		if err != nil {
			return nil, fmt.Errorf("the service's usage: %w", err)
		}
		used[i] = Usage{day, u.Key, u.Requests, u.Pictures, milliseconds(u.GPUMS)}
	}
	return used, nil
}
