package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/client"
)

func eventStream(body string) *http.Response {
	return reply(http.StatusOK, body, "Content-Type", "text/event-stream")
}

// Each event arrives once and in order, over any number of connections.
func TestEvents(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	j, err := c.Submit(ctx, items(), client.JobOptions{})
	if err != nil {
		t.Fatal(err)
	}
	connections := 0
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/events") {
			return false
		}
		if connections++; connections > 3 {
			return false
		}
		// The whole stream is recorded; one event and half of the next are passed
		// on.
		whole := httptest.NewRecorder()
		s.gateway.ServeHTTP(whole, r)
		w.Header().Set("Content-Type", whole.Header().Get("Content-Type"))
		parts := strings.SplitAfter(whole.Body.String(), "\n\n")
		_, _ = io.WriteString(w, strings.Join(parts[:2], "")+parts[2][:len(parts[2])/2])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	follow := func(after int64) (all []client.Event) {
		for ev, err := range c.Events(ctx, j.ID, after) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ev)
		}
		return all
	}
	all := follow(0)
	ended := map[int]client.Status{}
	for i, ev := range all {
		if ev.Seq != int64(i+1) {
			t.Errorf("%d. event: %+v", i, ev)
		}
		if ev.Item != nil {
			ended[ev.Item.Index] = ev.Status
			if ev.Item.Status != ev.Status || (ev.Item.Err != nil) != (ev.Status == client.StatusFailed) {
				t.Errorf("%+v", ev.Item)
			}
		}
	}
	if diff := cmp.Diff(map[int]client.Status{0: client.StatusSucceeded, 1: client.StatusFailed, 2: client.StatusSucceeded}, ended); diff != "" {
		t.Error(diff)
	}
	if last := all[len(all)-1]; last.Item != nil || last.Status != client.StatusFailed || connections < 4 {
		t.Errorf("%+v after %d connections", last, connections)
	}
	if rest := follow(int64(len(all) - 1)); len(rest) != 1 || rest[0] != all[len(all)-1] {
		t.Errorf("%+v", rest)
	}
	if none := follow(int64(len(all))); none != nil {
		t.Errorf("%+v", none)
	}
	for ev, err := range c.Events(ctx, j.ID, 0) {
		if err != nil || ev != all[0] {
			t.Errorf("%+v, %v", ev, err)
		}
		break
	}
	for ev, err := range c.Events(ctx, "job_1", 0) {
		if refersam.ErrorCode(err) != refersam.CodeJobNotFound {
			t.Errorf("%+v, %v", ev, err)
		}
	}
}

// pending is a stream that sends something and then nothing until its request ends.
type pending struct {
	io.Reader
	ctx context.Context
}

func (p pending) Read(b []byte) (int, error) {
	if n, err := p.Reader.Read(b); err == nil {
		return n, nil
	}
	<-p.ctx.Done()
	return 0, p.ctx.Err()
}

func (p pending) Close() error { return nil }

// A silent connection is replaced, and the sequence stops when a job's end is
// reported by 204 and when the context ends.
func TestSilentEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last []string
		c, _ := through(t, func(try int, r *http.Request) (*http.Response, error) {
			last = append(last, r.Header.Get("Last-Event-Id"))
			if r.URL.Path != "/prefix/v1/jobs/job_1/events" {
				t.Errorf("asked for %s", r.URL)
			}
			resp := eventStream("")
			switch try {
			case 1:
				resp.Body = pending{strings.NewReader("retry: 1000\n\nid: 4\nevent: job\ndata: {\"status\": \"running\"}\n\nid: 5\nevent: new\ndata: {}\n\n:\n\n"), r.Context()}
			case 2:
				return overloaded(), nil
			case 3: // ends at once
			default:
				resp = reply(204, "")
			}
			return resp, nil
		})
		begun := time.Now()
		var got []client.Event
		for ev, err := range c.Events(t.Context(), "job_1", 3) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ev)
		}
		took := time.Since(begun)
		if diff := cmp.Diff([]client.Event{{Seq: 4, Status: client.StatusRunning}}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"3", "4", "4", "4"}, last); diff != "" {
			t.Error(diff)
		}
		if took < 45*time.Second || took > 50*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := through(t, func(_ int, r *http.Request) (*http.Response, error) {
			resp := eventStream("")
			resp.Body = pending{strings.NewReader(""), r.Context()}
			return resp, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		for ev, err := range c.Events(ctx, "job_1", 0) {
			if refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v, %v", ev, err)
			}
		}
		if ctx.Err() == nil {
			t.Error("it ended early")
		}
	})
}

// An answer that is not a stream of events, and would not be one on another
// connection, is an error at once.
func TestUnreadableEvents(t *testing.T) {
	for name, tc := range map[string]struct{ mediaType, stream, says string }{
		"a page":          {"text/html; charset=utf-8", "<html>", "text/html"},
		"no type":         {"", "id: 1\nevent: job\ndata: {\"status\": \"running\"}\n\n", "text/event-stream"},
		"no number":       {"text/event-stream", "event: job\ndata: {\"status\": \"running\"}\n\n", `""`},
		"no JSON":         {"text/event-stream", "id: 1\nevent: item\ndata: x\n\n", "event 1"},
		"no status":       {"text/event-stream", "id: 1\nevent: job\ndata: {}\n\n", "event 1"},
		"an endless line": {"text/event-stream", "data: " + strings.Repeat("x", 2<<20), "too long"},
		"endless lines":   {"text/event-stream", strings.Repeat("data: "+strings.Repeat("x", 1<<10)+"\n", 2<<10), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			c, tr := through(t, func(int, *http.Request) (*http.Response, error) {
				return reply(200, tc.stream, "Content-Type", tc.mediaType, "X-Request-Id", "r7"), nil
			})
			n := 0
			for ev, err := range c.Events(t.Context(), "job_1", 0) {
				n++
				var e *refersam.Error
				if !errors.As(err, &e) || e.Code != refersam.CodeUpstream || e.RequestID != "r7" || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%+v, %v", ev, err)
				}
			}
			if n != 1 || tr.tries != 1 {
				t.Errorf("%d errors in %d tries", n, tr.tries)
			}
		})
	}
}

// If streams end before they bring an event, the Client connects less and less
// often, until the context ends.
func TestEmptyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := through(t, func(int, *http.Request) (*http.Response, error) { return eventStream("retry: 1000\n\n"), nil })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		for ev, err := range c.Events(ctx, "job_1", 0) {
			if refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded {
				t.Errorf("%+v, %v", ev, err)
			}
		}
		if tr.tries < 14 || tr.tries > 18 || ctx.Err() == nil {
			t.Errorf("%d connections", tr.tries)
		}
	})
}
