package store

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unreferenced is an SQL condition on a row of blobs: no other row refers to the
// object. It names every table with a reference to blobs. A new reference needs
// a line here and a foreign key in its migration.
const unreferenced = `NOT EXISTS (SELECT 1 FROM images WHERE images.blob = blobs.name)
	AND NOT EXISTS (SELECT 1 FROM job_items WHERE job_items.picture = blobs.name)
	AND NOT EXISTS (SELECT 1 FROM job_items WHERE job_items.result = blobs.name)`

// garbageAge is how old an unreferenced object must be to count as garbage. A
// younger object may belong to a request that has not added its reference yet.
const garbageAge = time.Hour

// ForgetBlob deletes the row of an object that was not written or is not needed
// any more. It reports false, and keeps the row, if another row refers to the
// object.
func (s *imageTables) ForgetBlob(ctx context.Context, name string) (forgotten bool, err error) {
	rows, err := s.deleteUnreferenced(ctx, []any{name})
	return len(rows) > 0, err
}

// TakeGarbage deletes the rows of at most limit garbage objects and returns
// them. The caller must delete the objects. An empty result means that there is
// no garbage now.
func (s *imageTables) TakeGarbage(ctx context.Context, limit int, now time.Time) ([]Blob, error) {
	// The search reads all referenced objects too, so it runs outside the
	// transaction that writes. The deletion checks again.
	names, err := s.garbage(ctx, limit, now)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	return s.deleteUnreferenced(ctx, names)
}

func (s *imageTables) garbage(ctx context.Context, limit int, now time.Time) ([]any, error) {
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

// deleteUnreferenced deletes the named rows that no other row refers to, and
// returns the deleted ones.
func (s *imageTables) deleteUnreferenced(ctx context.Context, names []any) (deleted []Blob, err error) {
	err = s.inTx(ctx, func(tx *sql.Tx) error {
		// If another transaction adds a reference at this moment, the foreign key
		// makes the statement fail, and the next run keeps the object.
		deleted, err = deleteBlobs(ctx, tx, names)
		if err != nil {
			return err
		}
		freed := make(map[string]int64)
		for _, b := range deleted {
			freed[b.APIKey] += b.Bytes
		}
		// All transactions lock the keys in one order; otherwise two could
		// deadlock.
		for _, key := range slices.Sorted(maps.Keys(freed)) {
			if err := release(ctx, tx, key, kindBlobs, freed[key]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return deleted, nil
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
