package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/refersam/refersam"
)

// Image is a picture that the service keeps for its key.
type Image struct {
	// ID is img_ and the SHA-256 of the bytes.
	ID            string
	Width, Height int
	MediaType     string `json:"media_type"`
	Bytes         int64
	CreatedAt     time.Time `json:"created_at"`
	ExpiresAt     time.Time `json:"expires_at"`
}

// KeepImage sends an encoded picture to be kept, or makes it last longer.
func (c *Client) KeepImage(ctx context.Context, picture []byte) (*Image, error) {
	var i Image
	err := c.do(ctx, call{
		method: http.MethodPost, path: "v1/images", mediaType: "application/octet-stream", body: picture,
		header: http.Header{"Idempotency-Key": {newKey()}},
	}, &i)
	return &i, err
}

// Image returns what is known of an image; CodeImageNotFound if the key has
// none of this ID.
func (c *Client) Image(ctx context.Context, id string) (*Image, error) {
	var i Image
	err := c.do(ctx, call{method: http.MethodGet, path: "v1/images/" + url.PathEscape(id)}, &i)
	return &i, err
}

// DeleteImage deletes an image.
func (c *Client) DeleteImage(ctx context.Context, id string) error {
	err := c.do(ctx, call{method: http.MethodDelete, path: "v1/images/" + url.PathEscape(id)}, nil)
	return err
}

// Job is work that the service does after its request has been answered.
type Job struct {
	ID, Kind string
	// Status is queued, running, succeeded, failed or cancelled.
	Status     string
	CreatedAt  time.Time `json:"created_at"`
	FinishedAt time.Time `json:"finished_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	Progress   struct{ Total, Succeeded, Failed, Cancelled int }
	Items      []struct {
		Index      int
		ID, Status string
		Problem    *struct {
			Code   refersam.Code
			Detail string
			Field  string
		}
	}
}

// Ended reports whether nothing more will happen.
func (j *Job) Ended() bool { return j.Status != "queued" && j.Status != "running" }

// Err is why the job has failed or was cancelled; nil if it was not.
func (j *Job) Err() error {
	if j.Status == "cancelled" {
		return refersam.Errorf(refersam.CodeCancelled, "The job was cancelled.")
	}
	var all []error
	for _, i := range j.Items {
		if i.Problem != nil {
			all = append(all, &refersam.Error{Code: i.Problem.Code, Message: i.Problem.Detail, Field: i.Problem.Field})
		}
	}
	return errors.Join(all...)
}

// Submit has a request done as a job, once, however often it must be sent. Its
// end is told to the webhook, if that is not "". ctx is for the submitting
// alone.
func (c *Client) Submit(ctx context.Context, req *refersam.Request, webhook string) (*Job, error) {
	r, err := newCall(context.WithoutCancel(ctx), imageBody{Data: req.Image}, req, webhook)
	if err != nil {
		return nil, err
	}
	r.header.Set("Prefer", "respond-async")
	r.header.Set("Idempotency-Key", newKey())
	var j Job
	err = c.do(ctx, r, &j)
	return &j, err
}

// Job returns a job.
func (c *Client) Job(ctx context.Context, id string) (*Job, error) {
	return c.job(ctx, http.MethodGet, id, "")
}

// Cancel ends what has not ended of a job, and returns it.
func (c *Client) Cancel(ctx context.Context, id string) (*Job, error) {
	return c.job(ctx, http.MethodPost, id, "/cancel")
}

func (c *Client) job(ctx context.Context, method, id, rest string) (*Job, error) {
	var j Job
	err := c.do(ctx, call{method: method, path: "v1/jobs/" + url.PathEscape(id) + rest}, &j)
	return &j, err
}

const (
	firstPoll = 100 * time.Millisecond
	lastPoll  = 5 * time.Second
)

// Wait waits until a job has ended, and returns it.
func (c *Client) Wait(ctx context.Context, id string) (*Job, error) {
	for pause := firstPoll; ; pause = min(pause*3/2, lastPoll) {
		j, err := c.Job(ctx, id)
		if err != nil || j.Ended() {
			return j, err
		}
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Result returns what came of a job that Submit made of req.
func (c *Client) Result(ctx context.Context, id string, req *refersam.Request) (*refersam.Response, error) {
	var a answerBody
	if err := c.do(ctx, call{method: http.MethodGet, path: fmt.Sprintf("v1/jobs/%s/items/0", url.PathEscape(id))}, &a); err != nil {
		return nil, err
	}
	return a.response(req)
}

// Model is a model that the service has loaded.
type Model struct {
	Name, Variant, Version, Label, Tokenizer, Precision, Checkpoint string
	Weight, Threshold                                               float64
	ImageSize                                                       int `json:"image_size"`
	MaxTokens                                                       int `json:"max_tokens"`
}

// Models lists the models.
func (c *Client) Models(ctx context.Context) ([]Model, error) {
	var list struct{ Models []Model }
	err := c.do(ctx, call{method: http.MethodGet, path: "v1/models"}, &list)
	return list.Models, err
}
