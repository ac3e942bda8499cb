package api

import "time"

// JobStatus is how far a job or an item is.
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

// The kinds of jobs: the route that made the job, whatever its number of items.
const (
	JobKindSegment = "segment"
	JobKindBatch   = "batch"
)

// Job is work that is done after its request has been answered.
type Job struct {
	_          struct{}    `doc:"Work that is done after its request has been answered."`
	ID         string      `json:"id" doc:"Its id"`
	Kind       string      `json:"kind" enum:"segment,batch" doc:"'segment' from '/v1/segment', 'batch' from '/v1/segment:batch', whatever the number of items"`
	Status     JobStatus   `json:"status" enum:"queued,running,succeeded,failed,cancelled" doc:"'failed' if an item has failed, 'succeeded' if all have succeeded"`
	RequestID  string      `json:"request_id" doc:"That of the request that made it, which its answers and problems have too"`
	CreatedAt  time.Time   `json:"created_at" doc:"When it was submitted"`
	StartedAt  *time.Time  `json:"started_at,omitempty" doc:"When the first item was begun"`
	FinishedAt *time.Time  `json:"finished_at,omitempty" doc:"When the last item ended"`
	ExpiresAt  *time.Time  `json:"expires_at,omitempty" doc:"When it is forgotten, with its results, but not before its end has been told; known once it has ended"`
	Progress   JobProgress `json:"progress" doc:"How many items have ended in which way"`
	Items      []JobItem   `json:"items,omitempty" doc:"The items; not in lists"`
	Webhook    *Webhook    `json:"webhook,omitempty" doc:"What came of telling its end; not in lists"`
}

// JobProgress counts the items of a job.
type JobProgress struct {
	_         struct{} `doc:"How many items have ended in which way."`
	Total     int      `json:"total" doc:"All items"`
	Succeeded int      `json:"succeeded" doc:"Items with an answer"`
	Failed    int      `json:"failed" doc:"Items with a problem"`
	Cancelled int      `json:"cancelled" doc:"Items that were cancelled before they ended"`
}

// JobItem is one picture of a job. Result is the path of its answer.
type JobItem struct {
	_       struct{}  `doc:"One picture of a job."`
	Index   int       `json:"index" doc:"Its place in the request, from 0"`
	ID      string    `json:"id,omitempty" doc:"The 'id' of the item, if it had one"`
	Status  JobStatus `json:"status" enum:"queued,running,succeeded,failed,cancelled" doc:"How far it is"`
	Result  string    `json:"result,omitempty" doc:"Where its answer is"`
	Problem *Problem  `json:"problem,omitempty" doc:"Why it has failed"`
}

// Jobs is a page of GET /v1/jobs.
type Jobs struct {
	_    struct{} `doc:"A page of jobs, the newest first."`
	Jobs []Job    `json:"jobs" doc:"The jobs"`
	Next string   `json:"next,omitempty" doc:"What to give as 'cursor' for the next page; absent on the last one"`
}

// JobEvent is the data of the event "job": the job has another status.
type JobEvent struct {
	Job    string    `json:"job"`
	Status JobStatus `json:"status"`
}

// Webhook is the delivery of a job's end.
type Webhook struct {
	_             struct{}   `doc:"The telling of a job's end."`
	URL           string     `json:"url" doc:"Where it is told"`
	Status        string     `json:"status" enum:"pending,delivered,failed" doc:"'failed' when it was given up"`
	Attempts      int        `json:"attempts" doc:"How often it was tried; counted anew from when a client has it told again"`
	LastAttemptAt *time.Time `json:"last_attempt_at,omitempty" doc:"When it was last tried"`
	LastError     string     `json:"last_error,omitempty" doc:"Why that did not succeed"`
}

// WebhookJobFinished is the type of the message about the end of a job.
const WebhookJobFinished = "job.finished"

// WebhookMessage is the body of a webhook. Its job has no Webhook.
type WebhookMessage struct {
	_         struct{}  `doc:"What a webhook tells."`
	Type      string    `json:"type" enum:"job.finished" doc:"What has happened"`
	Timestamp time.Time `json:"timestamp" doc:"When it has happened"`
	Data      Job       `json:"data" doc:"The job, with its items and without its webhook"`
}

// WebhookSecret is the secret that webhooks of a key are signed with.
type WebhookSecret struct {
	_             struct{}   `doc:"What webhooks of an API key are signed with."`
	Secret        string     `json:"secret" doc:"For a verifier of Standard Webhooks"`
	PreviousUntil *time.Time `json:"previous_until,omitempty" doc:"Until when they are signed with the secret before the rotation, too"`
}
