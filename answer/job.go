package answer

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/jobs"
)

// NewJob describes a job to its client.
func NewJob(j *jobs.Job) api.Job {
	a := api.Job{
		ID: j.ID, Kind: j.Kind, Status: api.JobStatus(j.Status), RequestID: j.RequestID,
		CreatedAt: j.Created, StartedAt: TimeOrNil(j.Started), FinishedAt: TimeOrNil(j.Finished), ExpiresAt: TimeOrNil(j.Expires),
		Progress: api.JobProgress{Total: j.Total, Succeeded: j.Succeeded, Failed: j.Failed, Cancelled: j.Cancelled},
	}
	for i := range j.Items {
		a.Items = append(a.Items, NewJobItem(j, &j.Items[i]))
	}
	if w := j.Webhook; w != nil {
		a.Webhook = &api.Webhook{URL: w.URL, Status: string(w.Status), Attempts: w.Attempts, LastAttemptAt: TimeOrNil(w.Tried), LastError: api.Showable(w.LastError)}
	}
	return a
}

// NewJobItem describes an item of a job to the job's client.
func NewJobItem(j *jobs.Job, i *jobs.Item) api.JobItem {
	a := api.JobItem{Index: i.Index, ID: i.ID, Status: api.JobStatus(i.Status)}
	if i.Status == jobs.Succeeded {
		a.Result = fmt.Sprintf("/v1/jobs/%s/items/%d", j.ID, i.Index)
	}
	if i.Problem != nil {
		p, _ := api.NewProblem(i.Problem.Err(), j.RequestID)
		a.Problem = &p
	}
	return a
}

// WebhookPayload is the jobs.Payload of the service.
func WebhookPayload(j *jobs.Job) ([]byte, error) {
	a := NewJob(j)
	a.Webhook = nil // the webhook is not part of its own message
	return json.Marshal(api.WebhookMessage{Type: api.WebhookJobFinished, Timestamp: j.Finished, Data: a}, json.Deterministic(true))
}

// TimeOrNil returns nil for the zero time.
func TimeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
