package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxSilence is how long a stream may be silent. The service sends a comment
	// every 15 s to show that it is alive.
	maxSilence = 45 * time.Second
	// maxEvent bounds an event, in bytes. The largest event is an item with its
	// problem.
	maxEvent = 1 << 20

	mediaEvents = "text/event-stream"
)

// Event reports that a job has a new status, or that one of its items has ended.
type Event struct {
	// Seq numbers the events of a job from 1.
	Seq int64
	// Status is the new status of Item, or of the job if Item is nil.
	Status Status
	// Item is nil if the event is about the whole job.
	Item *JobItem
}

// Events follows a job. It yields the events after the one numbered after (0 for
// all events) as they happen, and stops after the job's end. If a connection breaks
// or is silent for 45 s, Events connects again, after a pause that grows up to 10 s
// as long as no event arrives. No event is lost or yielded twice. The sequence
// stops after an error.
func (c *Client) Events(ctx context.Context, id string, after int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f := follower{c: c, path: jobPath(id) + "/events", last: after, yield: yield}
		for tries := 1; ; tries++ {
			before := f.last
			done, err := f.connect(ctx)
			if done {
				return
			}
			if f.last > before {
				tries = 1
			}
			if err == nil {
				err = sleep(ctx, pauseAfter(tries, 0), nil)
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
		}
	}
}

// follower follows a job over a series of connections.
type follower struct {
	c    *Client
	path string
	// last is the number of the last event that was yielded.
	last  int64
	yield func(Event, error) bool
}

// connect yields the events of one connection. done reports that no further
// connection is needed. A broken connection is not an error.
func (f *follower) connect(ctx context.Context) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := call{method: http.MethodGet, path: f.path, header: http.Header{"Accept": {mediaEvents}}, stream: true}
	if f.last > 0 {
		r.header.Set("Last-Event-Id", strconv.FormatInt(f.last, 10))
	}
	a, err := f.c.send(ctx, r)
	if err != nil {
		return false, err
	}
	defer a.stream.Close()
	if a.status == http.StatusNoContent { // the job has ended, and all its events were sent
		return true, nil
	}
	if a.mediaType() != mediaEvents {
		return false, a.unreadable(errors.New("the content type must be " + mediaEvents))
	}
	watch := time.AfterFunc(maxSilence, cancel)
	defer watch.Stop()
	done, err = f.read(a.stream, func() { watch.Reset(maxSilence) })
	if err != nil {
		err = a.unreadable(err)
	}
	return done, err
}

// read yields the events of a stream until it ends or breaks, and calls alive at
// each line. It returns an error only if another connection would give the same
// error.
func (f *follower) read(stream io.Reader, alive func()) (done bool, err error) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	var id, kind string
	var data []byte
	for lines.Scan() {
		alive()
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case lines.Text() == "":
			done, err := f.event(id, kind, data)
			if done || err != nil {
				return done, err
			}
			id, kind, data = "", "", nil
		case name == "id":
			id = value
		case name == "event":
			kind = value
		case name == "data":
			if len(data)+len(value) > maxEvent {
				return false, bufio.ErrTooLong
			}
			data = append(data, value...)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return false, lines.Err()
	}
	return false, nil
}

// event yields an event. done reports that no further event is needed. Unknown
// kinds of event are skipped.
func (f *follower) event(id, kind string, data []byte) (done bool, err error) {
	if kind != "job" && kind != "item" {
		return false, nil
	}
	seq, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return false, fmt.Errorf("an event has the id %q, want a positive number", id)
	}
	if seq <= f.last {
		return false, nil
	}
	var item JobItem
	if err := decode(data, &item); err != nil {
		return false, fmt.Errorf("event %d: %w", seq, err)
	}
	f.last = seq
	ev := Event{Seq: seq, Status: item.Status}
	if kind == "item" {
		ev.Item = &item
	}
	return !f.yield(ev, nil) || kind == "job" && ev.Status.Ended(), nil
}
