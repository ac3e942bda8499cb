package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"time"
)

// Attempt is one try of a request that has an idempotency key.
type Attempt struct {
	// APIKey and Key name the request. Clients choose Key, so two API keys may use
	// the same one.
	APIKey, Key string
	// RequestHash differs for another request under the same name.
	RequestHash []byte
	// Owner is unique to this attempt.
	Owner string
	// Begun is when the first attempt under the name began; Begin sets it. An
	// attempt can find with it what an earlier one stored.
	Begun time.Time
}

// Begin returns one of these if the attempt must not run.
var (
	// ErrUnderWay means that another attempt has not ended.
	ErrUnderWay = errors.New("another attempt with this idempotency key has not ended")
	// ErrOtherRequest means that the name belongs to another request.
	ErrOtherRequest = errors.New("the idempotency key belongs to another request")
)

// Begin claims an idempotency key. It returns the stored answer if there is one.
// If it returns neither an answer nor an error, the caller owns the attempt and
// must call Finish or Abandon before lease; after that another attempt may begin.
// The name is remembered until expires, which only the first attempt sets, and
// longer while an attempt runs.
func (s *accessTables) Begin(ctx context.Context, a *Attempt, lease, expires, now time.Time) (answer []byte, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		// An expired row is overwritten as if it did not exist.
		var begun int64
		err := tx.QueryRowContext(ctx, `INSERT INTO idempotency (api_key, key, request_hash, owner, lease_us, begun_us, expires_us)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (api_key, key) DO UPDATE SET request_hash = excluded.request_hash, owner = excluded.owner, lease_us = excluded.lease_us,
			begun_us = CASE WHEN idempotency.expires_us <= excluded.begun_us THEN excluded.begun_us ELSE idempotency.begun_us END,
			expires_us = CASE WHEN idempotency.expires_us <= excluded.begun_us THEN excluded.expires_us
				WHEN idempotency.expires_us < excluded.lease_us THEN excluded.lease_us ELSE idempotency.expires_us END,
			done = 0, answer = NULL
			WHERE idempotency.expires_us <= excluded.begun_us OR idempotency.done = 0 AND idempotency.lease_us <= excluded.begun_us
			RETURNING begun_us`,
			a.APIKey, a.Key, a.RequestHash, a.Owner, micros(lease), micros(now), micros(expires)).Scan(&begun)
		if !errors.Is(err, sql.ErrNoRows) {
			a.Begun = fromMicros(begun)
			return err
		}
		var (
			hash []byte
			done bool
		)
		err = tx.QueryRowContext(ctx, `SELECT request_hash, done = 1, answer FROM idempotency WHERE api_key = $1 AND key = $2`, a.APIKey, a.Key).
			Scan(&hash, &done, &answer)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return ErrUnderWay // the row was deleted between the two statements
		case err != nil:
			return err
		case !bytes.Equal(hash, a.RequestHash):
			return ErrOtherRequest
		case !done:
			return ErrUnderWay
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Finish stores the answer of an attempt until expires. It is ErrNotFound if the
// lease has ended and another attempt has begun.
func (s *accessTables) Finish(ctx context.Context, a Attempt, answer []byte, expires time.Time) error {
	return orNotFound(changed(s.write.ExecContext(ctx, `UPDATE idempotency SET done = 1, answer = $1, expires_us = $2
		WHERE api_key = $3 AND key = $4 AND owner = $5 AND lease_us > 0`, answer, micros(expires), a.APIKey, a.Key, a.Owner)))
}

// Abandon ends an attempt without storing an answer. Another attempt may begin at
// once.
func (s *accessTables) Abandon(ctx context.Context, a Attempt) error {
	_, err := s.write.ExecContext(ctx, `UPDATE idempotency SET lease_us = 0 WHERE api_key = $1 AND key = $2 AND owner = $3 AND done = 0`, a.APIKey, a.Key, a.Owner)
	return err
}

// Sweep deletes expired answers, and expired leases of gateways.
func (s *accessTables) Sweep(ctx context.Context, now time.Time) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM idempotency WHERE expires_us <= $1`, micros(now))
	if err != nil {
		return err
	}
	_, err = s.write.ExecContext(ctx, `DELETE FROM slot_leases WHERE expires_us <= $1`, micros(now))
	return err
}
