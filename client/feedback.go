package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// Feedback says how good a mask was. Of Verdict, Rating, CorrectedMask and
// Comment at least one is there.
type Feedback struct {
	// RequestID is that of the Answer, and Result the index of the mask in it. Item
	// is the index of the picture in a batch or job, whose answers have one
	// RequestID; else 0.
	RequestID    string
	Item, Result int
	// Verdict is good or bad.
	Verdict string
	// Rating is from 1, of no use, to 5, as it should be; 0 for none.
	Rating int
	// CorrectedMask is the mask as it should be.
	CorrectedMask *refersam.Mask
	// Comment has at most 2,000 bytes.
	Comment string
	// ID, CreatedAt and Key, the id of the API key that has said it, are the
	// service's.
	ID, Key   string
	CreatedAt time.Time
}

// feedbackBody is feedback as it is sent and answered.
type feedbackBody struct {
	RequestID string    `json:"request_id"`
	Item      int       `json:"item"`
	Result    int       `json:"result"`
	Verdict   string    `json:"verdict,omitempty"`
	Rating    int       `json:"rating,omitzero"`
	Mask      *rleBody  `json:"corrected_mask,omitempty"`
	Comment   string    `json:"comment,omitempty"`
	ID        string    `json:"id,omitempty"`
	Key       string    `json:"key,omitempty"`
	CreatedAt time.Time `json:"created_at,omitzero"`
}

// UnmarshalJSON reads feedback as the service writes it.
func (f *Feedback) UnmarshalJSON(data []byte) error {
	var b feedbackBody
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

// rleBody is a mask as pycocotools writes it. Size is height, width.
type rleBody struct {
	Size   [2]int `json:"size"`
	Counts string `json:"counts"`
}

// SendFeedback says how good a mask was, with a key of the scope feedback, and
// returns what the service keeps; its own fields of f are not sent. That a
// request of this id was answered is not checked.
func (c *Client) SendFeedback(ctx context.Context, f Feedback) (*Feedback, error) {
	b := feedbackBody{RequestID: f.RequestID, Item: f.Item, Result: f.Result, Verdict: f.Verdict, Rating: f.Rating, Comment: f.Comment}
	if m := f.CorrectedMask; m != nil {
		b.Mask = &rleBody{[2]int{m.Height, m.Width}, postprocess.RLE(m)}
	}
	body, err := encode(b)
	if err != nil {
		return nil, err
	}
	return get[Feedback](ctx, c, call{method: http.MethodPost, path: "v1/feedback", header: once(ctx), mediaType: mediaJSON, body: constant(body)})
}

// Feedback goes through what all keys have said about the answer to a request,
// or about all if requestID is "", the newest first, with a key of the scope
// admin. An error ends it.
func (c *Client) Feedback(ctx context.Context, requestID string) iter.Seq2[*Feedback, error] {
	query := url.Values{}
	if requestID != "" {
		query.Set("request_id", requestID)
	}
	return list[Feedback](ctx, c, "v1/feedback", "feedback", query)
}
