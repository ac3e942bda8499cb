package jobs

import "context"

// Job returns a job of an API key with its items and its webhook.
func (e *Engine) Job(ctx context.Context, apiKey, id string) (*Job, error) {
	return e.state.Job(ctx, apiKey, id, e.now())
}

// Item returns an item of a job of an API key.
func (e *Engine) Item(ctx context.Context, apiKey, id string, index int) (*Item, error) {
	return e.state.JobItem(ctx, apiKey, id, index, e.now())
}

// Jobs returns at most limit jobs of an API key without items and webhooks, the
// newest first. The list starts with the jobs older than after, or with the
// newest job if after is nil. An empty status selects all jobs.
func (e *Engine) Jobs(ctx context.Context, apiKey string, after *Job, status Status, limit int) ([]*Job, error) {
	return e.state.Jobs(ctx, apiKey, after, status, limit, e.now())
}

// Events returns at most limit events of a job in order, beginning after the
// event with the number after.
func (e *Engine) Events(ctx context.Context, id string, after int64, limit int) ([]Event, error) {
	return e.state.JobEvents(ctx, id, after, limit)
}

// Backlog counts the unfinished work of all API keys.
func (e *Engine) Backlog(ctx context.Context) (Backlog, error) { return e.state.JobBacklog(ctx) }
