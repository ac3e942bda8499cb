package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/client"
)

// An answer that is not the service's is an error of the domain with the request's
// id, and the request is not repeated.
func TestUnreadable(t *testing.T) {
	models := func(ctx context.Context, c *client.Client) error { _, err := c.Models(ctx); return err }
	segment := func(ctx context.Context, c *client.Client) error { _, err := c.Segment(ctx, request()); return err }
	batch := func(ctx context.Context, c *client.Client) error {
		_, err := c.SegmentBatch(ctx, items(), client.RequestOptions{})
		return err
	}
	result := func(ctx context.Context, c *client.Client) error { _, err := c.Result(ctx, "job_1", 0); return err }
	images := func(ctx context.Context, c *client.Client) error {
		for i, err := range c.Images(ctx) {
			if err != nil || i == nil {
				return err
			}
		}
		return nil
	}
	for name, tc := range map[string]struct {
		call func(context.Context, *client.Client) error
		body string
		says string
	}{
		"a page":       {models, "<html>", "text/html"},
		"nothing":      {models, "", "GET v1/models"},
		"a list":       {models, `[]`, ""},
		"a cut answer": {segment, `{"results": [`, ""},
		"no results":   {segment, `{}`, "0 results for 3 phrases"},
		"no mask":      {result, `{"request_id": "r7", "results": [{}]}`, "phrase 0"},
		"no runs":      {result, `{"request_id": "r7", "results": [{"masks": {"coco_rle": null}}]}`, "phrase 0"},
		"a mask cut off": {
			result, `{"request_id": "r7", "mask": {"width": 4, "height": 3}, "results": [{"masks": {"coco_rle": {"size": [3, 4], "counts": "5"}}}]}`, "phrase 0",
		},
		"a mask of another size": {
			result, `{"request_id": "r7", "mask": {"width": 4, "height": 3}, "results": [{"masks": {"coco_rle": {"size": [4, 3], "counts": "<"}}}]}`, "3 × 4",
		},
		"a huge mask": {
			result, `{"request_id": "r7", "mask": {"width": 4, "height": 3}, "results": [{"masks": {"rle": {"size": [99999999, 99999999], "counts": [1]}}}]}`, "phrase 0",
		},
		"a page as a result":    {result, "<html>", "text/html"},
		"another batch":         {batch, `{"results": []}`, "0 results for 3 items"},
		"no list":               {images, `{"next": "a"}`, ""},
		"a list of nothing":     {images, `{"images": 1}`, ""},
		"a cursor that is none": {images, `{"images": [], "next": 1}`, ""},
		"no days": {func(ctx context.Context, c *client.Client) error {
			_, err := c.Usage(ctx, client.UsageQuery{})
			return err
		}, `{"usage": [{"day": "today"}]}`, "today"},
		"a mask of feedback": {
			func(ctx context.Context, c *client.Client) error {
				_, err := c.SendFeedback(ctx, client.Feedback{})
				return err
			}, `{"corrected_mask": {"size": [3, 4], "counts": "5"}}`, "",
		},
		"no job": {func(ctx context.Context, c *client.Client) error { _, err := c.Wait(ctx, "job_1", nil); return err }, `{}`, "job"},
		"another picture": {
			func(ctx context.Context, c *client.Client) error { _, err := c.ImageContent(ctx, "img_1"); return err }, "<html>", "img_1",
		},
		"a page of a deletion": {func(ctx context.Context, c *client.Client) error { return c.DeleteJob(ctx, "job_1") }, "<html>", "text/html"},
	} {
		t.Run(name, func(t *testing.T) {
			c, tr := through(t, func(int, *http.Request) (*http.Response, error) {
				return reply(200, tc.body, "Content-Type", "text/html", "X-Request-Id", "r7"), nil
			})
			err := tc.call(t.Context(), c)
			var e *refersam.Error
			if !errors.As(err, &e) || e.Code != refersam.CodeUpstream || e.RequestID != "r7" || !strings.Contains(err.Error(), tc.says) || tr.tries != 1 {
				t.Errorf("%d tries: %v", tr.tries, err)
			}
		})
	}
}

// An item of a batch that cannot be read does not affect the others.
func TestUnreadableItem(t *testing.T) {
	c, _ := through(t, func(int, *http.Request) (*http.Response, error) {
		return reply(200, `{"results": [{"answer": {"request_id": "r7", "results": [{}, {}, {}]}}, {"problem": {"status": 503}}, {}, {"answer": {"results": []}}]}`), nil
	})
	item := client.Item{Picture: client.Picture{ID: "img_1"}, Phrases: request().Phrases}
	results, err := c.SegmentBatch(t.Context(), []client.Item{item, item, item, {}}, client.RequestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, code := range []refersam.Code{refersam.CodeUpstream, refersam.CodeUnavailable, refersam.CodeUpstream, ""} {
		if got := results[i]; refersam.ErrorCode(got.Err) != code || (got.Answer == nil) != (got.Err != nil) {
			t.Errorf("item %d: %+v", i, got)
		}
	}
}

// A page that points to itself ends the list with an error.
func TestEndlessList(t *testing.T) {
	c, tr := through(t, func(int, *http.Request) (*http.Response, error) { return reply(200, `{"jobs": [], "next": "a"}`), nil })
	for j, err := range c.Jobs(t.Context(), "") {
		if refersam.ErrorCode(err) != refersam.CodeUpstream {
			t.Errorf("%+v, %v", j, err)
		}
	}
	if tr.tries != 2 {
		t.Errorf("%d pages", tr.tries)
	}
}
