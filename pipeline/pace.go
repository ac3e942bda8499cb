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
	// Time and cost of the decoded pictures. Older pictures count less.
	took, cost float64
}

const (
	// paceMemory is how much later cost reduces the weight of an observation to
	// 1/e: some ten photographs of 12 megapixels.
	paceMemory = 128 << 20
	// paceTrust is how much cost must be learnt before check uses the pace: until
	// then no picture is refused.
	paceTrust = 2 << 20
	// paceDoubt is the factor that each refusal multiplies the pace by. It is
	// needed because a pace that was learnt on a bad day may refuse all pictures:
	// then nothing else corrects it.
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
	err := refersam.Errorf(refersam.CodeDeadlineExceeded,
		"The picture would take about %v to decode, and %v are left; send a smaller one.",
		need.Round(time.Millisecond), max(left, 0).Round(time.Millisecond))
	err.At = refersam.AtImage
	return err
}
