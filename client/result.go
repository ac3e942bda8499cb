package client

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/refersam/refersam"
)

// Result returns the answer to an item of a job, by its index. The error is
// CodeUnfinished if the item has not ended, CodeItemFailed if it has failed, and
// CodeCancelled if it was cancelled. Result reads the form that Submit asks for,
// JSON with masks as coco_rle or rle. If the job was submitted otherwise and asked
// for another form or other formats, the error is CodeNotAcceptable, and its
// Message names them; RawResult returns such an answer.
func (c *Client) Result(ctx context.Context, id string, index int) (*Answer, error) {
	a, err := c.send(ctx, resultCall(id, index))
	if err != nil {
		return nil, err
	}
	if form := a.mediaType(); slices.Contains([]string{"image/png", "application/zip", "multipart/mixed"}, form) {
		e := refersam.Errorf(refersam.CodeNotAcceptable, "The job's request asked for an answer in %s; read it with RawResult.", form)
		e.RequestID = a.requestID()
		return nil, e
	}
	b, err := parse[answerBody](a)
	if err != nil {
		return nil, err
	}
	return b.answer(a, len(b.Results))
}

// RawAnswer is an answer exactly as the service sent it.
type RawAnswer struct {
	// Header has the Content-Type of Body. With image/png it also describes the
	// mask, as in X-Refersam-Score.
	Header http.Header
	Body   []byte
}

// RawResult returns the answer that Result reads, unchanged, in the form that the
// request of the job asked for.
func (c *Client) RawResult(ctx context.Context, id string, index int) (*RawAnswer, error) {
	a, err := c.send(ctx, resultCall(id, index))
	if err != nil {
		return nil, err
	}
	return &RawAnswer{a.header, a.body}, nil
}

func resultCall(id string, index int) call {
	return call{method: http.MethodGet, path: fmt.Sprintf("%s/items/%d", jobPath(id), index)}
}
