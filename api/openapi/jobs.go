package openapi

import (
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

func (d *description) describeJobs() {
	notFound := refuses(refersam.CodeJobNotFound)
	d.addGuarded(http.MethodGet, "/v1/jobs", "jobs", "listJobs", "List the jobs of the API key", &huma.Operation{
		Description: "Newest first, without their items.",
		Parameters: []*huma.Param{limitParam(), cursorParam(api.ListJobs, exampleJob(false).CreatedAt, exampleJob(false).ID), {
			Name: "status", In: "query", Description: "Only jobs with this status", Example: "running",
			Schema: &huma.Schema{Type: huma.TypeString, Enum: statuses()},
		}},
	}, d.json(api.Jobs{}, "A page of jobs", api.Jobs{Jobs: []api.Job{exampleJob(false)}}))
	d.addGuarded(http.MethodGet, "/v1/jobs/{id}", "jobs", "getJob", "Describe a job", &huma.Operation{
		Parameters: []*huma.Param{jobIDParam()},
	}, d.json(api.Job{}, "The job", exampleJob(true)), notFound)
	d.addGuarded(http.MethodDelete, "/v1/jobs/{id}", "jobs", "deleteJob", "Delete a job and its results", &huma.Operation{
		Description: "A job that has not ended is cancelled.",
		Parameters:  []*huma.Param{jobIDParam()},
	}, answered{http.StatusNoContent, "The job is deleted", nil, nil}, notFound)
	d.addGuarded(http.MethodPost, "/v1/jobs/{id}/cancel", "jobs", "cancelJob", "Cancel a job", &huma.Operation{
		Description: "Items that have not ended are cancelled; the others stay as they are. Cancelling again changes nothing.",
		Parameters:  []*huma.Param{jobIDParam()},
	}, d.json(api.Job{}, "The job", exampleJob(true)), notFound)
	d.addGuarded(http.MethodGet, "/v1/jobs/{id}/items/{index}", "jobs", "getJobResult", "Get the answer of a job's item", &huma.Operation{
		Description: "The answer that the request would have received without a job, in the form that its `Accept` chose.",
		Parameters: []*huma.Param{jobIDParam(), {
			Name: "index", In: "path", Required: true, Description: "The index of the item, from 0", Schema: &huma.Schema{Type: huma.TypeString}, Example: "0",
		}, ifNoneMatchParam()},
	},
		answered{http.StatusOK, "The answer", map[string]*huma.MediaType{
			api.MediaJSON: d.media(api.Answer{}, exampleAnswer()), api.MediaPNG: binaryMedia(), api.MediaZip: binaryMedia(), api.MediaMixed: binaryMedia(),
		}, itemHeaders()},
		answered{http.StatusNotModified, "The client has the answer already, according to its If-None-Match", nil, nil},
		notFound, refuses(refersam.CodeUnfinished, refersam.CodeCancelled, refersam.CodeItemFailed, refersam.CodeOverloaded),
	)
	d.addGuarded(http.MethodGet, "/v1/jobs/{id}/events", "jobs", "followJob", "Follow a job", &huma.Operation{
		Description: "Server-sent events, numbered from 1: `job` with `job` and `status` when the job's status changes, `item` with an entry of a job's `items` when an item has ended. " +
			"The stream ends with the job. A client that was cut off sends the number of its last event and gets the later events.",
		Parameters: []*huma.Param{
			jobIDParam(),
			{Name: api.HeaderEventID, In: "header", Description: "The number of the last event that the client has", Schema: &huma.Schema{Type: huma.TypeString, Pattern: `^[0-9]+$`}, Example: "3"},
			{Name: "last_event_id", In: "query", Description: "The number of the last event that the client has, for clients that cannot send headers", Schema: eventNumberSchema(), Example: 3},
		},
	}, answered{http.StatusOK, "The events", map[string]*huma.MediaType{
		api.MediaEvents: {Example: "id: 4\nevent: item\ndata: {\"index\":0,\"status\":\"succeeded\",\"result\":\"/v1/jobs/job_…/items/0\"}\n\n"},
	}, nil},
		answered{http.StatusNoContent, "The job has ended, and the client has all its events", nil, nil},
		notFound, refuses(refersam.CodeOverloaded))
	d.addGuarded(http.MethodPost, "/v1/jobs/{id}/webhook/redeliver", "jobs", "redeliverWebhook", "Deliver the webhook of a job again", &huma.Operation{
		Parameters: []*huma.Param{jobIDParam(), idempotencyKeyParam()},
	}, answered{http.StatusAccepted, "The job; its webhook will be delivered again", map[string]*huma.MediaType{api.MediaJSON: d.media(api.Job{}, exampleJob(true))}, nil},
		notFound, refuses(refersam.CodeUnfinished, refersam.CodeNotFound), refusesAgain())
	d.addGuarded(http.MethodGet, "/v1/webhooks/secret", "jobs", "getWebhookSecret", "Get the secret that signs webhooks", &huma.Operation{
		Description: "One secret per API key, for webhooks in the form of Standard Webhooks (standardwebhooks.com).",
	}, d.json(api.WebhookSecret{}, "The secret", exampleSecret()))
	d.addGuarded(http.MethodPost, "/v1/webhooks/secret/rotate", "jobs", "rotateWebhookSecret", "Replace the secret that signs webhooks", &huma.Operation{
		Description: "For a day, webhooks are also signed with the previous secret.",
		Parameters:  []*huma.Param{idempotencyKeyParam()},
	}, d.json(api.WebhookSecret{}, "The new secret", exampleSecret()), refusesAgain())
	d.document.Webhooks = map[string]*huma.PathItem{api.WebhookJobFinished: {Post: &huma.Operation{
		OperationID: "jobFinished", Summary: "A job has ended", Tags: []string{"jobs"}, Security: []map[string][]string{},
		Description: "Sent to the `webhook` of a job, in the form of Standard Webhooks (standardwebhooks.com), until the answer is 2xx. The same message may arrive more than once, with the same id.",
		Parameters: []*huma.Param{
			webhookHeader("webhook-id", "The id of the message", "msg_k3v5q7x2m4n6b8c1z9d7f5g3hj"),
			webhookHeader("webhook-timestamp", "When it was sent, in seconds since 1970", "1795341603"),
			webhookHeader("webhook-signature", "One signature or, for a day after the secret was rotated, two", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{api.MediaJSON: d.media(api.WebhookMessage{}, exampleMessage())}},
		Responses: map[string]*huma.Response{
			"2XX":     {Description: "The message was received"},
			"410":     {Description: "The webhook no longer exists: the service does not try again"},
			"default": {Description: "The service tries again later"},
		},
	}}}
}

// itemHeaders are the headers of maskHeaders that are stored with an item's answer.
func itemHeaders() map[string]*huma.Param {
	headers := maskHeaders()
	delete(headers, "Server-Timing")
	return headers
}

func webhookHeader(name, description, example string) *huma.Param {
	return &huma.Param{Name: name, In: "header", Required: true, Description: description, Schema: &huma.Schema{Type: huma.TypeString}, Example: example}
}

func exampleMessage() api.WebhookMessage {
	j := exampleJob(true)
	j.Webhook = nil
	return api.WebhookMessage{Type: api.WebhookJobFinished, Timestamp: *j.FinishedAt, Data: j}
}

func eventNumberSchema() *huma.Schema {
	low, high := 0.0, float64(api.MaxEvent)
	return &huma.Schema{Type: huma.TypeInteger, Minimum: &low, Maximum: &high}
}

// refusesAgain are the problems of an Idempotency-Key. Such a request is held in
// memory.
func refusesAgain() answered {
	return refuses(refersam.CodeUnderWay, refersam.CodeKeyReused, refersam.CodeOverloaded)
}

// accepted is the answer to a request that prefers a job.
func (d *description) accepted() answered {
	return answered{http.StatusAccepted, "The job that will answer, because of `Prefer: respond-async`", map[string]*huma.MediaType{api.MediaJSON: d.media(api.Job{}, exampleJob(true))},
		map[string]*huma.Param{"Location": header("The path of the job", huma.TypeString), api.HeaderApplied: header("`respond-async`", huma.TypeString)}}
}

func preferParam() *huma.Param {
	return &huma.Param{
		Name: api.HeaderPrefer, In: "header", Example: api.PreferAsync,
		Description: "`respond-async` creates a job; fetch its answer later",
		Schema:      &huma.Schema{Type: huma.TypeString},
	}
}

func jobIDParam() *huma.Param {
	return &huma.Param{Name: "id", In: "path", Required: true, Description: "The id of the job", Schema: &huma.Schema{Type: huma.TypeString}, Example: exampleJob(false).ID}
}

func statuses() []any {
	return enum(api.JobQueued, api.JobRunning, api.JobSucceeded, api.JobFailed, api.JobCancelled)
}

func exampleJob(whole bool) api.Job {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	after := func(d time.Duration) *time.Time { t := at.Add(d); return &t }
	j := api.Job{
		ID: "job_k3v5q7x2m4n6b8c1z9d7f5g3hj", Kind: api.JobKindBatch, Status: api.JobFailed, RequestID: exampleID,
		CreatedAt: at, StartedAt: after(time.Second), FinishedAt: after(2 * time.Second), ExpiresAt: after(24 * time.Hour),
		Progress: api.JobProgress{Total: 2, Succeeded: 1, Failed: 1},
	}
	if whole {
		refused := exampleProblem(refersam.CodeInvalidImage)
		j.Items = []api.JobItem{
			{Index: 0, ID: "first", Status: api.JobSucceeded, Result: "/v1/jobs/" + j.ID + "/items/0"},
			{Index: 1, Status: api.JobFailed, Problem: &refused},
		}
		j.Webhook = &api.Webhook{URL: "https://example.com/hook", Status: "delivered", Attempts: 1, LastAttemptAt: after(3 * time.Second)}
	}
	return j
}

func exampleSecret() api.WebhookSecret {
	until := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	return api.WebhookSecret{Secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", PreviousUntil: &until}
}
