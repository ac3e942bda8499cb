package store

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Blob is an object outside the database: whose storage it takes, and how many
// bytes of it.
type Blob struct {
	Name, APIKey string
	Bytes        int64
}

// ErrQuota says that a key has no storage left.
var ErrQuota = errors.New("the storage of the key is used up")

// garbageAge is how long an object has, after it was reserved, until something
// refers to it.
const garbageAge = time.Hour

// ReserveBlob makes the row of an object that is to be written. Without it for
// an hour, the object is garbage, unless something refers to it. If the key
// would have more than quota bytes, it is ErrQuota.
func (s *Store) ReserveBlob(ctx context.Context, b Blob, quota int64, now time.Time) error {
	return s.InTx(ctx, func(tx *sql.Tx) error {
		if err := reserve(ctx, tx, b.APIKey, kindBlobs, b.Bytes, quota); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO blobs (name, api_key, bytes, created_us) VALUES ($1, $2, $3, $4)`,
			b.Name, b.APIKey, b.Bytes, micros(now))
		return err
	})
}

// The kinds of what takes the storage of a key, each of which has a quota.
const (
	kindBlobs    = "blobs"
	kindFeedback = "feedback"
)

// reserve adds to what a key has of a kind, or returns ErrQuota.
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

// Stored returns how many bytes of pictures and answers a key keeps, garbage
// included.
func (s *Store) Stored(ctx context.Context, apiKey string) (bytes int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT bytes FROM storage WHERE api_key = $1 AND kind = $2`, apiKey, kindBlobs).Scan(&bytes)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return bytes, err
}

// unreferenced are the conditions under which nothing refers to a row of blobs.
const unreferenced = `NOT EXISTS (SELECT 1 FROM images WHERE images.blob = blobs.name)
	AND NOT EXISTS (SELECT 1 FROM job_items WHERE job_items.picture = blobs.name)
	AND NOT EXISTS (SELECT 1 FROM job_items WHERE job_items.result = blobs.name)`

// ForgetBlob deletes the row of an object that was not written or is not needed,
// unless something refers to it.
func (s *Store) ForgetBlob(ctx context.Context, name string) (forgotten bool, err error) {
	rows, err := s.forgetBlobs(ctx, []any{name})
	return len(rows) > 0, err
}

// TakeGarbage deletes the rows of at most limit objects that nothing refers to,
// and returns them: whoever gets them deletes the objects. There is no more for
// now if it finds none.
func (s *Store) TakeGarbage(ctx context.Context, limit int, now time.Time) ([]Blob, error) {
	// Looking for them passes by all that is kept, which must not keep others
	// from writing; whether they still are garbage is looked at again.
	names, err := s.garbage(ctx, limit, now)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	return s.forgetBlobs(ctx, names)
}

func (s *Store) garbage(ctx context.Context, limit int, now time.Time) ([]any, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT name FROM blobs WHERE created_us < $1 AND `+unreferenced+` ORDER BY created_us LIMIT $2`,
		micros(now.Add(-garbageAge)), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []any
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// forgetBlobs deletes those rows to which nothing refers, and returns them.
func (s *Store) forgetBlobs(ctx context.Context, names []any) (forgotten []Blob, err error) {
	err = s.InTx(ctx, func(tx *sql.Tx) error {
		// That something begins to refer to an object at this moment is an error
		// of the foreign key: next time it is left alone.
		forgotten, err = deleteBlobs(ctx, tx, names)
		if err != nil {
			return err
		}
		freed := make(map[string]int64)
		for _, b := range forgotten {
			freed[b.APIKey] += b.Bytes
		}
		for _, key := range slices.Sorted(maps.Keys(freed)) { // all in one order, lest two wait for each other
			if _, err := tx.ExecContext(ctx, `UPDATE storage SET bytes = bytes - $1 WHERE api_key = $2 AND kind = $3`, freed[key], key, kindBlobs); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return forgotten, nil
}

func deleteBlobs(ctx context.Context, tx *sql.Tx, names []any) ([]Blob, error) {
	marks := make([]string, len(names))
	for i := range names {
		marks[i] = "$" + strconv.Itoa(i+1)
	}
	rows, err := tx.QueryContext(ctx, `DELETE FROM blobs WHERE name IN (`+strings.Join(marks, ", ")+`) AND `+unreferenced+` RETURNING name, api_key, bytes`, names...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var deleted []Blob
	for rows.Next() {
		var b Blob
		if err := rows.Scan(&b.Name, &b.APIKey, &b.Bytes); err != nil {
			return nil, err
		}
		deleted = append(deleted, b)
	}
	return deleted, rows.Err()
}

// KnowsBlob reports whether an object has a row.
func (s *Store) KnowsBlob(ctx context.Context, name string) (bool, error) {
	var known bool
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM blobs WHERE name = $1)`, name).Scan(&known)
	return known, err
}

