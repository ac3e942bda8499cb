package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/postprocess"
	"github.com/refersam/refersam/store"
)

// Opinions stores clients' feedback about masks; *store.Store is one.
type Opinions interface {
	// AddFeedback stores feedback once, even if it is called several times.
	AddFeedback(ctx context.Context, f store.Feedback, quota int64) error
	Feedback(ctx context.Context, after *store.Feedback, requestID string, limit int) (all []*store.Feedback, more bool, err error)
}

const (
	// maxFeedbackBody is how many bytes the body of feedback may have. Its comment
	// may have api.MaxComment.
	maxFeedbackBody = 4 << 20

	badRequestID = "The request id must be the id of an answer: 1 to 128 letters, digits and . _ : -."
)

func feedbackLimit(string) int64 { return maxFeedbackBody }

func newFeedback(f *store.Feedback) api.Feedback {
	a := api.Feedback{
		ID: f.ID, Key: f.APIKey, RequestID: f.RequestID, Item: f.Item, Result: f.Result, Verdict: f.Verdict, Rating: f.Rating, Comment: f.Comment, CreatedAt: f.Created,
	}
	if f.Counts != "" {
		a.Mask = &api.RLE{Size: [2]int{f.Height, f.Width}, Counts: f.Counts}
	}
	return a
}

// feedbackRoutes are the routes for feedback.
type feedbackRoutes struct {
	opinions Opinions
	bodies   *bodies
	// maxPixels bounds a corrected mask, quota the bytes of feedback per key.
	maxPixels int
	quota     int64
	timeout   time.Duration
}

// add answers POST /v1/feedback.
func (h *feedbackRoutes) add(c *gin.Context) error {
	if err := intake.OnlyJSON(c.Request); err != nil {
		return err
	}
	_, release, err := h.bodies.reserve(c, feedbackLimit)
	if err != nil {
		return err
	}
	defer release()
	var b api.FeedbackRequest
	body := http.MaxBytesReader(c.Writer, c.Request.Body, maxFeedbackBody)
	if err := intake.ReadJSON(body, &b); err != nil {
		return intake.ReadError(err)
	}
	f, err := parseFeedback(&b, h.maxPixels)
	if err != nil {
		return err
	}
	f.ID, f.APIKey, f.Created = idempotentID(c, "fb_"), account(c), time.Now().Truncate(time.Microsecond) // the database stores microseconds
	ctx, cancel := context.WithTimeout(c.Request.Context(), h.timeout)
	defer cancel()
	err = h.opinions.AddFeedback(ctx, *f, h.quota)
	if errors.Is(err, store.ErrQuota) {
		return &refersam.Error{
			Code:       refersam.CodeStorageFull,
			Message:    fmt.Sprintf("The API key may store at most %d bytes of masks and comments; ask the operator of the service for more.", h.quota),
			RetryAfter: time.Hour, // an operator must change a setting first
		}
	}
	if err != nil {
		return store.Unavailable(err)
	}
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, http.StatusCreated, newFeedback(f))
}

// parseFeedback checks feedback and reports all faults at once.
func parseFeedback(b *api.FeedbackRequest, maxPixels int) (*store.Feedback, error) {
	var wrong refersam.Faults
	f := &store.Feedback{
		RequestID: b.RequestID, Item: int(intake.ValueOr(b.Item, 0)), Result: int(intake.ValueOr(b.Result, 0)),
		Verdict: intake.ValueOr(b.Verdict, ""), Rating: int(intake.ValueOr(b.Rating, 0)), Comment: intake.ValueOr(b.Comment, ""),
	}
	if !saneID.MatchString(b.RequestID) {
		wrong.Add(refersam.Invalidf("/request_id", badRequestID))
	}
	if f.Item < 0 || f.Item >= api.MaxItems {
		wrong.Add(refersam.Invalidf("/item", "The item must be an index from 0 to %d.", api.MaxItems-1))
	}
	if f.Result < 0 || f.Result >= api.MaxPrompts {
		wrong.Add(refersam.Invalidf("/result", "The result must be an index from 0 to %d.", api.MaxPrompts-1))
	}
	wrong.Add(intake.OneOf(b.Verdict, "/verdict", api.VerdictGood, api.VerdictBad))
	if b.Rating != nil && (*b.Rating < 1 || *b.Rating > api.MaxRating) {
		wrong.Add(refersam.Invalidf("/rating", "The rating must be a whole number from 1 to %d.", api.MaxRating))
	}
	if b.Comment != nil && f.Comment == "" {
		wrong.Add(refersam.Invalidf("/comment", "The comment is empty; leave it out."))
	}
	if len(f.Comment) > api.MaxComment {
		wrong.Add(refersam.Invalidf("/comment", "The comment must have at most %d bytes.", api.MaxComment))
	}
	wrong.Add(intake.CheckText("/comment", f.Comment))
	if b.Verdict == nil && b.Rating == nil && b.Mask == nil && b.Comment == nil {
		wrong.Add(refersam.Invalidf("", "The feedback is empty; give a verdict, rating, corrected_mask or comment."))
	}
	if b.Mask != nil {
		f.Height, f.Width, f.Counts = b.Mask.Size[0], b.Mask.Size[1], b.Mask.Counts
		wrong.Add(checkMask(b.Mask, maxPixels))
	}
	return f, wrong.Err()
}

// checkMask refuses run lengths that are not a mask.
func checkMask(mask *api.CorrectedMask, maxPixels int) error {
	height, width := mask.Size[0], mask.Size[1]
	if height < 1 || width < 1 || width > maxPixels || height > maxPixels/width {
		return refersam.Invalidf("/corrected_mask/size", "The size must be height and width, and at most %d pixels.", maxPixels)
	}
	if _, err := postprocess.DecodeRLE(mask.Counts, width, height); err != nil {
		return refersam.Invalidf("/corrected_mask/counts", "The counts are not a mask of this size in the form of pycocotools.")
	}
	return nil
}

// list answers GET /v1/feedback with the feedback of all keys. The route requires
// the scope admin.
func (h *feedbackRoutes) list(c *gin.Context) error {
	at, err := parsePage(c, api.ListFeedback, "request_id")
	if err != nil {
		return err
	}
	requestID, named := c.GetQuery("request_id")
	if named && !saneID.MatchString(requestID) {
		return refersam.Invalidf("request_id", badRequestID)
	}
	var after *store.Feedback
	if at.id != "" {
		after = &store.Feedback{ID: at.id, Created: at.created}
	}
	listed, more, err := h.opinions.Feedback(c.Request.Context(), after, requestID, at.limit)
	if err != nil {
		return store.Unavailable(err)
	}
	list := api.FeedbackList{Feedback: []api.Feedback{}}
	for _, f := range listed {
		list.Feedback = append(list.Feedback, newFeedback(f))
	}
	if more {
		last := listed[len(listed)-1]
		list.Next = api.Cursor(api.ListFeedback, last.Created, last.ID)
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, list)
}
