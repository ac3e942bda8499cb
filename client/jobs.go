package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/refersam/refersam"
)

// Status says how far a job, or an item of one, is.
type Status string

// The statuses of jobs and their items.
const (
	StatusQueued    Status = "queued"
	StatusRunning   Status = "running"
	StatusSucceeded Status = "succeeded"
	StatusFailed    Status = "failed"
	StatusCancelled Status = "cancelled"
)

// Ended reports whether nothing more will happen.
func (s Status) Ended() bool { return s != StatusQueued && s != StatusRunning }

// Job is work that the service does after its request has been answered.
type Job struct {
	ID string
	// Kind is segment or batch, for the route to which the request came.
	Kind   string
	Status Status
	// RequestID is that of the request that has made the job, and of its answers.
	RequestID string    `json:"request_id"`
	CreatedAt time.Time `json:"created_at"`
	// StartedAt and FinishedAt are when the first item was begun and the last one
	// ended, ExpiresAt is when the job will be forgotten with its answers; zero as
	// long as that is not known.
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	Progress   Progress
	// Items are in the order of the request. Jobs leaves them out, and Webhook.
	Items []JobItem
	// Webhook is nil if the end is told nowhere.
	Webhook *Webhook
}

// Progress says how many items of a job have ended in which way.
type Progress struct{ Total, Succeeded, Failed, Cancelled int }

// JobItem is one picture of a job.
type JobItem struct {
	// Index is its place in the request, from 0.
	Index int
	// ID is that of the Item that it was made of.
	ID     string
	Status Status
	// Result is the path of its answer, empty unless it has succeeded.
	Result string
	// Err says why it has failed: a *refersam.Error, nil unless it has.
	Err error
}

// UnmarshalJSON reads a job as the service writes it.
func (j *Job) UnmarshalJSON(data []byte) error {
	type body Job
	if err := decode(data, (*body)(j)); err != nil {
		return err
	}
	if j.ID == "" || j.Status == "" { // what has no status would seem to have ended
		return errors.New("a job has no id or no status")
	}
	return nil
}

// UnmarshalJSON reads an item as the service writes it.
func (i *JobItem) UnmarshalJSON(data []byte) error {
	var b struct {
		Index   int
		ID      string
		Status  Status
		Result  string
		Problem *problem
	}
	if err := decode(data, &b); err != nil {
		return err
	}
	if b.Status == "" {
		return errors.New("an item has no status")
	}
	*i = JobItem{Index: b.Index, ID: b.ID, Status: b.Status, Result: b.Result}
	if b.Problem != nil {
		i.Err = b.Problem.err()
	}
	return nil
}

// Ended reports whether nothing more will happen.
func (j *Job) Ended() bool { return j.Status.Ended() }

// Err is why the job has failed or was cancelled, nil if it was not: the errors
// of its items, CodeCancelled, or both.
func (j *Job) Err() error {
	var all []error
	for i := range j.Items {
		if err := j.Items[i].Err; err != nil {
			all = append(all, fmt.Errorf("item %d: %w", j.Items[i].Index, err))
		}
	}
	switch {
	case j.Status == StatusCancelled:
		all = append(all, refersam.Errorf(refersam.CodeCancelled, "The job was cancelled."))
	case j.Status == StatusFailed && len(all) == 0:
		return refersam.Errorf(refersam.CodeItemFailed, "Of the job's items %d have failed; look at the job to see why.", j.Progress.Failed)
	}
	return errors.Join(all...)
}

// JobOptions are those of a job.
type JobOptions struct {
	RequestOptions
	// Deadline is how long from its submission the job may take, 1 ms to 24 h; a
	// day if it is 0. An item that has not succeeded by then has failed. The
	// context's deadline is not that of the job.
	Deadline time.Duration
	// Webhook is the https address to which the end of the job is told, "" for
	// none. VerifyWebhook reads what comes there.
	Webhook string
}

// Submit has up to 64 items done as a job, once, however often the request must
// be sent; WithIdempotencyKey has it done once by a program that is started
// again, too. What could never succeed is an error and makes no job. ctx is for
// the submission alone.
func (c *Client) Submit(ctx context.Context, items []Item, o JobOptions) (*Job, error) {
	// The same body at each try is what tells the service that it is the same
	// request. So it has nothing of ctx.
	b := batchBody{Items: newItemBodies(items), commonBody: newCommonBody(o.RequestOptions, o.Deadline)}
	if o.Webhook != "" {
		b.Webhook = &webhookBody{o.Webhook}
	}
	body, err := encode(b)
	if err != nil {
		return nil, err
	}
	r := segmentCall("v1/segment:batch", o.RequestOptions, constant(body))
	r.header.Set("Prefer", "respond-async")
	maps.Copy(r.header, once(ctx))
	return get[Job](ctx, c, r)
}

// Job returns a job; CodeJobNotFound if the key has none of this ID, or no
// longer.
func (c *Client) Job(ctx context.Context, id string) (*Job, error) {
	return get[Job](ctx, c, call{method: http.MethodGet, path: jobPath(id)})
}

// Jobs goes through the jobs of the key, the newest first: those of a status,
// or all if that is "". An error ends it.
func (c *Client) Jobs(ctx context.Context, status Status) iter.Seq2[*Job, error] {
	query := url.Values{}
	if status != "" {
		query.Set("status", string(status))
	}
	return list[Job](ctx, c, "v1/jobs", "jobs", query)
}

// Cancel ends what has not ended of a job, and returns it.
func (c *Client) Cancel(ctx context.Context, id string) (*Job, error) {
	return get[Job](ctx, c, call{method: http.MethodPost, path: jobPath(id) + "/cancel"})
}

// DeleteJob cancels a job and has it forgotten with its answers;
// CodeJobNotFound if the key has none of this ID.
func (c *Client) DeleteJob(ctx context.Context, id string) error {
	return c.delete(ctx, jobPath(id))
}

const (
	firstPoll = 100 * time.Millisecond
	lastPoll  = 5 * time.Second
)

// Wait waits until a job has ended, and returns it; that the job has failed is
// no error of Wait, but of its Err. progress, if it is not nil, is called with
// the job as it is at first and whenever its status or Progress has changed. It
// looks at most every 100 ms and at least every 5 s. With an error comes the job
// as it was seen last, nil if it was not.
func (c *Client) Wait(ctx context.Context, id string, progress func(*Job)) (*Job, error) {
	var last *Job
	for pause := firstPoll; ; pause = min(pause*3/2, lastPoll) {
		j, err := c.Job(ctx, id)
		if err != nil {
			return last, err
		}
		if progress != nil && (last == nil || last.Status != j.Status || last.Progress != j.Progress) {
			progress(j)
		}
		last = j
		if j.Ended() {
			return j, nil
		}
		if err := sleep(ctx, pause, nil); err != nil {
			return j, err
		}
	}
}

func jobPath(id string) string { return "v1/jobs/" + url.PathEscape(id) }
