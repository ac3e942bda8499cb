package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"time"
)

// Attempt is one try to do what a client has named by an idempotency key.
type Attempt struct {
	// APIKey and Key name it: clients choose Key without knowing of each other.
	APIKey, Key string
	// RequestHash tells another request under the same name.
	RequestHash []byte
	// Owner tells this attempt from all others.
	Owner string
	// Begun is when the first attempt under the name began, as Begin says: what
	// one has stored before it was given up, another finds by it.
	Begun time.Time
}

// What Begin can say besides that the attempt may go on.
var (
	// ErrUnderWay says that another attempt has not ended.
	ErrUnderWay = errors.New("another attempt is under way")
	// ErrOtherRequest says that the name belongs to another request.
	ErrOtherRequest = errors.New("the key belongs to another request")
)

// Begin says how an attempt goes on. If its answer is known, that is returned;
// without answer and error the attempt is the caller's, with a.Begun set, who is
// to end it with Finish or Abandon before lease: after that another may begin.
// The name is remembered until expires, counted from the first attempt, and as
// long as one is under way.
func (s *Store) Begin(ctx context.Context, a *Attempt, lease, expires, now time.Time) (answer []byte, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		// What has expired is as if it had never been.
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
			return ErrUnderWay // it expired at this very moment
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

// Finish stores the answer of an attempt until expires. An attempt whose lease
// has ended and which another has taken over is ErrNotFound.
func (s *Store) Finish(ctx context.Context, a Attempt, answer []byte, expires time.Time) error {
	n, err := changed(s.write.ExecContext(ctx, `UPDATE idempotency SET done = 1, answer = $1, expires_us = $2
		WHERE api_key = $3 AND key = $4 AND owner = $5 AND lease_us > 0`, answer, micros(expires), a.APIKey, a.Key, a.Owner))
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// Abandon ends an attempt that has no answer to be kept: another may begin at
// once.
func (s *Store) Abandon(ctx context.Context, a Attempt) error {
	_, err := s.write.ExecContext(ctx, `UPDATE idempotency SET lease_us = 0 WHERE api_key = $1 AND key = $2 AND owner = $3 AND done = 0`, a.APIKey, a.Key, a.Owner)
	return err
}

// Sweep deletes what has expired: answers, and what gateways that are gone had
// leased.
func (s *Store) Sweep(ctx context.Context, now time.Time) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM idempotency WHERE expires_us <= $1`, micros(now))
	if err != nil {
		return err
	}
	_, err = s.write.ExecContext(ctx, `DELETE FROM slot_leases WHERE expires_us <= $1`, micros(now))
	return err
}
