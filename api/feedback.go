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
	_         struct{}       `doc:"Feedback of a client about a mask."`
	RequestID string         `json:"request_id" required:"true" pattern:"^[A-Za-z0-9._:-]{1,128}$" doc:"The 'request_id' of the answer with the mask"`
	Item      *Int           `json:"item,omitempty" minimum:"0" maximum:"63" doc:"The index of the picture in a batch or job; 0 without it"`
	Result    *Int           `json:"result,omitempty" minimum:"0" maximum:"511" doc:"The index of the result; 0 without it"`
	Verdict   *string        `json:"verdict,omitempty" enum:"good,bad" doc:"Whether the mask is good or bad"`
	Rating    *Int           `json:"rating,omitempty" minimum:"1" maximum:"5" doc:"From 1 (useless) to 5 (perfect)"`
	Mask      *CorrectedMask `json:"corrected_mask,omitempty" doc:"The correct mask"`
	Comment   *string        `json:"comment,omitempty" pattern:"^[^\\x00]+$" doc:"A comment of at most 2,000 bytes"`
}

// CorrectedMask is the mask that the client considers correct.
type CorrectedMask struct {
	_      struct{} `doc:"A mask as pycocotools writes it."`
	Size   [2]int   `json:"size" required:"true" doc:"Height and width in pixels"`
	Counts string   `json:"counts" required:"true" doc:"The runs"`
}

// Feedback is feedback as it is stored.
type Feedback struct {
	_         struct{}  `doc:"Stored feedback about a mask."`
	ID        string    `json:"id" doc:"Its id"`
	Key       string    `json:"key" doc:"The id of the API key; 'anonymous' without authentication"`
	RequestID string    `json:"request_id" doc:"The 'request_id' of the answer with the mask"`
	Item      int       `json:"item" doc:"The index of the picture in a batch or job"`
	Result    int       `json:"result" doc:"The index of the result"`
	Verdict   string    `json:"verdict,omitempty" doc:"Whether the mask is good or bad"`
	Rating    int       `json:"rating,omitzero" doc:"From 1 (useless) to 5 (perfect)"`
	Mask      *RLE      `json:"corrected_mask,omitempty" doc:"The correct mask"`
	Comment   string    `json:"comment,omitempty" doc:"In words"`
	CreatedAt time.Time `json:"created_at" doc:"When the feedback was sent"`
}

// FeedbackList is a page of GET /v1/feedback.
type FeedbackList struct {
	_        struct{}   `doc:"A page of feedback, the newest first."`
	Feedback []Feedback `json:"feedback" doc:"The feedback"`
	Next     string     `json:"next,omitempty" doc:"The 'cursor' of the next page; absent on the last page"`
}
