package gateway

import (
	"context"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"golang.org/x/sync/semaphore"
)

// hold is what a request has of the memory that all requests share. Who has
// none may wait for it; who has some may not, or two could wait for each other.
type hold struct {
	memory *semaphore.Weighted
	n      int64
	// share is that of its client, which comes before memory, or nil; shared bytes
	// are of it.
	share  *clientShare
	shared int64
	// impatient says that the request has some in another hold, and with that its
	// part of the share.
	impatient bool
}

// take adds n bytes, for which a hold of nothing waits until ctx ends.
func (h *hold) take(ctx context.Context, n int64) error {
	wait := h.n == 0 && !h.impatient
	var shared int64
	if h.share != nil && !h.impatient {
		shared = min(n, h.share.most)
		if err := acquire(ctx, h.share.memory, shared, wait); err != nil {
			return err
		}
	}
	if err := acquire(ctx, h.memory, n, wait); err != nil {
		if shared > 0 {
			h.share.memory.Release(shared)
		}
		return err
	}
	h.n, h.shared = h.n+n, h.shared+shared
	return nil
}

func acquire(ctx context.Context, memory *semaphore.Weighted, n int64, wait bool) error {
	err := context.DeadlineExceeded
	if wait {
		err = memory.Acquire(ctx, n)
	} else if memory.TryAcquire(n) {
		err = nil
	}
	if err != nil {
		return &refersam.Error{
			Code:    refersam.CodeOverloaded,
			Message: "The memory for requests is taken by others; try again soon.",
			Err:     err,
		}
	}
	return nil
}

// release gives all of it back.
func (h *hold) release() {
	h.memory.Release(h.n)
	if h.share != nil {
		h.share.memory.Release(h.shared)
	}
	h.n, h.shared = 0, 0
}

// newHold makes a hold of memory for bodies and pictures, of which a client (a
// key or, without keys, an address) has a share. It is to be ended by done.
func (g *Gateway) newHold(sharer string) (h *hold, done func()) {
	h = &hold{memory: g.bodies, share: g.shares.of(sharer)}
	return h, func() {
		h.release()
		g.shares.leave(sharer)
	}
}

// dropBody gives the memory of a body back of which nothing is left that counts.
func (g *Gateway) dropBody(c *gin.Context, h *hold) {
	c.Request.Body = http.NoBody // an Idempotency-Key has had it buffered
	h.release()
}

// bodyLimit says how many bytes a body of a media type may have.
type bodyLimit func(mediaType string) int64

// nothing is that of routes that take no body, after noBody.
func nothing(string) int64 { return 0 }

// pictureLimit is that of routes that take one picture.
func (g *Gateway) pictureLimit(mediaType string) int64 { return maxBody(mediaType, g.maxImage) }

// mediaType is what a request says that its body is.
func mediaType(r *http.Request) string {
	t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return t
}

// bodyMemory is how many bytes of memory reading a request's body takes at
// most.
func bodyMemory(r *http.Request, limit bodyLimit) int64 {
	size := limit(mediaType(r))
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength)
	}
	return bodyCost * size
}

// shares keep clients from taking all of a memory: what one may have at once is
// most, for more of which its requests wait for each other.
type shares struct {
	most int64

	mu sync.Mutex
	by map[string]*clientShare
}

// clientShare is what one client may have.
type clientShare struct {
	memory *semaphore.Weighted
	most   int64
	holds  int
}

func newShares(all int64) *shares {
	return &shares{most: max(1, all/4*3), by: make(map[string]*clientShare)}
}

// of returns a client's share, until leave.
func (s *shares) of(sharer string) *clientShare {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.by[sharer]
	if of == nil {
		of = &clientShare{memory: semaphore.NewWeighted(s.most), most: s.most}
		s.by[sharer] = of
	}
	of.holds++
	return of
}

func (s *shares) leave(sharer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.by[sharer]
	if of.holds--; of.holds == 0 {
		delete(s.by, sharer)
	}
}

// reserveBody waits until there is memory for a request's body, and takes it
// until the request has been answered: from the share of its client first, so
// that one with slow connections keeps no others waiting. What middleware has
// taken for the same body is not taken twice. A body that says it is too large is
// not waited for.
func (g *Gateway) reserveBody(c *gin.Context, limit bodyLimit) (h *hold, release func(), err error) {
	if h, ok := c.Value(keyHold).(*hold); ok {
		return h, func() {}, nil
	}
	begun := time.Now()
	if most := limit(mediaType(c.Request)); c.Request.ContentLength > most {
		return nil, nil, bodyTooLarge(most)
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), g.cfg.RequestTimeout)
	defer cancel()
	h, release = g.newHold(sharer(c))
	if err := h.take(ctx, min(bodyMemory(c.Request, limit), g.cfg.BodyMemory)); err != nil {
		release()
		return nil, nil, err
	}
	c.Set(keyHold, h)
	if c.Request.ContentLength == 0 {
		return h, release, nil
	}
	body, end := c.Request.Body, release
	c.Request.Body = &pacedBody{
		ReadCloser: body, control: http.NewResponseController(c.Writer),
		begun: time.Now(), end: begun.Add(g.cfg.ReadTimeout), most: g.cfg.ReadTimeout, size: c.Request.ContentLength,
	}
	return h, func() {
		c.Request.Body = body // of which net/http looks how far it was read
		end()
	}, nil
}

// pacedBody is a body that must come as evenly as its size and the time for it
// tell, or memory would be kept for what never comes. It may be a sixth of that
// time behind. One that does not tell its size may be so long silent.
type pacedBody struct {
	io.ReadCloser
	control *http.ResponseController
	// The body has begun to be read at begun, ends by end, and of its size bytes
	// that take most read have come. The size is negative if it is not known.
	begun, end time.Time
	most       time.Duration
	size, read int64
	// err is how it has ended. From then on net/http reads the connection itself,
	// to see whether the client goes away, and a deadline would be taken for that.
	err error
}

// Read implements io.Reader. What comes too late is os.ErrDeadlineExceeded.
func (b *pacedBody) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	_ = b.control.SetReadDeadline(b.due()) // which the connection of a test may not have
	n, b.err = b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, b.err
}

// due is when the next bytes must be there.
func (b *pacedBody) due() time.Time {
	due := time.Now()
	if b.size > 0 {
		due = b.begun.Add(time.Duration(float64(b.most) * float64(b.read) / float64(b.size)))
	}
	if due = due.Add(b.most / 6); due.After(b.end) {
		return b.end
	}
	return due
}
