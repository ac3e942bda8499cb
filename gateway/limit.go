package gateway

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// admit counts a request against the rate of its key, and reports the limits of the
// key and the rest of its rate in RateLimit-Policy and RateLimit
// (draft-ietf-httpapi-ratelimit-headers-10).
func (d *door) admit(c *gin.Context, key *store.Key) error {
	h := c.Writer.Header()
	if key.Rate.Requests > 0 {
		h.Add("RateLimit-Policy", fmt.Sprintf(`"requests";q=%d;w=%d`, key.Rate.Requests, seconds(key.Rate.Window)))
	}
	if key.Concurrency > 0 {
		h.Add("RateLimit-Policy", `"concurrency";q=`+strconv.FormatInt(key.Concurrency, 10)+`;qu="concurrent-requests"`)
	}
	rest, err := d.gate.Admit(c.Request.Context(), key)
	if key.Rate.Requests > 0 && (err == nil || refersam.ErrorCode(err) == refersam.CodeQuotaExceeded) {
		h.Set("RateLimit", fmt.Sprintf(`"requests";r=%d;t=%d`, rest.Requests, seconds(rest.Full)))
	}
	return err
}

func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// limitConcurrency is middleware that refuses a request while its key has as
// many requests in flight as the key allows.
func (d *door) limitConcurrency(c *gin.Context) {
	key := apiKey(c)
	if key == nil {
		return
	}
	leave, err := d.gate.Enter(c.Request.Context(), key)
	if err != nil {
		fail(c, err)
		return
	}
	defer leave()
	c.Next()
}
