package api

import "time"

// JobStatus is the state of a job or an item.
type JobStatus string

// The states of a job.
const (
	JobQueued    JobStatus = "queued"
	JobRunning   JobStatus = "running"
	JobSucceeded JobStatus = "succeeded"
	JobFailed    JobStatus = "failed"
	JobCancelled JobStatus = "cancelled"
)

// Ended reports whether the status never changes again.
func (s JobStatus) Ended() bool { return s != JobQueued && s != JobRunning }

// The kinds of jobs: the route that created the job, whatever its number of items.
const (
	JobKindSegment = "segment"
	JobKindBatch   = "batch"
)

// Job is work that the service does after it has answered the request.
type Job struct {
	_          struct{}    `doc:"Work that the service does after it has answered the request."`
	ID         string      `json:"id" doc:"Its id"`
	Kind       string      `json:"kind" enum:"segment,batch" doc:"'segment' from '/v1/segment', 'batch' from '/v1/segment:batch', whatever the number of items"`
	Status     JobStatus   `json:"status" enum:"queued,running,succeeded,failed,cancelled" doc:"'failed' if an item has failed, 'succeeded' if all have succeeded"`
	RequestID  string      `json:"request_id" doc:"The id of the request that created the job; its answers and problems have the same"`
	CreatedAt  time.Time   `json:"created_at" doc:"When it was submitted"`
	StartedAt  *time.Time  `json:"started_at,omitempty" doc:"When the first item began"`
	FinishedAt *time.Time  `json:"finished_at,omitempty" doc:"When the last item ended"`
	ExpiresAt  *time.Time  `json:"expires_at,omitempty" doc:"When the job and its results are deleted. Set once the job has ended; delayed while a webhook is pending"`
	Progress   JobProgress `json:"progress" doc:"How many items have which status"`
	Items      []JobItem   `json:"items,omitempty" doc:"The items; not in lists"`
	Webhook    *Webhook    `json:"webhook,omitempty" doc:"The delivery of the job's webhook; not in lists"`
}

// JobProgress counts the items of a job.
type JobProgress struct {
	_         struct{} `doc:"How many items have which status."`
	Total     int      `json:"total" doc:"All items"`
	Succeeded int      `json:"succeeded" doc:"Items with an answer"`
	Failed    int      `json:"failed" doc:"Items with a problem"`
	Cancelled int      `json:"cancelled" doc:"Items that were cancelled before they ended"`
}

// JobItem is one picture of a job. Result is the path of its answer.
type JobItem struct {
	_       struct{}  `doc:"One picture of a job."`
	Index   int       `json:"index" doc:"The place of the item in the request, from 0"`
	ID      string    `json:"id,omitempty" doc:"The 'id' of the item, if it had one"`
	Status  JobStatus `json:"status" enum:"queued,running,succeeded,failed,cancelled" doc:"The state of the item"`
	Result  string    `json:"result,omitempty" doc:"The path of the item's answer"`
	Problem *Problem  `json:"problem,omitempty" doc:"Why the item failed"`
}

// Jobs is a page of GET /v1/jobs.
type Jobs struct {
	_    struct{} `doc:"A page of jobs, the newest first."`
	Jobs []Job    `json:"jobs" doc:"The jobs"`
	Next string   `json:"next,omitempty" doc:"The 'cursor' of the next page; absent on the last page"`
}

// JobEvent is the data of the event "job": the job has a new status.
type JobEvent struct {
	Job    string    `json:"job"`
	Status JobStatus `json:"status"`
}

// Webhook is the delivery of a job's end.
type Webhook struct {
	_             struct{}   `doc:"The delivery of a job's end to a webhook."`
	URL           string     `json:"url" doc:"The address of the webhook"`
	Status        string     `json:"status" enum:"pending,delivered,failed" doc:"'failed' when the service has given up"`
	Attempts      int        `json:"attempts" doc:"The number of attempts; starts again from 0 when a client asks for another delivery"`
	LastAttemptAt *time.Time `json:"last_attempt_at,omitempty" doc:"When the last attempt was made"`
	LastError     string     `json:"last_error,omitempty" doc:"Why the last attempt failed"`
}

// WebhookJobFinished is the type of the message about the end of a job.
const WebhookJobFinished = "job.finished"

// WebhookMessage is the body of a webhook. Its job has no Webhook.
type WebhookMessage struct {
	_         struct{}  `doc:"The message that a webhook receives."`
	Type      string    `json:"type" enum:"job.finished" doc:"What has happened"`
	Timestamp time.Time `json:"timestamp" doc:"When it has happened"`
	Data      Job       `json:"data" doc:"The job, with its items and without its webhook"`
}

// WebhookSecret is the secret that signs the webhooks of an API key.
type WebhookSecret struct {
	_             struct{}   `doc:"The secret that signs the webhooks of an API key."`
	Secret        string     `json:"secret" doc:"The secret, in the form of Standard Webhooks"`
	PreviousUntil *time.Time `json:"previous_until,omitempty" doc:"Until when webhooks are also signed with the secret before the rotation"`
}
