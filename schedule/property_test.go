package schedule_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/schedule"
	"pgregory.net/rapid"
)

// TestScheduler_losesNothing sends random jobs before replicas that fail at
// random: each row is answered once, with its own answer or a known error,
// unless it was dropped, and is released once; and nothing is left in the end.
func TestScheduler_losesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) { loseNothing(rt) })
	})
}

func loseNothing(t *rapid.T) {
	const rows = 7
	cfg := schedule.DefaultConfig()
	cfg.Mode = rapid.SampledFrom([]schedule.Mode{schedule.Adaptive, schedule.Fixed, schedule.Off}).Draw(t, "mode")
	cfg.MaxRows = rapid.IntRange(0, 10).Draw(t, "max rows")
	cfg.MaxWait = time.Duration(rapid.IntRange(0, 20).Draw(t, "max wait")) * time.Millisecond
	cfg.MaxWindow = rapid.IntRange(1, 6).Draw(t, "window")
	cfg.Admission = rapid.Bool().Draw(t, "admission")
	cfg.Hedge = rapid.Bool().Draw(t, "hedge")
	machines := make([]*machine, rapid.IntRange(1, 3).Draw(t, "replicas"))
	for i := range machines {
		machines[i] = newMachine(fmt.Sprint("replica ", i))
		machines[i].jitter = 0.5
	}
	var released [200 * rows]atomic.Int32
	s := startReleasing(t, cfg, func(row int) { released[row-1].Add(1) }, machines...)
	closed := false
	defer func() {
		if !closed {
			s.Close()
		}
	}()
	faults := rapid.IntRange(0, 30).Draw(t, "faults in percent")
	for _, m := range machines {
		m.setFail(func() error {
			switch {
			case rand.IntN(100) >= faults:
				return nil
			case rand.IntN(2) == 0:
				return refersam.Errorf(refersam.CodeUnavailable, "gone")
			default:
				return errors.New("NaN")
			}
		})
	}

	var (
		answered [200][rows]atomic.Int32
		dropped  [200][rows]bool
		sent     [200]int
	)
	for i := range sent {
		time.Sleep(time.Duration(rand.ExpFloat64() * float64(2*time.Millisecond)))
		j := job(1+rand.IntN(rows), time.Duration(10+rand.IntN(300))*time.Millisecond)
		j.Class = schedule.Class(rand.IntN(3))
		j.Key = string(rune('a' + rand.IntN(3)))
		j.Weight = float64(1 + rand.IntN(3))
		j.Bytes = 1000
		ticket, err := s.Admit(j)
		if err != nil {
			switch code := refersam.ErrorCode(err); code {
			case refersam.CodeOverloaded, refersam.CodeUnavailable, refersam.CodeDeadlineExceeded:
			default:
				t.Errorf("refused with %v", err)
			}
			continue
		}
		if rand.IntN(10) == 0 {
			ticket.Close()
			ticket.Close()
			continue
		}
		sent[i] = j.Rows
		send := func() {
			payload := make([]int, j.Rows)
			for k := range payload {
				payload[k] = rows*i + k + 1
			}
			ticket.Send(payload, func(k, value int, err error) {
				if err == nil && value != -payload[k] {
					t.Errorf("row %d was answered with %d", payload[k], value)
				}
				if code := refersam.ErrorCode(err); code == refersam.CodeInternal {
					t.Errorf("row %d: %v", payload[k], err)
				}
				answered[i][k].Add(1)
			})
		}
		if rand.IntN(3) == 0 {
			time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, send)
			continue
		}
		send()
		if rand.IntN(5) == 0 {
			dropped[i][0] = true
			ticket.Drop(0)
		}
	}
	if rapid.Bool().Draw(t, "close early") {
		closed = true
		s.Close()
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	for i, n := range sent {
		for k := range n {
			if got := answered[i][k].Load(); got > 1 || got == 0 && !dropped[i][k] {
				t.Errorf("row %d of job %d was answered %d times", k, i, got)
			}
			if got := released[rows*i+k].Load(); got != 1 {
				t.Errorf("row %d of job %d was released %d times", k, i, got)
			}
		}
	}
	snap := s.Snapshot()
	for _, q := range snap.Queues {
		if q.Waiting != [3]int{} {
			t.Errorf("rows wait in the end: %+v", q)
		}
	}
	for _, m := range machines {
		if m.mostInFlight > cfg.MaxWindow+1 { // and one probe
			t.Errorf("%s had %d batches at once, allowed %d", m.name, m.mostInFlight, cfg.MaxWindow)
		}
	}
	if snap.QueueBytes != 0 {
		t.Errorf("%d bytes are still counted", snap.QueueBytes)
	}
}

// TestAdmit_refusesOnlyWhatWouldBeLate has a replica that takes exactly as
// long as it is predicted to: a job that it has time for is never refused, and
// one that was admitted is never late.
func TestAdmit_refusesOnlyWhatWouldBeLate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMachine("a")
			s := start(rt, schedule.DefaultConfig(), m)
			defer s.Close()
			full := m.spacedFixed + maxBatch*m.spacedPerRow
			alone := m.fixed + maxBatch*m.perRow
			var got asked
			var unanswered, late atomic.Int64
			for range 400 {
				time.Sleep(time.Duration(rand.ExpFloat64() * float64(time.Millisecond)))
				const within = 300 * time.Millisecond
				n := 1 + rand.IntN(4)
				rows := make([]int, n)
				due := time.Now().Add(within)
				ticket, err := s.Admit(job(n, within))
				if err != nil {
					// At most two batches are under way, the rest is full ones.
					batches := (int(unanswered.Load())+n)/maxBatch + 2
					if worst := alone + time.Duration(batches+1)*full; worst < within*6/10 {
						rt.Errorf("refused with %d rows before it: %v", unanswered.Load(), err)
					}
					continue
				}
				unanswered.Add(int64(n))
				take := got.take(rows)
				ticket.Send(rows, func(i, value int, err error) {
					take(i, value, err)
					unanswered.Add(-1)
					if err != nil || time.Now().After(due) {
						late.Add(1)
					}
				})
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if late := int(late.Load()); late > len(got.answers)/50 {
				rt.Errorf("%d of %d admitted rows were late", late, len(got.answers))
			}
		})
	})
}
