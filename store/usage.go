package store

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"time"
)

// Use is what was used.
type Use struct {
	// Requests is how many were answered with masks, Pictures how many
	// pictures they had.
	Requests, Pictures int64
	// GPU is how long model servers were busy with them.
	GPU time.Duration
}

// Add adds what v says.
func (u *Use) Add(v Use) {
	u.Requests += v.Requests
	u.Pictures += v.Pictures
	u.GPU += v.GPU
}

// KeyDay is a key on a day: a date in UTC, as "2026-11-22".
type KeyDay struct{ Key, Day string }

// Used is what a key has used in a day.
type Used struct {
	KeyDay
	Use
}

// batchMemory is how long the last batch of a gateway is remembered: far longer
// than any goes on trying to write one.
const batchMemory = 7 * 24 * time.Hour

// AddUsage adds a batch of what a gateway has counted. Batches of a gateway are
// numbered from 1 on; one that has been added already is left alone, so that
// whoever does not know whether a call succeeded repeats it.
func (s *Store) AddUsage(ctx context.Context, gateway string, seq int64, batch map[KeyDay]Use, now time.Time) error {
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

// inOrder returns what a batch is about in the one order in which every gateway
// locks rows, so that no two wait for each other.
func inOrder(batch map[KeyDay]Use) []KeyDay {
	return slices.SortedFunc(maps.Keys(batch), func(a, b KeyDay) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Day, b.Day))
	})
}

// Usage returns what a key, or every key if it is "", has used on the days from
// one to another, both included, by day and key.
func (s *Store) Usage(ctx context.Context, key, from, to string) ([]Used, error) {
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
