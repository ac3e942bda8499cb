package api

import "time"

// The verdicts of feedback.
const (
	VerdictGood = "good"
	VerdictBad  = "bad"
)

// MaxRating is the best rating of feedback; the worst is 1.
const MaxRating = 5

// FeedbackRequest is the body of POST /v1/feedback. At least one of Verdict,
// Rating, Mask and Comment is set.
type FeedbackRequest struct {
	_         struct{}       `doc:"What a client says about a mask."`
	RequestID string         `json:"request_id" required:"true" pattern:"^[A-Za-z0-9._:-]{1,128}$" doc:"That of the answer that the mask was in"`
	Item      *Int           `json:"item,omitempty" minimum:"0" maximum:"63" doc:"The index of the picture in a batch or job; 0 without it"`
	Result    *Int           `json:"result,omitempty" minimum:"0" maximum:"511" doc:"The index of the result; 0 without it"`
	Verdict   *string        `json:"verdict,omitempty" enum:"good,bad" doc:"In a word"`
	Rating    *Int           `json:"rating,omitempty" minimum:"1" maximum:"5" doc:"From 1, of no use, to 5, as it should be"`
	Mask      *CorrectedMask `json:"corrected_mask,omitempty" doc:"The mask as it should be"`
	Comment   *string        `json:"comment,omitempty" pattern:"^[^\\x00]+$" doc:"In words, at most 2,000 bytes"`
}

// CorrectedMask is a mask as the client thinks it should be.
type CorrectedMask struct {
	_      struct{} `doc:"A mask as pycocotools writes it."`
	Size   [2]int   `json:"size" required:"true" doc:"Height and width in pixels"`
	Counts string   `json:"counts" required:"true" doc:"The runs"`
}

// Feedback is feedback as it is stored.
type Feedback struct {
	_         struct{}  `doc:"What a client has said about a mask."`
	ID        string    `json:"id" doc:"Its id"`
	Key       string    `json:"key" doc:"The id of the API key; 'anonymous' without authentication"`
	RequestID string    `json:"request_id" doc:"That of the answer that the mask was in"`
	Item      int       `json:"item" doc:"The index of the picture in a batch or job"`
	Result    int       `json:"result" doc:"The index of the result"`
	Verdict   string    `json:"verdict,omitempty" doc:"In a word"`
	Rating    int       `json:"rating,omitzero" doc:"From 1, of no use, to 5, as it should be"`
	Mask      *RLE      `json:"corrected_mask,omitempty" doc:"The mask as it should be"`
	Comment   string    `json:"comment,omitempty" doc:"In words"`
	CreatedAt time.Time `json:"created_at" doc:"When it was said"`
}

// FeedbackList is a page of GET /v1/feedback.
type FeedbackList struct {
	_        struct{}   `doc:"A page of feedback, the newest first."`
	Feedback []Feedback `json:"feedback" doc:"The feedback"`
	Next     string     `json:"next,omitempty" doc:"What to give as 'cursor' for the next page; absent on the last one"`
}
