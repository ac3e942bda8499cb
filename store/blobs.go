package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Blob is a row of blobs: an object outside the database, the API key that pays
// for its storage, and its size.
type Blob struct {
	Name, APIKey string
	Bytes        int64
}

// ErrQuota means that a request would exceed the storage quota of its API key.
var ErrQuota = errors.New("the storage quota of the API key is used up")

// ReserveBlob adds the row of an object that the caller is about to write. The
// object becomes garbage if nothing refers to it after an hour. It is ErrQuota
// if the API key would store more than quota bytes.
func (s *imageTables) ReserveBlob(ctx context.Context, b Blob, quota int64, now time.Time) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		if err := reserve(ctx, tx, b.APIKey, kindBlobs, b.Bytes, quota); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO blobs (name, api_key, bytes, created_us) VALUES ($1, $2, $3, $4)`,
			b.Name, b.APIKey, b.Bytes, micros(now))
		return err
	})
}

// KnowsBlob reports whether an object has a row.
func (s *imageTables) KnowsBlob(ctx context.Context, name string) (bool, error) {
	var known bool
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM blobs WHERE name = $1)`, name).Scan(&known)
	return known, err
}

// The kinds of storage. Each has its own quota per API key.
const (
	kindBlobs    = "blobs"
	kindFeedback = "feedback"
)

// reserve adds bytes to the storage that an API key uses, or returns ErrQuota.
func reserve(ctx context.Context, tx *sql.Tx, apiKey, kind string, bytes, quota int64) error {
	if bytes > quota {
		return ErrQuota
	}
	n, err := changed(tx.ExecContext(ctx, `INSERT INTO storage (api_key, kind, bytes) VALUES ($1, $2, $3)
		ON CONFLICT (api_key, kind) DO UPDATE SET bytes = storage.bytes + excluded.bytes WHERE storage.bytes + excluded.bytes <= $4`,
		apiKey, kind, bytes, quota))
	if err == nil && n == 0 {
		err = ErrQuota
	}
	return err
}

// release subtracts bytes from the storage that an API key uses.
func release(ctx context.Context, tx *sql.Tx, apiKey, kind string, bytes int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE storage SET bytes = bytes - $1 WHERE api_key = $2 AND kind = $3`, bytes, apiKey, kind)
	return err
}

// Stored returns the number of bytes in the objects of an API key, garbage
// included.
func (s *imageTables) Stored(ctx context.Context, apiKey string) (bytes int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT bytes FROM storage WHERE api_key = $1 AND kind = $2`, apiKey, kindBlobs).Scan(&bytes)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return bytes, err
}
