package store

import (
	"math"
	"time"
)

// Bucket is a token bucket: it holds at most Rate.Requests tokens, and
// Rate.Requests more flow in during each Rate.Window.
type Bucket struct {
	Tokens  float64
	Updated time.Time
}

// FullBucket returns a bucket that holds as many tokens as any rate allows.
func FullBucket(now time.Time) Bucket { return Bucket{math.Inf(1), now} }

// Fill adds the tokens that flowed in since the last call. A now that is earlier
// than Updated adds nothing and leaves Updated as it is, because the clocks of
// gateways differ a little and no time may count twice.
func (b *Bucket) Fill(rate Rate, now time.Time) {
	if passed := now.Sub(b.Updated); passed > 0 {
		b.Tokens += float64(rate.Requests) * passed.Seconds() / rate.Window.Seconds()
		b.Updated = now
	}
	b.Tokens = min(b.Tokens, float64(rate.Requests))
}

// Take removes up to want whole tokens and returns how many.
func (b *Bucket) Take(want int64) int64 {
	n := min(want, int64(b.Tokens))
	b.Tokens -= float64(n)
	return n
}

// Time returns how long the rate takes to allow a number of requests.
func (r Rate) Time(requests float64) time.Duration {
	return time.Duration(requests * float64(r.Window) / float64(r.Requests))
}
