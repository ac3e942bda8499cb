package schedule_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam/schedule"
)

// What rows are told to have taken adds up to the time for which the machine
// was busy, however its batches overlap.
func TestScheduler_tellsWhatWasSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, schedule.DefaultConfig(), newMachine("a"))
		defer s.Close()
		var (
			got   asked
			told  int
			spent time.Duration
			begun = time.Now()
		)
		for range 3 { // they are all under way at once
			j := job(maxBatch, time.Minute)
			j.Spent = func(_ int, took time.Duration) {
				told++
				spent += took
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
		if busy := last.Sub(begun); told != 3*maxBatch || spent > busy || busy-spent > time.Microsecond {
			t.Errorf("%d rows took %v of %v", told, spent, busy)
		}
	})
}
