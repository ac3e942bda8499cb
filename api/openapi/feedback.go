package openapi

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

func (d *description) describeFeedback() {
	example := api.Feedback{
		ID: "fb_k3v5q7x2m4n6b8c1z9d7f5g3hj", Key: "k7m2q4xw5z3a6bcd", RequestID: exampleID, Item: 0, Result: 0, Verdict: api.VerdictBad,
		Mask: &api.RLE{Size: [2]int{2, 4}, Counts: "242"}, Comment: "It is the other duck", CreatedAt: exampleImage().CreatedAt,
	}
	d.addGuarded(http.MethodPost, "/v1/feedback", "service", "addFeedback", "Rate a mask", &huma.Operation{
		Description: "At least one of `verdict`, `rating`, `corrected_mask` and `comment` must be given. Requires the scope `feedback`.",
		Parameters:  []*huma.Param{requestIDParam(), idempotencyKeyParam()},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{api.MediaJSON: d.request(api.FeedbackRequest{}, map[string]any{
			"request_id": exampleID, "result": 0, "verdict": api.VerdictBad, "corrected_mask": example.Mask, "comment": example.Comment,
		})}},
	}, answered{http.StatusCreated, "The feedback is stored", map[string]*huma.MediaType{api.MediaJSON: d.media(api.Feedback{}, example)}, nil},
		refuses(refersam.CodeUnsupportedMedia, refersam.CodeImageTooLarge, refersam.CodeBodyTooSlow, refersam.CodeStorageFull), refusesAgain())
	d.addGuarded(http.MethodGet, "/v1/feedback", "service", "listFeedback", "List feedback about masks", &huma.Operation{
		Description: "The feedback of all keys, newest first. Requires the scope `admin`.",
		Parameters:  []*huma.Param{limitParam(), cursorParam(api.ListFeedback, example.CreatedAt, example.ID), narrowed(queryParam("request_id", "Only feedback about the answer to this request", exampleID), func(s *huma.Schema) { s.Pattern = api.RequestIDPattern })},
	}, d.json(api.FeedbackList{}, "A page of feedback", api.FeedbackList{Feedback: []api.Feedback{example}}))
}
