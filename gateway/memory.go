package gateway

import (
	"context"
	"mime"
	"net/http"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"golang.org/x/sync/semaphore"
)

// hold is what a request has of the memory that all requests share. Who has
// none may wait for it; who has some may not, or two could wait for each other.
type hold struct {
	memory *semaphore.Weighted
	n      int64
	// share is that of its key, which comes before memory, or nil; shared bytes
	// are of it.
	share  *keyShare
	shared int64
	// impatient says that the request has some in another hold.
	impatient bool
}

// take adds n bytes, for which a hold of nothing waits until ctx ends.
func (h *hold) take(ctx context.Context, n int64) error {
	wait := h.n == 0 && !h.impatient
	var shared int64
	if h.share != nil {
		shared = min(n, h.share.most)
		if err := acquire(ctx, h.share.memory, shared, wait); err != nil {
			return err
		}
	}
	if err := acquire(ctx, h.memory, n, wait); err != nil {
		if h.share != nil {
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

// newHold makes a hold of memory for bodies and pictures, of which a key has a
// share. It is to be ended by done.
func (g *Gateway) newHold(consumer string) (h *hold, done func()) {
	h = &hold{memory: g.bodies}
	if consumer == anonymous { // which is everybody
		return h, h.release
	}
	h.share = g.shares.of(consumer)
	return h, func() {
		h.release()
		g.shares.leave(consumer)
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

// shares keep keys from taking all of a memory: what one may have at once is
// most, for more of which its requests wait for each other.
type shares struct {
	most int64

	mu    sync.Mutex
	byKey map[string]*keyShare
}

// keyShare is what one key may have.
type keyShare struct {
	memory *semaphore.Weighted
	most   int64
	holds  int
}

func newShares(all int64) *shares {
	return &shares{most: max(1, all/4*3), byKey: make(map[string]*keyShare)}
}

// of returns a key's share, until leave.
func (s *shares) of(key string) *keyShare {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.byKey[key]
	if of == nil {
		of = &keyShare{memory: semaphore.NewWeighted(s.most), most: s.most}
		s.byKey[key] = of
	}
	of.holds++
	return of
}

func (s *shares) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.byKey[key]
	if of.holds--; of.holds == 0 {
		delete(s.byKey, key)
	}
}

// reserveBody waits until there is memory for a request's body, and takes it
// until the request has been answered: from the share of its key first, so that
// a client with slow connections keeps no others waiting. What middleware has
// taken for the same body is not taken twice.
func (g *Gateway) reserveBody(c *gin.Context, limit bodyLimit) (h *hold, release func(), err error) {
	if h, ok := c.Value(keyHold).(*hold); ok {
		return h, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), g.cfg.RequestTimeout)
	defer cancel()
	h, release = g.newHold(consumer(c))
	if err := h.take(ctx, min(bodyMemory(c.Request, limit), g.cfg.BodyMemory)); err != nil {
		release()
		return nil, nil, err
	}
	c.Set(keyHold, h)
	return h, release, nil
}
