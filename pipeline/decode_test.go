package pipeline_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam/pipeline"
)

// A long duration is forgotten when nothing is measured any more.
func TestDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d pipeline.Duration
		if d.Mean() != 0 {
			t.Errorf("%v before anything was measured", d.Mean())
		}
		d.Add(time.Second)
		if got := d.Mean(); got != time.Second {
			t.Errorf("%v of one second", got)
		}
		for range 100 {
			d.Add(100 * time.Millisecond)
		}
		if got := d.Mean(); got < 100*time.Millisecond || got > 110*time.Millisecond {
			t.Errorf("%v after many of 100 ms", got)
		}
		time.Sleep(10 * time.Second)
		if got := d.Mean(); got > time.Millisecond {
			t.Errorf("%v after 10 s without any", got)
		}
	})
}
