package client_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/client"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// items returns one item that succeeds, one with a picture damaged in a way that
// only decoding shows, and another item that succeeds.
func items() []client.Item {
	whole := pipelinetest.Squares()
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 0xff // in the pixels, so that the header is read
	return []client.Item{
		{ID: "first", Picture: client.Picture{Data: whole}, Phrases: request().Phrases, Quality: true},
		{ID: "damaged", Picture: client.Picture{Data: damaged}, Phrases: request().Phrases},
		{Picture: client.Picture{Data: whole}, Phrases: request().Phrases[:1]},
	}
}

// A job gives the same answers as a request, and reports the outcome of each item.
func TestJob(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	want, err := c.Segment(ctx, request())
	if err != nil {
		t.Fatal(err)
	}
	o := client.JobOptions{RequestOptions: client.RequestOptions{Variant: "clip", Unit: "u"}, Deadline: time.Minute}
	one := client.WithIdempotencyKey(ctx, "one")
	submitted, err := c.Submit(client.WithRequestID(one, "sub"), items(), o)
	if err != nil || submitted.Kind != "batch" || submitted.RequestID != "sub" || submitted.Progress.Total != 3 || submitted.Webhook != nil {
		t.Fatalf("%+v, %v", submitted, err)
	}
	again, err := c.Submit(one, items(), o)
	if err != nil || again.ID != submitted.ID {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := c.Submit(one, items()[:1], o); refersam.ErrorCode(err) != refersam.CodeKeyReused {
		t.Errorf("%v", err)
	}
	var seen []client.Progress
	j, err := c.Wait(ctx, submitted.ID, func(j *client.Job) { seen = append(seen, j.Progress) })
	if err != nil || j.Status != client.StatusFailed || j.Progress != (client.Progress{Total: 3, Succeeded: 2, Failed: 1}) ||
		j.StartedAt.IsZero() || j.FinishedAt.IsZero() || j.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", j, err)
	}
	if len(seen) == 0 || seen[len(seen)-1] != j.Progress {
		t.Errorf("%+v", seen)
	}
	var e *refersam.Error
	if !errors.As(j.Err(), &e) || e.Code != refersam.CodeInvalidImage || e.RequestID != "sub" || e.At != refersam.Named("/items/1/image/data") || !strings.Contains(j.Err().Error(), "item 1") {
		t.Errorf("%v", j.Err())
	}
	for i, want := range []client.JobItem{
		{Index: 0, ID: "first", Status: client.StatusSucceeded, Result: "/v1/jobs/" + j.ID + "/items/0"},
		{Index: 1, ID: "damaged", Status: client.StatusFailed, Err: e},
		{Index: 2, Status: client.StatusSucceeded, Result: "/v1/jobs/" + j.ID + "/items/2"},
	} {
		if diff := cmp.Diff(want, j.Items[i]); diff != "" {
			t.Error(diff)
		}
	}
	a, err := c.Result(ctx, j.ID, 0)
	if err != nil || a.RequestID != "sub" {
		t.Fatalf("%+v, %v", a, err)
	}
	if diff := cmp.Diff(want.Results, a.Results, cmpopts.IgnoreFields(refersam.Result{}, "Origin")); diff != "" {
		t.Error(diff)
	}
	for index, code := range map[int]refersam.Code{1: refersam.CodeItemFailed, 2: "", 3: refersam.CodeJobNotFound} {
		if _, err := c.Result(ctx, j.ID, index); refersam.ErrorCode(err) != code {
			t.Errorf("item %d: %v", index, err)
		}
	}
	if j, err = c.Cancel(ctx, j.ID); err != nil || j.Status != client.StatusFailed {
		t.Errorf("%+v, %v", j, err)
	}
	if _, err := c.Submit(ctx, []client.Item{{Picture: client.Picture{Data: []byte("none")}, Phrases: request().Phrases}}, client.JobOptions{}); refersam.ErrorCode(err) != refersam.CodeUnsupportedMedia {
		t.Errorf("%v", err)
	}
}

// Jobs are listed by status and deleted; a job can use a stored image.
func TestJobs(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	image, err := c.KeepImage(ctx, client.Picture{Data: pipelinetest.Squares()})
	if err != nil {
		t.Fatal(err)
	}
	one := []client.Item{{Picture: client.Picture{ID: image.ID}, Phrases: request().Phrases}}
	var ids []string
	for _, all := range [][]client.Item{one, items(), one} {
		j, err := c.Submit(ctx, all, client.JobOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Wait(ctx, j.ID, nil); err != nil {
			t.Fatal(err)
		}
		ids = append([]string{j.ID}, ids...)
	}
	for status, want := range map[client.Status][]string{"": ids, client.StatusFailed: ids[1:2], client.StatusQueued: nil} {
		var got []string
		for j, err := range c.Jobs(ctx, status) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, j.ID)
			if code := refersam.ErrorCode(j.Err()); j.Status == client.StatusFailed && code != refersam.CodeItemFailed {
				t.Errorf("%v", j.Err())
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", status, diff)
		}
	}
	for j, err := range c.Jobs(ctx, "") {
		if err != nil || j.ID != ids[0] {
			t.Errorf("%+v, %v", j, err)
		}
		break
	}
	if err := c.DeleteJob(ctx, ids[0]); err != nil {
		t.Error(err)
	}
	if _, err := c.Job(ctx, ids[0]); refersam.ErrorCode(err) != refersam.CodeJobNotFound {
		t.Errorf("%v", err)
	}
	cancelled := client.Job{Status: client.StatusCancelled, Items: []client.JobItem{{Err: refersam.Errorf(refersam.CodeInvalidImage, "no")}}}
	if err := cancelled.Err(); !strings.Contains(err.Error(), string(refersam.CodeInvalidImage)) || !strings.Contains(err.Error(), string(refersam.CodeCancelled)) {
		t.Errorf("%v", err)
	}
}

