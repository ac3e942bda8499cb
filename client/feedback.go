package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/postprocess"
)

// Feedback rates a mask. At least one of Verdict, Rating, CorrectedMask and Comment
// must be set.
type Feedback struct {
	// RequestID is the RequestID of the Answer, and Result is the index of the mask
	// in it. Item is the index of the picture in a batch or job, because all
	// answers of a batch or job have the same RequestID; otherwise it is 0.
	RequestID    string
	Item, Result int
	// Verdict is good or bad.
	Verdict string
	// Rating is from 1 (useless) to 5 (perfect); 0 is no rating.
	Rating int
	// CorrectedMask is the correct mask.
	CorrectedMask *refersam.Mask
	// Comment has at most 2,000 bytes.
	Comment string
	// ID, CreatedAt and Key are set by the service. Key is the id of the API key
	// that sent the feedback.
	ID, Key   string
	CreatedAt time.Time
}

// UnmarshalJSON reads feedback as the service writes it.
func (f *Feedback) UnmarshalJSON(data []byte) error {
	var b api.Feedback
	if err := decode(data, &b); err != nil {
		return err
	}
	*f = Feedback{
		RequestID: b.RequestID, Item: b.Item, Result: b.Result, Verdict: b.Verdict, Rating: b.Rating, Comment: b.Comment,
		ID: b.ID, Key: b.Key, CreatedAt: b.CreatedAt,
	}
	if b.Mask == nil {
		return nil
	}
	var err error
	f.CorrectedMask, err = postprocess.DecodeRLE(b.Mask.Counts, b.Mask.Size[1], b.Mask.Size[0])
	return err
}

// SendFeedback stores a rating of a mask, and returns the stored feedback. The key
// needs the scope feedback. Fields of f that the service sets are not sent. The
// service does not check that it has answered a request with this id.
func (c *Client) SendFeedback(ctx context.Context, f Feedback) (*Feedback, error) {
	b := api.FeedbackRequest{
		RequestID: f.RequestID, Item: optional(api.Int(f.Item)), Result: optional(api.Int(f.Result)),
		Verdict: optional(f.Verdict), Rating: optional(api.Int(f.Rating)), Comment: optional(f.Comment),
	}
	if m := f.CorrectedMask; m != nil {
		b.Mask = &api.CorrectedMask{Size: [2]int{m.Height, m.Width}, Counts: postprocess.RLE(m)}
	}
	body, err := encode(b)
	if err != nil {
		return nil, err
	}
	return get[Feedback](ctx, c, call{method: http.MethodPost, path: "v1/feedback", header: idempotencyHeader(ctx), mediaType: mediaJSON, body: constant(body)})
}

// Feedback yields the feedback of all keys about the answer to a request, or about
// all answers if requestID is "", newest first. The key needs the scope admin. The
// sequence stops after an error.
func (c *Client) Feedback(ctx context.Context, requestID string) iter.Seq2[*Feedback, error] {
	query := url.Values{}
	if requestID != "" {
		query.Set("request_id", requestID)
	}
	return list[Feedback](ctx, c, "v1/feedback", "feedback", query)
}
