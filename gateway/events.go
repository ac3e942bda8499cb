package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/jobs"
)

const (
	// pollInterval is how often a stream looks for new events, heartbeat is how
	// often it sends a comment to show that it is alive.
	pollInterval = 250 * time.Millisecond
	heartbeat    = 15 * time.Second
	// eventsAtOnce is how many events are read at a time.
	eventsAtOnce = 100
	// maxStreams is how many streams may be open, and maxStreamsPerKey how many per
	// key.
	maxStreams       = 512
	maxStreamsPerKey = 32
)

// eventRoutes is the route for the events of a job.
type eventRoutes struct {
	jobs    Jobs
	streams streams
	// gate finds out that a key was revoked; authenticates reports whether clients
	// must send keys.
	gate          *access.Gate
	authenticates bool
	// draining is closed when streams must end.
	draining <-chan struct{}
	// timeout is how long a client may take to read an event.
	timeout time.Duration
	log     *slog.Logger
}

// events answers GET /v1/jobs/{id}/events with events as they happen, after the
// last event that the client has.
func (h *eventRoutes) events(c *gin.Context) error {
	after, field, err := lastEvent(c)
	if err != nil {
		return err
	}
	ctx, key, id := c.Request.Context(), account(c), c.Param("id")
	j, err := h.jobs.Job(ctx, key, id)
	if err != nil {
		return jobsError(err)
	}
	if after > j.Seq {
		return notGiven(field)
	}
	if j.Status.Ended() && after == j.Seq {
		// After this answer a browser's EventSource stops reconnecting.
		c.Status(http.StatusNoContent)
		return nil
	}
	if err := h.streams.enter(key); err != nil {
		return err
	}
	defer h.streams.leave(key)
	header := c.Writer.Header()
	header.Set("Content-Type", api.MediaEvents)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // stops proxies from buffering
	s := &stream{w: c.Writer, control: http.NewResponseController(c.Writer), timeout: h.timeout}
	if err := s.write("retry: 1000\n\n"); err != nil {
		return nil // the client has disconnected
	}
	if err := h.follow(ctx, s, j, after); err != nil {
		// The answer has begun, so an error can only end it. The client reconnects
		// and asks for the events after its last one.
		h.log.Warn("a stream of events ended early", "request_id", requestID(c), "cause", err)
	}
	return nil
}

// lastEvent returns the id of the last event that the client has, and the header or
// parameter that contains it. The parameter is for clients that cannot send a
// header.
func lastEvent(c *gin.Context) (last int64, field string, err error) {
	const param = "last_event_id"
	if err := onlyParams(c, param); err != nil {
		return 0, "", err
	}
	if query, ok := c.GetQuery(param); ok {
		field = param
		if last, err = eventNumber(field, query); err != nil {
			return 0, "", err
		}
	}
	if header := c.Request.Header.Values(api.HeaderEventID); len(header) > 0 {
		field = api.HeaderEventID
		last, err = eventNumber(field, header[0])
	}
	return last, field, err
}

func eventNumber(field, value string) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || n > api.MaxEvent {
		return 0, notGiven(field)
	}
	return n, nil
}

func notGiven(field string) error {
	return refersam.Invalidf(field, "The id of the last event must be one that the stream sent.")
}

// follow writes the events after a given one until the job's last event, or until
// the client disconnects or the gateway stops.
func (h *eventRoutes) follow(ctx context.Context, s *stream, j *jobs.Job, after int64) error {
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	quiet := time.Now()
	for {
		events, err := h.jobs.Events(ctx, j.ID, after, eventsAtOnce)
		if err != nil {
			return ignoreGone(ctx, err)
		}
		for _, ev := range events {
			if err := h.writeEvent(ctx, s, j, ev); err != nil {
				return ignoreGone(ctx, err)
			}
			if after = ev.Seq; ev.Item < 0 && ev.Status.Ended() {
				return nil
			}
			quiet = time.Now()
		}
		if len(events) == eventsAtOnce {
			continue
		}
		if !h.stillWorks(ctx, j.APIKey) {
			return nil // the next request gets the error
		}
		if now, err := h.jobs.Job(ctx, j.APIKey, j.ID); err != nil || now.Status.Ended() && after >= now.Seq {
			return ignoreGone(ctx, err) // the job was deleted, or all events were sent
		}
		if time.Since(quiet) >= heartbeat {
			if err := s.write(":\n\n"); err != nil {
				return nil
			}
			quiet = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-h.draining:
			return nil
		case <-poll.C:
		}
	}
}

// stillWorks reports whether a key is valid. A key that was revoked or has expired
// elsewhere may count as valid for a short time, because keys are cached.
func (h *eventRoutes) stillWorks(ctx context.Context, id string) bool {
	if !h.authenticates {
		return true
	}
	key, err := h.gate.Key(ctx, id)
	return err != nil || key != nil && key.Live(time.Now()) == nil
}

// errGone says that the client no longer reads the stream.
var errGone = errors.New("the client has gone")

func ignoreGone(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, errGone) || errors.Is(err, jobs.ErrNotFound) {
		return nil
	}
	return err
}

func (h *eventRoutes) writeEvent(ctx context.Context, s *stream, j *jobs.Job, ev jobs.Event) error {
	kind, data := "job", any(api.JobEvent{Job: j.ID, Status: api.JobStatus(ev.Status)})
	if ev.Item >= 0 {
		item, err := h.jobs.Item(ctx, j.APIKey, j.ID, ev.Item)
		if err != nil {
			return err
		}
		kind, data = "item", answer.NewJobItem(j, item)
	}
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return s.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", ev.Seq, kind, body))
}

// stream is an answer that continues until the job ends.
type stream struct {
	w       io.Writer
	control *http.ResponseController
	timeout time.Duration
}

// write sends bytes at once. A client that does not read them in time counts as
// disconnected.
func (s *stream) write(text string) error {
	// A test's writer has no deadline.
	if err := s.control.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return errors.Join(errGone, err)
	}
	if _, err := io.WriteString(s.w, text); err != nil {
		return errors.Join(errGone, err)
	}
	if err := s.control.Flush(); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

// streams counts the open streams per key.
type streams struct {
	mu    sync.Mutex
	all   int
	byKey map[string]int
}

func (s *streams) enter(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.all >= maxStreams:
		return refersam.Errorf(refersam.CodeOverloaded, "The service has %d open streams of events, which is its limit; retry shortly.", maxStreams)
	case s.byKey[key] >= maxStreamsPerKey:
		return &refersam.Error{
			Code:       refersam.CodeQuotaExceeded,
			Message:    fmt.Sprintf("The API key may have %d streams of events open; close one that is no longer needed.", maxStreamsPerKey),
			RetryAfter: time.Second,
		}
	}
	s.all++
	s.byKey[key]++
	return nil
}

func (s *streams) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.byKey[key]--; s.byKey[key] == 0 {
		delete(s.byKey, key)
	}
}
