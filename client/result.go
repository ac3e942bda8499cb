package client

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/refersam/refersam"
)

// Result returns the answer to an item of a job, by its index. It is
// CodeUnfinished if the item has not ended, CodeItemFailed if it has failed,
// and CodeCancelled if it was cancelled. Submit asks for what Result reads, JSON
// with masks as coco_rle or rle. If who has submitted the job otherwise asked for
// another form or other formats, it is CodeNotAcceptable, whose Message names
// them; RawResult gives such an answer.
func (c *Client) Result(ctx context.Context, id string, index int) (*Answer, error) {
	a, err := c.send(ctx, resultCall(id, index))
	if err != nil {
		return nil, err
	}
	if form := a.mediaType(); slices.Contains([]string{"image/png", "application/zip", "multipart/mixed"}, form) {
		e := refersam.Errorf(refersam.CodeNotAcceptable, "The answer is %s, as the job's request asked, which only RawResult gives.", form)
		e.RequestID = a.requestID()
		return nil, e
	}
	b, err := parse[answerBody](a)
	if err != nil {
		return nil, err
	}
	return b.answer(a, len(b.Results))
}

// RawAnswer is an answer as the service gives it.
type RawAnswer struct {
	// Header has the Content-Type of Body and, with image/png, what else is known
	// of the mask, as X-Refersam-Score.
	Header http.Header
	Body   []byte
}

// RawResult returns what Result reads as it is, in whatever form the request
// that made the job has asked for.
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
