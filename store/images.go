package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Image is a row of images: a picture that a client has uploaded.
type Image struct {
	APIKey, ID string
	// Blob names the object that holds the picture's bytes.
	Blob string
	// Width and Height are the size of the upright picture in pixels.
	Width, Height    int
	MediaType        string
	Bytes            int64
	Created, Expires time.Time
}

const imageColumns = `api_key, id, blob, width, height, media_type, bytes, created_us, expires_us`

// AddImage adds an image after its object has been written, and returns the row.
// If the API key has the image already, the row gets the later expiry of the two
// and keeps its object, unless that object is the one called lost.
func (s *imageTables) AddImage(ctx context.Context, i Image, lost string) (*Image, error) {
	return scanImage(s.write.QueryRowContext(ctx, `INSERT INTO images (`+imageColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (api_key, id) DO UPDATE SET
			blob = CASE WHEN images.blob = $10 THEN excluded.blob ELSE images.blob END,
			expires_us = CASE WHEN images.expires_us > excluded.expires_us THEN images.expires_us ELSE excluded.expires_us END
		RETURNING `+imageColumns,
		i.APIKey, i.ID, i.Blob, i.Width, i.Height, i.MediaType, i.Bytes, micros(i.Created), micros(i.Expires), lost))
}

// RenewImage changes the expiry of an image and returns the image. An image that
// does not exist or has expired is ErrNotFound.
func (s *imageTables) RenewImage(ctx context.Context, apiKey, id string, expires, now time.Time) (*Image, error) {
	return scanImage(s.write.QueryRowContext(ctx, `UPDATE images SET expires_us = $1 WHERE api_key = $2 AND id = $3 AND expires_us > $4
		RETURNING `+imageColumns, micros(expires), apiKey, id, micros(now)))
}

// Image returns an image. One that does not exist or has expired is ErrNotFound.
func (s *imageTables) Image(ctx context.Context, apiKey, id string, now time.Time) (*Image, error) {
	return scanImage(s.read.QueryRowContext(ctx, `SELECT `+imageColumns+` FROM images WHERE api_key = $1 AND id = $2 AND expires_us > $3`,
		apiKey, id, micros(now)))
}

// Images returns at most limit images of an API key that have not expired, the
// newest first. The list starts with the images older than before, or with the
// newest image if before is nil.
func (s *imageTables) Images(ctx context.Context, apiKey string, before *Image, limit int, now time.Time) ([]*Image, error) {
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

// DeleteImage deletes an image. Its object becomes garbage when nothing else
// refers to it. An image that does not exist or has expired is ErrNotFound.
func (s *imageTables) DeleteImage(ctx context.Context, apiKey, id string, now time.Time) error {
	return orNotFound(changed(s.write.ExecContext(ctx, `DELETE FROM images WHERE api_key = $1 AND id = $2 AND expires_us > $3`, apiKey, id, micros(now))))
}

// DeleteExpiredImages deletes the images that have expired, and returns their
// number.
func (s *imageTables) DeleteExpiredImages(ctx context.Context, now time.Time) (int64, error) {
	return changed(s.write.ExecContext(ctx, `DELETE FROM images WHERE expires_us <= $1`, micros(now)))
}