// Wait stops when its context ends, and returns the job that it received last.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := through(t, func(int, *http.Request) (*http.Response, error) {
			return reply(200, `{"id": "job_1", "status": "running", "progress": {"total": 1}}`), nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		calls := 0
		j, err := c.Wait(ctx, "job_1", func(*client.Job) { calls++ })
		if refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || j == nil || j.Status != client.StatusRunning || calls != 1 {
			t.Errorf("%d calls, %+v, %v", calls, j, err)
		}
	})
}

// The end of a job is reported, and reported again on demand.
func TestWebhooks(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	j, err := c.Submit(ctx, items(), client.JobOptions{Webhook: "https://hooks.invalid/done"})
	if err != nil || j.Webhook == nil || j.Webhook.URL != "https://hooks.invalid/done" || j.Webhook.Status != "pending" {
		t.Fatalf("%+v, %v", j, err)
	}
	if j, err = c.Wait(ctx, j.ID, nil); err != nil {
		t.Fatal(err)
	}
	if j, err = c.RedeliverWebhook(ctx, j.ID); err != nil || j.Webhook.Status != "pending" {
		t.Errorf("%+v, %v", j, err)
	}
	none, err := c.Submit(ctx, items()[:1], client.JobOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(ctx, none.ID, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RedeliverWebhook(ctx, none.ID); refersam.ErrorCode(err) != refersam.CodeNotFound {
		t.Errorf("%v", err)
	}
	first, err := c.WebhookSecret(ctx)
	if err != nil || !strings.HasPrefix(first.Secret, "whsec_") || !first.PreviousUntil.IsZero() {
		t.Errorf("%+v, %v", first, err)
	}
	once := client.WithIdempotencyKey(ctx, "rotation-1")
	second, err := c.RotateWebhookSecret(once)
	if err != nil || second.Secret == first.Secret || time.Until(second.PreviousUntil) < 23*time.Hour {
		t.Errorf("%+v, %v", second, err)
	}
	if again, err := c.RotateWebhookSecret(once); err != nil || *again != *second {
		t.Errorf("%+v, %v", again, err)
	}
	if now, err := c.WebhookSecret(ctx); err != nil || *now != *second {
		t.Errorf("%+v, %v", now, err)
	}
}

// VerifyWebhook accepts only what the service has signed recently.
func TestVerifyWebhook(t *testing.T) {
	const (
		secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
		other  = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
		body   = `{"type": "job.finished", "timestamp": "2026-11-22T10:00:02Z", "data": {"id": "job_1", "status": "failed",
			"items": [{"index": 0, "status": "failed", "problem": {"code": "invalid_image", "detail": "no", "request_id": "r1"}}]}}`
	)
	signed := func(at time.Time, body string, secrets ...string) http.Header {
		t.Helper()
		var all []string
		for _, secret := range secrets {
			signer, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			signature, err := signer.Sign("msg_1", at, []byte(body))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, signature)
		}
		h := http.Header{}
		h.Set("Webhook-Id", "msg_1")
		h.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
		h.Set("Webhook-Signature", strings.Join(all, " "))
		return h
	}
	now := time.Now()
	for name, header := range map[string]http.Header{"one signature": signed(now, body, secret), "during a rotation": signed(now, body, other, secret)} {
		ev, err := client.VerifyWebhook(secret, header, []byte(body))
		if err != nil || ev.ID != "msg_1" || ev.Type != "job.finished" || ev.Timestamp.IsZero() || ev.Job.ID != "job_1" {
			t.Fatalf("%s: %+v, %v", name, ev, err)
		}
		var e *refersam.Error
		if !errors.As(ev.Job.Err(), &e) || e.Code != refersam.CodeInvalidImage || e.RequestID != "r1" {
			t.Errorf("%s: %v", name, ev.Job.Err())
		}
	}
	for _, none := range []string{"", "whsec_"} {
		h := signed(now, body, secret)
		mac := hmac.New(sha256.New, nil)
		fmt.Fprintf(mac, "msg_1.%d.%s", now.Unix(), body)
		h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		if ev, err := client.VerifyWebhook(none, h, []byte(body)); err == nil {
			t.Errorf("what anybody could sign is taken: %+v", ev)
		}
	}
	const later = `{"type": "job.started", "timestamp": "2026-11-22T10:00:02Z", "data": []}`
	if ev, err := client.VerifyWebhook(secret, signed(now, later, secret), []byte(later)); err != nil || ev.Job != nil || ev.Type != "job.started" {
		t.Errorf("%+v, %v", ev, err)
	}
	changed := strings.Replace(body, "failed", "succeeded", 1)
	for name, tc := range map[string]struct {
		header http.Header
		body   string
	}{
		"another secret": {signed(now, body, other), body},
		"another body":   {signed(now, body, secret), changed},
		"old":            {signed(now.Add(-6*time.Minute), body, secret), body},
		"early":          {signed(now.Add(6*time.Minute), body, secret), body},
		"unsigned":       {http.Header{}, body},
		"no JSON":        {signed(now, "x", secret), "x"},
		"no job":         {signed(now, `{"type": "job.finished"}`, secret), `{"type": "job.finished"}`},
	} {
		if ev, err := client.VerifyWebhook(secret, tc.header, []byte(tc.body)); err == nil {
			t.Errorf("%s: %+v", name, ev)
		}
	}
	if _, err := client.VerifyWebhook("whsec_!", signed(now, body, secret), []byte(body)); err == nil {
		t.Error("that is no secret")
	}
}