// Image is a picture that a client has sent.
type Image struct {
	APIKey, ID string
	// Blob names the object that has its bytes.
	Blob string
	// Width and Height are those of the upright picture, in pixels.
	Width, Height    int
	MediaType        string
	Bytes            int64
	Created, Expires time.Time
}

const imageColumns = `api_key, id, blob, width, height, media_type, bytes, created_us, expires_us`

// AddImage adds an image, whose object has been written, and returns the one
// that is there afterwards: if the key had it already, that with a later expiry.
// It keeps its object, unless that is the one called lost.
func (s *Store) AddImage(ctx context.Context, i Image, lost string) (*Image, error) {
	return scanImage(s.write.QueryRowContext(ctx, `INSERT INTO images (`+imageColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (api_key, id) DO UPDATE SET
			blob = CASE WHEN images.blob = $10 THEN excluded.blob ELSE images.blob END,
			expires_us = CASE WHEN images.expires_us > excluded.expires_us THEN images.expires_us ELSE excluded.expires_us END
		RETURNING `+imageColumns,
		i.APIKey, i.ID, i.Blob, i.Width, i.Height, i.MediaType, i.Bytes, micros(i.Created), micros(i.Expires), lost))
}

// RenewImage gives an image that has not expired another expiry, and returns
// it, or ErrNotFound.
func (s *Store) RenewImage(ctx context.Context, apiKey, id string, expires, now time.Time) (*Image, error) {
	return scanImage(s.write.QueryRowContext(ctx, `UPDATE images SET expires_us = $1 WHERE api_key = $2 AND id = $3 AND expires_us > $4
		RETURNING `+imageColumns, micros(expires), apiKey, id, micros(now)))
}

// Image returns an image that has not expired, or ErrNotFound.
func (s *Store) Image(ctx context.Context, apiKey, id string, now time.Time) (*Image, error) {
	return scanImage(s.read.QueryRowContext(ctx, `SELECT `+imageColumns+` FROM images WHERE api_key = $1 AND id = $2 AND expires_us > $3`,
		apiKey, id, micros(now)))
}

// Images returns at most limit images of a key that have not expired, the
// newest first: those before an image in that order, or from the beginning if
// before is nil.
func (s *Store) Images(ctx context.Context, apiKey string, before *Image, limit int, now time.Time) ([]*Image, error) {
	created, id := int64(1)<<62, ""
	if before != nil {
		created, id = micros(before.Created), before.ID
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+imageColumns+` FROM images
		WHERE api_key = $1 AND expires_us > $2 AND (created_us < $3 OR created_us = $3 AND id < $4)
		ORDER BY created_us DESC, id DESC LIMIT $5`, apiKey, micros(now), created, id, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var images []*Image
	for rows.Next() {
		i, err := scanImage(rows)
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, rows.Err()
}

func scanImage(row interface{ Scan(...any) error }) (*Image, error) {
	var (
		i                Image
		created, expires int64
	)
	err := row.Scan(&i.APIKey, &i.ID, &i.Blob, &i.Width, &i.Height, &i.MediaType, &i.Bytes, &created, &expires)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	i.Created, i.Expires = fromMicros(created), fromMicros(expires)
	return &i, nil
}

// DeleteImage deletes an image; its object is garbage once nothing else refers
// to it. Without such an image it is ErrNotFound.
func (s *Store) DeleteImage(ctx context.Context, apiKey, id string, now time.Time) error {
	n, err := changed(s.write.ExecContext(ctx, `DELETE FROM images WHERE api_key = $1 AND id = $2 AND expires_us > $3`, apiKey, id, micros(now)))
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// DeleteExpiredImages deletes the images that have expired, and returns how
// many.
func (s *Store) DeleteExpiredImages(ctx context.Context, now time.Time) (int64, error) {
	return changed(s.write.ExecContext(ctx, `DELETE FROM images WHERE expires_us <= $1`, micros(now)))
}

// webhookTime is how much longer than its time a job stays whose webhook has not
// been told: twice as long as the tries of package jobs take.
const webhookTime = 7 * 24 * time.Hour

// DeleteExpiredJobs deletes the jobs whose time is over and whose end is not to
// be told any more, and returns how many. Their objects are garbage then.
func (s *Store) DeleteExpiredJobs(ctx context.Context, now time.Time) (int64, error) {
	return changed(s.write.ExecContext(ctx, `DELETE FROM jobs WHERE expires_us > 0 AND (expires_us <= $1
		OR expires_us <= $2 AND NOT EXISTS (SELECT 1 FROM job_webhooks w WHERE w.job = jobs.id AND w.status = 'pending'))`,
		micros(now.Add(-webhookTime)), micros(now)))
}
