// Package await waits in tests for what no clock of the test can bring about: a
// process, a server, the network. Where time itself decides, a test runs under
// testing/synctest instead.
package await

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// longest is the longest pause between two looks. The first pause is 1 ms, and each
// next pause twice the last, because most of what tests wait for has happened
// already or happens at once.
const longest = 20 * time.Millisecond

// Until calls look until it returns nil. After limit it fails the test with the
// last error.
func Until(t testing.TB, limit time.Duration, look func() error) {
	t.Helper()
	if err := Within(limit, look); err != nil {
		t.Fatal(err)
	}
}

// True calls ok until it returns true. After limit it fails the test with what was
// expected.
func True(t testing.TB, limit time.Duration, expected string, ok func() bool) {
	t.Helper()
	missing := errors.New(expected)
	Until(t, limit, func() error {
		if !ok() {
			return missing
		}
		return nil
	})
}

// Within is Until for a goroutine that may not end the test: it returns the last
// error, with the limit, or nil.
func Within(limit time.Duration, look func() error) error {
	pause := time.Millisecond
	for begun := time.Now(); ; time.Sleep(pause) {
		err := look()
		if err == nil {
			return nil
		}
		if time.Since(begun) >= limit {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
		pause = min(2*pause, longest)
	}
}
