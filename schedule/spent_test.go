package schedule_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam/schedule"
)

// The times that Spent reports for rows add up to the time that the machine was
// busy, however its batches overlap.
func TestScheduler_tellsWhatWasSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, schedule.DefaultConfig(), newMachine("a"))
		defer s.Close()
		var (
			got   asked
			told  atomic.Int64
			spent atomic.Int64 // ns
			begun = time.Now()
		)
		for range 3 { // they are all under way at once
			j := job(maxBatch, time.Minute)
			j.Spent = func(_ int, took time.Duration) {
				told.Add(1)
				spent.Add(int64(took))
			}
			got.ask(t, s, j, make([]int, maxBatch)...)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		last := begun
		for _, a := range got.answers {
			if a.at.After(last) {
				last = a.at
			}
		}
		busy, took := last.Sub(begun), time.Duration(spent.Load())
		if told.Load() != 3*maxBatch || took > busy || busy-took > time.Microsecond {
			t.Errorf("%d rows took %v of %v", told.Load(), took, busy)
		}
	})
}
