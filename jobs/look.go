package jobs

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"time"

	"github.com/refersam/refersam/store"
)

// ErrNotFound says that a key has no such job, or a job no such item.
var ErrNotFound = store.ErrNotFound

const jobColumns = `id, api_key, request_id, kind, status, total, succeeded, failed, cancelled, seq, created_us, started_us, finished_us, expires_us`

func scanJob(row interface{ Scan(...any) error }) (*Job, error) {
	var (
		j                                   Job
		created, started, finished, expires int64
	)
	err := row.Scan(&j.ID, &j.APIKey, &j.RequestID, &j.Kind, &j.Status, &j.Total, &j.Succeeded, &j.Failed, &j.Cancelled, &j.Seq, &created, &started, &finished, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	j.Created, j.Started, j.Finished, j.Expires = fromMicros(created), fromMicros(started), fromMicros(finished), fromMicros(expires)
	return &j, nil
}

// lock keeps others from changing a job until tx ends. Whoever changes items
// locks their job first: two who did so in another order could wait for each
// other. It is ErrNotFound if there is no such job.
func lock(ctx context.Context, tx *sql.Tx, id string) error {
	return locked(tx.ExecContext(ctx, `UPDATE jobs SET seq = seq WHERE id = $1`, id))
}

// there is what an SQL condition says of jobs that have not expired by $3: those
// whose end is still to be told are there until it is.
const there = `(expires_us = 0 OR expires_us > $3 OR EXISTS (SELECT 1 FROM job_webhooks w WHERE w.job = jobs.id AND w.status = 'pending'))`

// lockOwn is lock for a job that must be a key's, and not have expired.
func lockOwn(ctx context.Context, tx *sql.Tx, apiKey, id string) error {
	return locked(tx.ExecContext(ctx, `UPDATE jobs SET seq = seq WHERE api_key = $1 AND id = $2 AND `+there, apiKey, id, micros(time.Now())))
}

func locked(result sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// Job returns a job of a key, with its items and its webhook.
func (e *Engine) Job(ctx context.Context, apiKey, id string) (*Job, error) {
	db := e.state.Reader()
	j, err := scanJob(db.QueryRowContext(ctx, `SELECT `+jobColumns+` FROM jobs WHERE api_key = $1 AND id = $2 AND `+there, apiKey, id, micros(time.Now())))
	if err != nil {
		return nil, err
	}
	if j.Items, err = e.items(ctx, id, -1); err != nil {
		return nil, err
	}
	j.Webhook, err = e.webhook(ctx, id)
	return j, err
}

// Item returns an item of a key's job.
func (e *Engine) Item(ctx context.Context, apiKey, id string, index int) (*Item, error) {
	var one int
	err := e.state.Reader().QueryRowContext(ctx, `SELECT 1 FROM jobs WHERE api_key = $1 AND id = $2 AND `+there, apiKey, id, micros(time.Now())).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	items, err := e.items(ctx, id, index)
	if err == nil && len(items) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &items[0], nil
}

// items returns an item of a job, or all for a negative index.
func (e *Engine) items(ctx context.Context, id string, index int) ([]Item, error) {
	rows, err := e.state.Reader().QueryContext(ctx, `SELECT item, client_id, status, COALESCE(result, ''),
		COALESCE((SELECT bytes FROM blobs WHERE name = result), 0), header, problem FROM job_items
		WHERE job = $1 AND ($2 < 0 OR item = $2) ORDER BY item`, id, index)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var items []Item
	for rows.Next() {
		var i Item
		var problem []byte
		if err := rows.Scan(&i.Index, &i.ID, &i.Status, &i.Blob, &i.Bytes, &i.Header, &problem); err != nil {
			return nil, err
		}
		if problem != nil {
			if err := json.Unmarshal(problem, &i.Problem); err != nil {
				return nil, err
			}
		}
		items = append(items, i)
	}
	return items, rows.Err()
}

// Jobs returns at most limit jobs of a key, without items, the newest first:
// those after a job in that order, or from the beginning if after is nil; only
// those of a status unless it is "".
func (e *Engine) Jobs(ctx context.Context, apiKey string, after *Job, status Status, limit int) ([]*Job, error) {
	created, id := int64(1)<<62, ""
	if after != nil {
		created, id = micros(after.Created), after.ID
	}
	rows, err := e.state.Reader().QueryContext(ctx, `SELECT `+jobColumns+` FROM jobs
		WHERE api_key = $1 AND ($2 = '' OR status = $2) AND `+there+` AND (created_us < $4 OR created_us = $4 AND id < $5)
		ORDER BY created_us DESC, id DESC LIMIT $6`, apiKey, string(status), micros(time.Now()), created, id, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var jobs []*Job
	for rows.Next() {
		j, err := scanJob(rows)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	return jobs, rows.Err()
}

// ofJob is the item of an event that is about the whole job.
const ofJob = -1

// Event tells that a job or one of its items has got another status.
type Event struct {
	// Seq numbers the events of a job from 1, without gaps.
	Seq int64
	// Item is the index of the item, negative for the job.
	Item   int
	Status Status
}

func addEvent(ctx context.Context, tx *sql.Tx, id string, seq int64, item int, status Status) error {
	kind := "item"
	if item == ofJob {
		kind = "job"
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO job_events (job, seq, kind, item, status) VALUES ($1, $2, $3, $4, $5)`, id, seq, kind, item, status)
	return err
}

// Events returns at most limit events of a job after one, in their order.
func (e *Engine) Events(ctx context.Context, id string, after int64, limit int) ([]Event, error) {
	rows, err := e.state.Reader().QueryContext(ctx, `SELECT seq, item, status FROM job_events WHERE job = $1 AND seq > $2 ORDER BY seq LIMIT $3`, id, after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		var ev Event
		if err := rows.Scan(&ev.Seq, &ev.Item, &ev.Status); err != nil {
			return nil, err
		}
		events = append(events, ev)
	}
	return events, rows.Err()
}

// Backlog is what is to be done for all keys.
type Backlog struct {
	// Items counts those that have not ended, by status, and Webhooks all that
	// are known, by theirs.
	Items    map[Status]int64
	Webhooks map[WebhookStatus]int64
	// Oldest is when the oldest job was submitted of which nothing has been
	// begun; zero if there is none.
	Oldest time.Time
}

// Backlog counts what is to be done.
func (e *Engine) Backlog(ctx context.Context) (Backlog, error) {
	b := Backlog{Items: map[Status]int64{Queued: 0, Running: 0}, Webhooks: map[WebhookStatus]int64{Pending: 0, Delivered: 0, GivenUp: 0}}
	items, err := count[Status](ctx, e.state.Reader(), `SELECT status, COUNT(*) FROM job_items WHERE status IN ('queued', 'running') GROUP BY status`)
	if err != nil {
		return b, err
	}
	webhooks, err := count[WebhookStatus](ctx, e.state.Reader(), `SELECT status, COUNT(*) FROM job_webhooks GROUP BY status`)
	if err != nil {
		return b, err
	}
	maps.Copy(b.Items, items)
	maps.Copy(b.Webhooks, webhooks)
	var oldest int64
	err = e.state.Reader().QueryRowContext(ctx, `SELECT COALESCE(MIN(created_us), 0) FROM jobs WHERE status = 'queued'`).Scan(&oldest)
	b.Oldest = fromMicros(oldest)
	return b, err
}

func count[S ~string](ctx context.Context, db *sql.DB, query string) (map[S]int64, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := make(map[S]int64)
	for rows.Next() {
		var status S
		var n int64
		if err := rows.Scan(&status, &n); err != nil {
			return nil, err
		}
		counts[status] = n
	}
	return counts, rows.Err()
}
