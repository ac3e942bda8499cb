package gateway

import (
	"context"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam/answer"
)

// dropBody returns the memory of a body that holds nothing of the request any
// more.
func dropBody(c *gin.Context, lease *answer.Lease) {
	c.Request.Body = http.NoBody // an Idempotency-Key had it buffered
	lease.Release()
}

// bodyLimit says how many bytes a body of a media type may have.
type bodyLimit func(mediaType string) int64

// noBodyLimit is the bodyLimit of routes that take no body, after noBody.
func noBodyLimit(string) int64 { return 0 }

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
	return answer.BodyCost * size
}

// reserveBody waits until there is memory for a request's body and leases it
// until release. If middleware has leased it already, that lease is returned. A
// body that announces more bytes than limit allows is refused at once.
func (g *Gateway) reserveBody(c *gin.Context, limit bodyLimit) (lease *answer.Lease, release func(), err error) {
	if lease, ok := c.Value(keyLease).(*answer.Lease); ok {
		return lease, func() {}, nil
	}
	begun := time.Now()
	if most := limit(mediaType(c.Request)); c.Request.ContentLength > most {
		return nil, nil, bodyTooLarge(most)
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), g.cfg.Answers.RequestTimeout)
	defer cancel()
	lease = g.answers.Lease(fairnessKey(c))
	release = lease.Close
	if err := lease.Take(ctx, bodyMemory(c.Request, limit)); err != nil {
		release()
		return nil, nil, err
	}
	c.Set(keyLease, lease)
	if c.Request.ContentLength == 0 {
		return lease, release, nil
	}
	body, end := c.Request.Body, release
	c.Request.Body = &pacedBody{
		ReadCloser: body, control: http.NewResponseController(c.Writer),
		begun: time.Now(), end: begun.Add(g.cfg.ReadTimeout), most: g.cfg.ReadTimeout, size: c.Request.ContentLength,
	}
	return lease, func() {
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
