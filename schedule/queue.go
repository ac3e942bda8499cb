package schedule

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"time"
)

// Class says which work is done first: a row of a class never waits for a row
// of a later class that is not under way.
type Class int

// The classes, most urgent first.
const (
	Interactive Class = iota
	Batch
	Shadow
	numClasses
)

// String returns the class's name in metrics.
func (c Class) String() string {
	return [numClasses]string{"interactive", "batch", "shadow"}[c]
}

// queue holds the waiting rows of one model and counts the rows that admitted
// jobs have yet to send.
type queue[R, A any] struct {
	scheduler *Scheduler[R, A]
	model     string
	maxBatch  int
	classes   [numClasses]class[R, A]
	// again holds rows that a replica failed, before all others.
	again []*row[R, A]
	// waiting counts the rows of all classes, including the rows in again.
	waiting int
	late    ratios // of admitted rows, against what was predicted at the door
	caution caution
	since   time.Time // rows that were admitted before it say nothing about late
	trials  trials
}

// class shares out a model's rows among keys by start-time fair queueing
// (Goyal et al., SIGCOMM 1996): each key's rows carry tags 1/weight apart, the
// least tag is served, and a key that comes back gets no credit for the time
// that it was away. Within a key the earliest deadline is first.
type class[R, A any] struct {
	flows map[string]*flow[R, A]
	ready flowHeap[R, A] // flows with a row that can be sent
	vtime float64        // tag of the row served last
	rows  int            // that wait or are to come
}

// flow is the jobs of one key in one class.
type flow[R, A any] struct {
	key    string
	weight float64
	jobs   []*Ticket[R, A] // by deadline; each has rows that wait or are to come
	rows   int             // of jobs, that wait or are to come
	sent   int             // of rows, that can be sent
	tag    float64
	index  int // in class.ready, -1 when not there
}

// maxIdleFlows bounds how many keys without rows a class remembers.
const maxIdleFlows = 256

func newQueue[R, A any](s *Scheduler[R, A], model string, maxBatch int) *queue[R, A] {
	q := &queue[R, A]{scheduler: s, model: model, maxBatch: maxBatch}
	for i := range q.classes {
		q.classes[i].flows = make(map[string]*flow[R, A])
	}
	return q
}

// add enters an admitted job.
func (q *queue[R, A]) add(t *Ticket[R, A]) {
	c := &q.classes[t.job.Class]
	f := c.flows[t.job.Key]
	if f == nil {
		c.forget()
		f = &flow[R, A]{key: t.job.Key, index: -1}
		c.flows[t.job.Key] = f
	}
	f.weight = t.job.weight()
	i, _ := slices.BinarySearchFunc(f.jobs, t, func(a, b *Ticket[R, A]) int {
		return cmp.Or(a.due.Compare(b.due), -1) // behind jobs with the same deadline
	})
	f.jobs = slices.Insert(f.jobs, i, t)
	t.flow = f
	q.count(t, t.job.Rows)
}

// forget drops keys without rows when there are too many.
func (c *class[R, A]) forget() {
	if len(c.flows) < maxIdleFlows {
		return
	}
	for key, f := range c.flows {
		if f.rows == 0 {
			delete(c.flows, key)
		}
	}
}

// count changes how many rows of t wait or are to come.
func (q *queue[R, A]) count(t *Ticket[R, A], rows int) {
	t.waiting += rows
	t.flow.rows += rows
	q.classes[t.job.Class].rows += rows
	q.waiting += rows
	if t.waiting == 0 {
		i := slices.Index(t.flow.jobs, t)
		t.flow.jobs = slices.Delete(t.flow.jobs, i, i+1)
	}
}

// countSent changes how many rows of t can be sent.
func (q *queue[R, A]) countSent(t *Ticket[R, A], rows int) {
	c, f := &q.classes[t.job.Class], t.flow
	f.sent += rows
	switch {
	case f.sent > 0 && f.index < 0:
		f.tag = max(f.tag, c.vtime)
		heap.Push(&c.ready, f)
	case f.sent == 0 && f.index >= 0:
		heap.Remove(&c.ready, f.index)
	}
}

// next returns the next row to send to a replica, nil if there is none. alone
// says that r is the only replica that could take it.
func (q *queue[R, A]) next(r *replica[R, A], alone bool) *row[R, A] {
	for _, row := range q.again {
		if alone || row.failedBy != r {
			return row
		}
	}
	for i := range q.classes {
		if ready := q.classes[i].ready; len(ready) > 0 {
			return ready[0].first()
		}
	}
	return nil
}

