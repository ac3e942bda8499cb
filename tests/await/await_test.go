package await_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam/tests/await"
)

// A condition that comes true ends the wait, and the last error says why another
// wait ended.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		looks := 0
		look := func() error {
			looks++
			if time.Since(begun) < time.Second {
				return fmt.Errorf("look %d", looks)
			}
			return nil
		}
		if err := await.Within(2*time.Second, look); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 1100*time.Millisecond || looks < 40 {
			t.Errorf("%d looks, the last after %v", looks, took)
		}

		begun = time.Now()
		last := errors.New("the server is away")
		if err := await.Within(300*time.Millisecond, func() error { return last }); !errors.Is(err, last) {
			t.Errorf("%v, want %v", err, last)
		}
		if took := time.Since(begun); took < 300*time.Millisecond || took > 400*time.Millisecond {
			t.Errorf("it gave up after %v, want 300 ms", took)
		}
	})
}
