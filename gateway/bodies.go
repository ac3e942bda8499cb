package gateway

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
)

// bodies leases memory for the bodies of requests.
type bodies struct {
	memory *answer.Service
	// maxImage is the size of the largest encoded picture in bytes.
	maxImage int64
	// wait bounds the wait for memory; read bounds the time for a whole body.
	wait, read time.Duration
}

// dropBody returns the memory of a body that is no longer needed.
func dropBody(c *gin.Context, lease *answer.Lease) {
	c.Request.Body = http.NoBody // an Idempotency-Key made it a buffer
	lease.Release()
}

// bodyLimit returns how many bytes a body of a media type may have.
type bodyLimit func(mediaType string) int64

// noBodyLimit is the bodyLimit of routes without a body, after noBody.
func noBodyLimit(string) int64 { return 0 }

// batchLimit is the bodyLimit of batches.
func batchLimit(string) int64 { return api.MaxBatchBytes }

// pictureLimit is the bodyLimit of routes for one picture.
func (b *bodies) pictureLimit(mediaType string) int64 { return intake.MaxBody(mediaType, b.maxImage) }

// bodyMemory is how many bytes of memory reading a request's body takes at most.
func bodyMemory(r *http.Request, limit bodyLimit) int64 {
	size := limit(intake.MediaType(r))
	if r.ContentLength >= 0 {
		size = min(size, r.ContentLength)
	}
	return answer.BodyCost * size
}

// reserve waits until there is memory for a request's body and leases it until
// release. If middleware has leased it already, reserve returns that lease. A body
// that announces more bytes than limit allows is refused at once.
func (b *bodies) reserve(c *gin.Context, limit bodyLimit) (lease *answer.Lease, release func(), err error) {
	if lease, ok := c.Value(keyLease).(*answer.Lease); ok {
		return lease, func() {}, nil
	}
	begun := time.Now()
	kind := intake.MediaType(c.Request)
	if size, most := c.Request.ContentLength, limit(kind); size > most {
		err := refersam.Errorf(refersam.CodeImageTooLarge, "The body of the request has %d bytes, but this route accepts at most %d.", size, most)
		if most == b.pictureLimit(kind) {
			err.Message += fmt.Sprintf(" A picture may have at most %d bytes.", b.maxImage)
		}
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), b.wait)
	defer cancel()
	lease = b.memory.Lease(fairnessKey(c))
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
	c.Request.Body = intake.Pace(body, http.NewResponseController(c.Writer), c.Request.ContentLength, begun, b.read)
	return lease, func() {
		c.Request.Body = body // net/http checks how far it was read
		end()
	}, nil
}
