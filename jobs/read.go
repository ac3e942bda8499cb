package jobs

import (
	"context"
	"time"

	"github.com/refersam/refersam/store"
)

// reader reads jobs that any process may have accepted.
type reader struct {
	state *store.Store
	now   func() time.Time
}

// Job returns a job of an API key with its items and its webhook.
func (r *reader) Job(ctx context.Context, apiKey, id string) (*Job, error) {
	return r.state.Job(ctx, apiKey, id, r.now())
}

// Item returns an item of a job of an API key.
func (r *reader) Item(ctx context.Context, apiKey, id string, index int) (*Item, error) {
	return r.state.JobItem(ctx, apiKey, id, index, r.now())
}

// Jobs returns at most limit jobs of an API key without items and webhooks, the
// newest first. The list starts with the jobs older than after, or with the
// newest job if after is nil. An empty status selects all jobs.
func (r *reader) Jobs(ctx context.Context, apiKey string, after *Job, status Status, limit int) ([]*Job, error) {
	return r.state.Jobs(ctx, apiKey, after, status, limit, r.now())
}

// Events returns at most limit events of a job in order, beginning after the
// event with the number after.
func (r *reader) Events(ctx context.Context, id string, after int64, limit int) ([]Event, error) {
	return r.state.JobEvents(ctx, id, after, limit)
}

// Backlog counts the unfinished work of all API keys.
func (r *reader) Backlog(ctx context.Context) (Backlog, error) { return r.state.JobBacklog(ctx) }
