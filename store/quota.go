package store

import (
	"context"
	"database/sql"
	"time"
)

// Tokens is a part of a key's rate that one gateway may use.
type Tokens struct {
	// Granted is the number of requests that the gateway may admit.
	Granted int64
	// Left is the number that the key has left now, for all gateways.
	Left float64
}

// TakeTokens takes up to want requests from a key's rate. The rate is a bucket
// that starts full and fills evenly: rate.Requests in rate.Window.
func (s *accessTables) TakeTokens(ctx context.Context, key string, rate Rate, want int64, now time.Time) (t Tokens, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO rate_buckets (api_key, tokens, updated_us) VALUES ($1, $2, $3) ON CONFLICT (api_key) DO NOTHING`,
			key, float64(rate.Requests), micros(now))
		if err != nil {
			return err
		}
		var (
			bucket  Bucket
			updated int64
		)
		// This update changes nothing, but locks the row.
		err = tx.QueryRowContext(ctx, `UPDATE rate_buckets SET tokens = tokens WHERE api_key = $1 RETURNING tokens, updated_us`, key).Scan(&bucket.Tokens, &updated)
		if err != nil {
			return err
		}
		bucket.Updated = fromMicros(updated)
		bucket.Fill(rate, now.Truncate(time.Microsecond)) // what the column holds
		t.Granted = bucket.Take(want)
		t.Left = bucket.Tokens
		_, err = tx.ExecContext(ctx, `UPDATE rate_buckets SET tokens = $1, updated_us = $2 WHERE api_key = $3`, bucket.Tokens, micros(bucket.Updated), key)
		return err
	})
	return t, err
}

// LeaseSlots lets a gateway run up to want requests of a key at once until a time,
// and returns the granted number. The grants of all gateways never exceed limit.
// A lease replaces the gateway's previous one for the key; a want of 0 returns it.
func (s *accessTables) LeaseSlots(ctx context.Context, key, gateway string, limit, want int64, until, now time.Time) (granted int64, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		// This locks the key's row, so that the leases of a key are granted one after
		// the other.
		n, err := changed(tx.ExecContext(ctx, `UPDATE api_keys SET id = id WHERE id = $1`, key))
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		var others int64
		err = tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(slots), 0) FROM slot_leases WHERE api_key = $1 AND gateway <> $2 AND expires_us > $3`,
			key, gateway, micros(now)).Scan(&others)
		if err != nil {
			return err
		}
		granted = max(0, min(want, limit-others))
		_, err = tx.ExecContext(ctx, `INSERT INTO slot_leases (api_key, gateway, slots, expires_us) VALUES ($1, $2, $3, $4)
			ON CONFLICT (api_key, gateway) DO UPDATE SET slots = excluded.slots, expires_us = excluded.expires_us`,
			key, gateway, granted, micros(until))
		return err
	})
	return granted, err
}
