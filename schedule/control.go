package schedule

import (
	"context"
	"time"

	"github.com/refersam/refersam"
)

const (
	controlPeriod = time.Second
	// controlBatches is how many batches must have ended before a window is
	// judged: the throughput of fewer is mostly noise.
	controlBatches = 20
	// Between minWaiting and maxWaiting batches should wait inside a replica:
	// less may let a stage idle, more only takes them out of our hands.
	minWaiting, maxWaiting = 1.0, 2.0
	// A larger window must raise throughput by this much to stay.
	worthwhile = 1.03
	// maxRest is how many judgements a window that was not worthwhile is left
	// alone at most.
	maxRest = 64
)

// controller adapts how many batches a replica may have at once: more while
// that raises throughput, fewer when they wait inside the replica.
type controller struct {
	limited bool // a full batch waited for a place
	begin   time.Time
	batches int
	rows    int
	load    Load

	trial bool    // the window was raised at the last judgement
	base  float64 // rows a second before
	rest  int     // judgements to wait until the next trial
	pause int     // rest after the next trial that fails
}

// count takes in a batch that has ended.
func (c *controller) count(rows int) {
	c.batches++
	c.rows += rows
}

// control judges the windows of all replicas until the Scheduler is closed.
func (s *Scheduler[R, A]) control() {
	ticker := time.NewTicker(controlPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		var due []*replica[R, A]
		for _, r := range s.replicas {
			if r.healthy() && r.control.batches >= controlBatches {
				due = append(due, r)
			}
		}
		models := make([]string, len(s.queues))
		for i, q := range s.queues {
			models[i] = q.model
		}
		s.mu.Unlock()
		for _, r := range due {
			load, err := r.load(models)
			s.mu.Lock()
			r.judge(load, err == nil)
			s.dispatch()
			s.unlock()
		}
	}
}

// load sums up a replica's load over all models.
func (r *replica[R, A]) load(models []string) (Load, error) {
	s := r.scheduler
	ctx, cancel := context.WithTimeout(s.ctx, controlPeriod)
	defer cancel()
	var sum Load
	for _, model := range models {
		load, err := r.Load(ctx, model)
		if refersam.ErrorCode(err) == refersam.CodeNotReady {
			continue
		}
		if err != nil {
			return Load{}, err
		}
		sum.Batches += load.Batches
		sum.Waited += load.Waited
	}
	return sum, nil
}

// judge changes a replica's window by one at most.
func (r *replica[R, A]) judge(load Load, reported bool) {
	s := r.scheduler
	c := &r.control
	now := time.Now()
	rate := float64(c.rows) / now.Sub(c.begin).Seconds()
	waiting := -1.0 // batches that wait inside the replica
	if ran := load.Batches - c.load.Batches; reported && c.load.Batches > 0 && load.Batches > c.load.Batches {
		each := (load.Waited - c.load.Waited).Seconds() / float64(ran)
		waiting = each * float64(c.batches) / now.Sub(c.begin).Seconds()
	}
	steady := c.limited && !c.begin.IsZero()
	switch {
	case waiting > maxWaiting && r.window > minWindow:
		r.window--
		c.trial = false
	case c.trial && steady:
		c.trial = false
		if rate < c.base*worthwhile {
			r.window--
			c.pause = min(max(2*c.pause, 4), maxRest)
			c.rest = c.pause
		} else {
			c.pause = 0
		}
	case c.rest > 0:
		c.rest--
	case steady && waiting < minWaiting && r.window < s.cfg.MaxWindow:
		r.window++
		c.trial, c.base = true, rate
	}
	*c = controller{begin: now, load: load, trial: c.trial, base: c.base, rest: c.rest, pause: c.pause}
}