// first returns the flow's first row that can be sent.
func (f *flow[R, A]) first() *row[R, A] {
	for _, t := range f.jobs {
		for i := range t.rows {
			if t.rows[i].state == rowWaiting {
				return &t.rows[i]
			}
		}
	}
	return nil
}

// take removes a row that next returned. The caller sends it.
func (q *queue[R, A]) take(row *row[R, A]) {
	if row.state == rowWaiting {
		c, f := &q.classes[row.ticket.job.Class], row.ticket.flow
		c.vtime = f.tag
		f.tag += 1 / f.weight
		heap.Fix(&c.ready, f.index)
	}
	q.leave(row)
}

// leave removes a row, if it waits, without its key's having been served.
func (q *queue[R, A]) leave(row *row[R, A]) {
	if row.state == rowWaiting {
		row.state = rowTaken
		q.countSent(row.ticket, -1)
		q.count(row.ticket, -1)
		return
	}
	if i := slices.Index(q.again, row); i >= 0 {
		q.again = slices.Delete(q.again, i, i+1)
		q.waiting--
	}
}

// retry enters a row again that a replica failed.
func (q *queue[R, A]) retry(row *row[R, A]) {
	q.again = append(q.again, row)
	q.waiting++
}

// ahead returns how many rows of q are served before the last row of a new job
// with this class, key, weight and deadline, if nothing else comes.
func (q *queue[R, A]) ahead(job *Job, due time.Time) int {
	rows := len(q.again)
	for i := range int(job.Class) {
		rows += q.classes[i].rows
	}
	c := &q.classes[job.Class]
	own := job.Rows
	tag := c.vtime
	if f := c.flows[job.Key]; f != nil {
		own += f.before(due)
		tag = max(tag, f.tag)
	}
	last := tag + float64(own)/job.weight()
	for key, f := range c.flows {
		if key == job.Key || f.rows == 0 {
			continue
		}
		others := math.Ceil((last - max(f.tag, c.vtime)) * f.weight)
		rows += int(min(max(others, 0), float64(f.rows)))
	}
	return rows + own - job.Rows
}

// before counts the flow's rows with a deadline no later than due.
func (f *flow[R, A]) before(due time.Time) int {
	rows := f.rows
	for _, t := range slices.Backward(f.jobs) {
		if !t.due.After(due) {
			break
		}
		rows -= t.waiting
	}
	return rows
}

// urgency returns the class and the deadline of the next row to send; ok is
// false if there is none.
func (q *queue[R, A]) urgency() (c Class, due time.Time, ok bool) {
	if len(q.again) > 0 {
		return Interactive, q.again[0].ticket.due, true
	}
	for i := range q.classes {
		if ready := q.classes[i].ready; len(ready) > 0 {
			return Class(i), ready[0].first().ticket.due, true
		}
	}
	return 0, time.Time{}, false
}

// sent counts the rows that can be sent.
func (q *queue[R, A]) sent() int {
	rows := len(q.again)
	for i := range q.classes {
		for _, f := range q.classes[i].ready {
			rows += f.sent
		}
	}
	return rows
}

// flowHeap is a heap.Interface of flows by tag.
type flowHeap[R, A any] []*flow[R, A]

func (h flowHeap[R, A]) Len() int { return len(h) }

func (h flowHeap[R, A]) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].tag, h[j].tag), cmp.Compare(h[i].key, h[j].key)) < 0
}

func (h flowHeap[R, A]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *flowHeap[R, A]) Push(x any) {
	f := x.(*flow[R, A])
	f.index = len(*h)
	*h = append(*h, f)
}

// Pop implements heap.Interface.
func (h *flowHeap[R, A]) Pop() any {
	old := *h
	f := old[len(old)-1]
	old[len(old)-1] = nil
	f.index = -1
	*h = old[:len(old)-1]
	return f
}

// overturn forgets how good the predictions at the door were, because they
// were made from a forecast that was wrong.
func (q *queue[R, A]) overturn(now time.Time) {
	q.late, q.since = ratios{}, now
}

// predicted learns the error of the predictions at admission from rows that are
// done at the given time. Only the worst row counts, because rows of one batch
// are late together. percentile is how many percent must not be late.
func (q *queue[R, A]) predicted(rows []*row[R, A], done time.Time, percentile float64) {
	worst, missed := 0.0, false
	for _, row := range rows {
		t := row.ticket
		if !t.admitted.After(q.since) {
			continue
		}
		if expected := t.expected.Sub(t.admitted); expected > 0 {
			ratio := float64(done.Sub(t.admitted)) / float64(expected)
			worst = max(worst, ratio)
			missed = missed || done.After(t.due)
		}
	}
	if worst > 0 {
		q.late.add(worst)
		q.caution.learn(missed, percentile)
	}
}
