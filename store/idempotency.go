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
}

// What Begin can say besides that the attempt may go on.
var (
	// ErrUnderWay says that another attempt has not ended.
	ErrUnderWay = errors.New("another attempt is under way")
	// ErrOtherRequest says that the name belongs to another request.
	ErrOtherRequest = errors.New("the key belongs to another request")
)

// Begin says how an attempt goes on. If its answer is known, that is returned;
// without answer and error the attempt is the caller's, who is to end it with
// Finish or Abandon before lease: after that another may begin.
func (s *Store) Begin(ctx context.Context, a Attempt, lease, now time.Time) (answer []byte, err error) {
	err = s.InTx(ctx, func(tx *sql.Tx) error {
		// What has expired is as if it had never been.
		fresh, err := changed(tx.ExecContext(ctx, `INSERT INTO idempotency (api_key, key, request_hash, owner, expires_us)
			VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (api_key, key) DO UPDATE SET request_hash = excluded.request_hash, owner = excluded.owner,
			done = 0, answer = NULL, expires_us = excluded.expires_us WHERE idempotency.expires_us <= $6`,
			a.APIKey, a.Key, a.RequestHash, a.Owner, micros(lease), micros(now)))
		if err != nil || fresh == 1 {
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
			return ErrUnderWay // it was given up at this very moment
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
		WHERE api_key = $3 AND key = $4 AND owner = $5`, answer, micros(expires), a.APIKey, a.Key, a.Owner))
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// Abandon ends an attempt that has stored nothing: the client may try again.
func (s *Store) Abandon(ctx context.Context, a Attempt) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM idempotency WHERE api_key = $1 AND key = $2 AND owner = $3 AND done = 0`, a.APIKey, a.Key, a.Owner)
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
