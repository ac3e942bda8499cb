package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/refersam/refersam/api"
)

type (
	// Model is a model that the service has loaded.
	Model = api.Model
	// UnusableModel is a configured variant that cannot be used.
	UnusableModel = api.UnusableModel
)

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
	api.Limits
	// RequestTimeout is how long a request may take; a job may take longer.
	RequestTimeout time.Duration
}

// UnmarshalJSON reads limits as the service writes them.
func (l *Limits) UnmarshalJSON(data []byte) error {
	err := decode(data, &l.Limits)
	l.RequestTimeout = milliseconds(float64(l.RequestTimeoutMS))
	return err
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
	var b api.UsageDay
	if err := decode(data, &b); err != nil {
		return err
	}
	day, err := time.Parse(time.DateOnly, b.Day)
	*u = Usage{day, b.Key, b.Requests, b.Pictures, milliseconds(b.GPUMS)}
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
