package pipeline

import (
	"math"
	"sync"
	"time"

	"github.com/refersam/refersam"
)

// pace is how long a unit of preprocess.Encoded.Cost takes on this machine, as
// learnt from the pictures that were decoded last.
type pace struct {
	mu sync.Mutex
	// Time and cost of what was decoded, of which old pictures count less.
	took, cost float64
}

const (
	// paceMemory is the cost after whose work an observation counts 1/e: some
	// ten photographs of 12 megapixels.
	paceMemory = 128 << 20
	// paceTrust is the cost from which the pace is believed: until then no
	// picture is refused.
	paceTrust = 2 << 20
	// paceDoubt is what a refusal takes off the pace. It is what lets a pace
	// that was learnt on a bad day be learnt anew: nothing else does when all
	// pictures are refused.
	paceDoubt = 0.95
)

// learn takes in that a picture of a cost was decoded in a time.
func (p *pace) learn(cost int64, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := math.Exp(-float64(cost) / paceMemory)
	p.took = p.took*keep + float64(took)
	p.cost = p.cost*keep + float64(cost)
}

// check returns an error when a picture of a cost would not be decoded by
// deadline.
func (p *pace) check(cost int64, deadline time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cost < paceTrust {
		return nil
	}
	need := time.Duration(p.took / p.cost * float64(cost))
	left := time.Until(deadline)
	if need <= left {
		return nil
	}
	p.took *= paceDoubt
	return refersam.Errorf(refersam.CodeDeadlineExceeded,
		"The picture would take about %v to decode, and %v are left; send a smaller one.",
		need.Round(time.Millisecond), max(left, 0).Round(time.Millisecond))
}
