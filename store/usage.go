package store

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"
)

// Use is an amount of usage.
type Use struct {
	// Requests is the number of requests that returned masks, Pictures the number
	// of their pictures.
	Requests, Pictures int64
	// GPU is the time that model servers spent on them.
	GPU time.Duration
}

// Add adds v to u.
func (u *Use) Add(v Use) {
	u.Requests += v.Requests
	u.Pictures += v.Pictures
	u.GPU += v.GPU
}

// KeyDay is an API key and a day in UTC, as "2026-11-22".
type KeyDay struct{ Key, Day string }

// Used is the usage of a key on a day.
type Used struct {
	KeyDay
	Use
}

// batchMemory is how long the store remembers the last batch of a gateway. It is
// far longer than a gateway tries to write one.
const batchMemory = 7 * 24 * time.Hour

// AddUsage adds a batch of usage that a gateway has counted. A gateway numbers its
// batches from 1. A batch that was added before changes nothing, so a gateway
// repeats a call that may have failed.
func (s *accessTables) AddUsage(ctx context.Context, gateway string, seq int64, batch map[KeyDay]Use, now time.Time) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		fresh, err := changed(tx.ExecContext(ctx, `INSERT INTO usage_batches (gateway, seq, taken_us) VALUES ($1, $2, $3)
			ON CONFLICT (gateway) DO UPDATE SET seq = excluded.seq, taken_us = excluded.taken_us WHERE usage_batches.seq < excluded.seq`,
			gateway, seq, micros(now)))
		if err != nil || fresh == 0 {
			return err
		}
		for _, at := range inOrder(batch) {
			use := batch[at]
			_, err := tx.ExecContext(ctx, `INSERT INTO usage (api_key, day, requests, pictures, gpu_us) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (api_key, day) DO UPDATE SET requests = usage.requests + excluded.requests,
				pictures = usage.pictures + excluded.pictures, gpu_us = usage.gpu_us + excluded.gpu_us`,
				at.Key, at.Day, use.Requests, use.Pictures, use.GPU.Microseconds())
			if err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM usage_batches WHERE taken_us < $1`, micros(now.Add(-batchMemory)))
		return err
	})
}

// inOrder returns the keys and days of a batch in a fixed order. All gateways lock
// rows in this order; otherwise two could deadlock.
func inOrder(batch map[KeyDay]Use) []KeyDay {
	return slices.SortedFunc(maps.Keys(batch), func(a, b KeyDay) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Day, b.Day))
	})
}

// Usage returns the usage on the days from from to to, both included, ordered by
// day and key. An empty key selects all keys.
func (s *accessTables) Usage(ctx context.Context, key, from, to string) ([]Used, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT api_key, day, requests, pictures, gpu_us FROM usage
		WHERE ($1 = '' OR api_key = $1) AND day >= $2 AND day <= $3 ORDER BY day, api_key`, key, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Used
	for rows.Next() {
		var (
			u  Used
			us int64
		)
		if err := rows.Scan(&u.Key, &u.Day, &u.Requests, &u.Pictures, &us); err != nil {
			return nil, err
		}
		u.GPU = time.Duration(us) * time.Microsecond
		all = append(all, u)
	}
	return all, rows.Err()
}
