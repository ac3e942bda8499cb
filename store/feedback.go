package store

import (
	"context"
	"database/sql"
	"time"
)

// Feedback is a row of feedback: a client's opinion about a mask.
type Feedback struct {
	ID, APIKey string
	// RequestID is the id of the request that returned the mask. Item is the index
	// of the picture in that request, Result the index of the mask in that picture.
	RequestID    string
	Item, Result int
	// Verdict is "good", "bad" or "", Rating 1 to 5 or 0.
	Verdict string
	Rating  int
	// Counts are the compressed run lengths of the correct mask, "" for none.
	// Height and Width are its size in pixels.
	Height, Width int
	Counts        string
	Comment       string
	Created       time.Time
}

const feedbackColumns = `id, api_key, request_id, item, result, verdict, rating, height, width, counts, comment, created_us`

// AddFeedback adds feedback. It does nothing if feedback with this ID exists. It
// is ErrQuota if the API key would store more than quota bytes of masks and
// comments.
func (s *feedbackTable) AddFeedback(ctx context.Context, f Feedback, quota int64) error {
	return s.inTx(ctx, func(tx *sql.Tx) error {
		n, err := changed(tx.ExecContext(ctx, `INSERT INTO feedback (`+feedbackColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
			ON CONFLICT (id) DO NOTHING`,
			f.ID, f.APIKey, f.RequestID, f.Item, f.Result, f.Verdict, f.Rating, f.Height, f.Width, f.Counts, f.Comment, micros(f.Created)))
		if err != nil || n == 0 {
			return err
		}
		return reserve(ctx, tx, f.APIKey, kindFeedback, f.bytes(), quota)
	})
}

// bytes is the size that the quota counts.
func (f *Feedback) bytes() int64 { return int64(len(f.Counts) + len(f.Comment)) }

// maxFeedback limits the bytes of masks and comments that Feedback returns. Only
// the last piece may exceed it.
const maxFeedback = 8 << 20

// Feedback returns at most limit pieces of feedback of all API keys, the newest
// first, and whether there are more. The list starts with the pieces older than
// after, or with the newest piece if after is nil. An empty requestID selects the
// feedback about all requests. Large pieces make the list shorter, but never
// empty.
func (s *feedbackTable) Feedback(ctx context.Context, after *Feedback, requestID string, limit int) (all []*Feedback, more bool, err error) {
	created, id := int64(1)<<62, ""
	if after != nil {
		created, id = micros(after.Created), after.ID
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+feedbackColumns+` FROM feedback
		WHERE (created_us < $1 OR created_us = $1 AND id < $2) AND ($3 = '' OR request_id = $3)
		ORDER BY created_us DESC, id DESC LIMIT $4`, created, id, requestID, limit+1)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	var bytes int64
	for rows.Next() {
		if len(all) == limit || bytes >= maxFeedback {
			return all, true, nil
		}
		var f Feedback
		var at int64
		if err := rows.Scan(&f.ID, &f.APIKey, &f.RequestID, &f.Item, &f.Result, &f.Verdict, &f.Rating, &f.Height, &f.Width, &f.Counts, &f.Comment, &at); err != nil {
			return nil, false, err
		}
		f.Created = fromMicros(at)
		bytes += f.bytes()
		all = append(all, &f)
	}
	return all, false, rows.Err()
}
