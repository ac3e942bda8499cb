package store

import (
	"context"
	"time"
)

// Feedback is what a client says about a mask.
type Feedback struct {
	ID, APIKey string
	// RequestID is that of the request that was answered with the mask, Result
	// the index of its result.
	RequestID string
	Result    int
	// Verdict is "good", "bad" or "", Rating 1 to 5 or 0.
	Verdict string
	Rating  int
	// Counts are the compressed run lengths of the mask as it should be, "" for
	// none; Height and Width are its size in pixels.
	Height, Width int
	Counts        string
	Comment       string
	Created       time.Time
}

const feedbackColumns = `id, api_key, request_id, result, verdict, rating, height, width, counts, comment, created_us`

// AddFeedback keeps feedback. One of an ID that is there already changes
// nothing.
func (s *Store) AddFeedback(ctx context.Context, f Feedback) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO feedback (`+feedbackColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (id) DO NOTHING`,
		f.ID, f.APIKey, f.RequestID, f.Result, f.Verdict, f.Rating, f.Height, f.Width, f.Counts, f.Comment, micros(f.Created))
	return err
}

// Feedback returns at most limit pieces of feedback of all keys, the newest
// first: those after one in that order, or from the beginning if after is nil;
// only that about a request unless requestID is "".
func (s *Store) Feedback(ctx context.Context, after *Feedback, requestID string, limit int) ([]*Feedback, error) {
	created, id := int64(1)<<62, ""
	if after != nil {
		created, id = micros(after.Created), after.ID
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+feedbackColumns+` FROM feedback
		WHERE (created_us < $1 OR created_us = $1 AND id < $2) AND ($3 = '' OR request_id = $3)
		ORDER BY created_us DESC, id DESC LIMIT $4`, created, id, requestID, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*Feedback
	for rows.Next() {
		var f Feedback
		var at int64
		if err := rows.Scan(&f.ID, &f.APIKey, &f.RequestID, &f.Result, &f.Verdict, &f.Rating, &f.Height, &f.Width, &f.Counts, &f.Comment, &at); err != nil {
			return nil, err
		}
		f.Created = fromMicros(at)
		all = append(all, &f)
	}
	return all, rows.Err()
}
