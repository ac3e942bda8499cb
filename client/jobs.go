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
	"github.com/refersam/refersam/api"
)

// Status is the state of a job or of one of its items.
type Status = api.JobStatus

// The statuses of jobs and their items.
const (
	StatusQueued    = api.JobQueued
	StatusRunning   = api.JobRunning
	StatusSucceeded = api.JobSucceeded
	StatusFailed    = api.JobFailed
	StatusCancelled = api.JobCancelled
)

// Job is work that the service does after it has answered the request.
type Job struct {
	ID string
	// Kind is segment or batch, after the route that accepted the job.
	Kind   string
	Status Status
	// RequestID is the id of the request that created the job. The job's answers
	// have the same RequestID.
	RequestID string
	CreatedAt time.Time
	// StartedAt is when the first item began, FinishedAt when the last item ended,
	// and ExpiresAt when the service deletes the job and its answers. Each is zero
	// until it is known.
	StartedAt  time.Time
	FinishedAt time.Time
	ExpiresAt  time.Time
	Progress   Progress
	// Items are in the order of the request. Jobs returns no Items and no Webhook.
	Items []JobItem
	// Webhook is nil if the job has no webhook.
	Webhook *Webhook
}

// Progress counts the items of a job by status.
type Progress = api.JobProgress

// JobItem is one picture of a job.
type JobItem struct {
	// Index is its place in the request, from 0.
	Index int
	// ID is the ID of the Item in the request.
	ID     string
	Status Status
	// Result is the path of its answer; empty unless it has succeeded.
	Result string
	// Err is why the item failed: a *refersam.Error, or nil if it has not failed.
	Err error
}

// UnmarshalJSON reads a job as the service writes it.
func (j *Job) UnmarshalJSON(data []byte) error {
	var b api.Job
	if err := decode(data, &b); err != nil {
		return err
	}
	if b.ID == "" || b.Status == "" { // a job without a status would seem to have ended
		return errors.New("the job has no id or no status")
	}
	*j = Job{
		ID: b.ID, Kind: b.Kind, Status: b.Status, RequestID: b.RequestID, CreatedAt: b.CreatedAt,
		StartedAt: timeOf(b.StartedAt), FinishedAt: timeOf(b.FinishedAt), ExpiresAt: timeOf(b.ExpiresAt), Progress: b.Progress,
	}
	for i := range b.Items {
		item, err := newJobItem(&b.Items[i])
		if err != nil {
			return err
		}
		j.Items = append(j.Items, item)
	}
	if w := b.Webhook; w != nil {
		j.Webhook = &Webhook{URL: w.URL, Status: w.Status, Attempts: w.Attempts, LastAttemptAt: timeOf(w.LastAttemptAt), LastError: w.LastError}
	}
	return nil
}

// UnmarshalJSON reads an item as the service writes it.
func (i *JobItem) UnmarshalJSON(data []byte) error {
	var b api.JobItem
	err := decode(data, &b)
	if err == nil {
		*i, err = newJobItem(&b)
	}
	return err
}

func newJobItem(b *api.JobItem) (JobItem, error) {
	if b.Status == "" {
		return JobItem{}, errors.New("the job's item has no status")
	}
	i := JobItem{Index: b.Index, ID: b.ID, Status: b.Status, Result: b.Result}
	if b.Problem != nil {
		i.Err = problem(b.Problem)
	}
	return i, nil
}

// timeOf returns the zero time for nil.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// Ended reports whether the status is final.
func (j *Job) Ended() bool { return j.Status.Ended() }

// Err is why the job failed or was cancelled: the errors of its items,
// CodeCancelled, or both. It is nil if the job neither failed nor was cancelled.
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
		return refersam.Errorf(refersam.CodeItemFailed, "%d of the job's items have failed; Job returns the reason of each.", j.Progress.Failed)
	}
	return errors.Join(all...)
}

// JobOptions are the options of a job.
type JobOptions struct {
	RequestOptions
	// Deadline is how long the job may take from its submission, 1 ms to 24 h; 0 is
	// 24 h. An item that has not succeeded by then fails. The context's deadline
	// does not apply to the job.
	Deadline time.Duration
	// Webhook is the https address that receives a report of the job's end;
	// "" is none. VerifyWebhook reads these requests.
	Webhook string
}

// Submit creates a job of up to 64 items. However often the request must be sent,
// it creates one job; with WithIdempotencyKey this also holds for a program that is
// restarted. A request that could never succeed is an error and creates no job. ctx
// bounds only the submission.
func (c *Client) Submit(ctx context.Context, items []Item, o JobOptions) (*Job, error) {
	// The service recognises a repeated request by its body, so the body must be
	// the same at each try. Therefore it contains nothing that depends on ctx.
	b := api.BatchRequest{Items: newItems(items), Common: newCommon(o.RequestOptions, o.Deadline)}
	if o.Webhook != "" {
		b.Webhook = &api.WebhookTarget{URL: o.Webhook}
	}
	body, err := encode(b)
	if err != nil {
		return nil, err
	}
	r := segmentCall("v1/segment:batch", o.RequestOptions, constant(body))
	r.header.Set("Prefer", "respond-async")
	maps.Copy(r.header, idempotencyHeader(ctx))
	return get[Job](ctx, c, r)
}

// Job returns a job; CodeJobNotFound if the key has no job with this ID, or it has
// expired.
func (c *Client) Job(ctx context.Context, id string) (*Job, error) {
	return get[Job](ctx, c, call{method: http.MethodGet, path: jobPath(id)})
}

// Jobs yields the jobs of the key, newest first: jobs with the given status, or all
// if it is "". The sequence stops after an error.
func (c *Client) Jobs(ctx context.Context, status Status) iter.Seq2[*Job, error] {
	query := url.Values{}
	if status != "" {
		query.Set("status", string(status))
	}
	return list[Job](ctx, c, "v1/jobs", "jobs", query)
}

// Cancel cancels the items of a job that have not ended, and returns the job.
func (c *Client) Cancel(ctx context.Context, id string) (*Job, error) {
	return get[Job](ctx, c, call{method: http.MethodPost, path: jobPath(id) + "/cancel"})
}

// DeleteJob cancels a job and deletes it with its answers; CodeJobNotFound if the
// key has no job with this ID.
func (c *Client) DeleteJob(ctx context.Context, id string) error {
	return c.delete(ctx, jobPath(id))
}

const (
	firstPoll = 100 * time.Millisecond
	lastPoll  = 5 * time.Second
)

// Wait blocks until a job has ended, and returns it. If the job has failed, Wait
// returns no error; the job's Err does. If progress is not nil, Wait calls it with
// the job at first and whenever the job's status or Progress has changed. Wait asks
// the service at most every 100 ms and at least every 5 s. If Wait returns an
// error, it also returns the last job that it received, or nil.
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
