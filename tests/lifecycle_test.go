package tests_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
)

// After SIGTERM the service exits with status 0 and leaves neither processes nor
// shared memory behind.
func TestStopLeavesNothing(t *testing.T) {
	s := up(t)
	family, _ := tritonFamily(t, s)
	var memory []string
	for _, p := range family {
		memory = append(memory, p.sharedMemory()...)
	}
	slices.Sort(memory)
	memory = slices.Compact(memory)
	if len(memory) == 0 {
		t.Fatal("Triton's Python backend has no file in /dev/shm mapped, so this test would see nothing")
	}

	if err := s.signal(syscall.SIGTERM); err != nil {
		t.Errorf("after SIGTERM: %v, want a clean exit", err)
	}
	expectGone(t, family)
	for _, file := range memory {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", file)
		}
	}
}

// When the parent is killed by SIGKILL, Triton ends too.
func TestKillTakesTritonAlong(t *testing.T) {
	s := up(t)
	family, _ := tritonFamily(t, s)
	_ = s.signal(syscall.SIGKILL)
	expectGone(t, family)
}

// Without its Triton, `up` is useless. It must exit with an error, so that a
// supervisor starts it again.
func TestTritonDies(t *testing.T) {
	s := up(t)
	family, tritonserver := tritonFamily(t, s)
	if err := syscall.Kill(tritonserver.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := s.wait(stopTimeout); !errors.As(err, &exit) || exit.ExitCode() < 1 {
		t.Errorf("up ended with %v, want an exit status that is not 0", err)
	}
	expectGone(t, family)
	if !strings.Contains(s.logs.String(), "refersam: tritonserver ended: ") {
		t.Error("the log does not say that tritonserver ended")
	}
}

// tritonFamily returns the descendants of a service, and the tritonserver among
// them.
func tritonFamily(t *testing.T, s *service) (family []process, tritonserver process) {
	t.Helper()
	family = descendants(t, s.cmd.Process.Pid)
	i := slices.IndexFunc(family, func(p process) bool { return p.command() == "tritonserver" })
	if i < 0 {
		t.Fatalf("no tritonserver among the %d descendants", len(family))
	}
	return family, family[i]
}

// expectGone waits a little, because a killed process takes a moment to end.
func expectGone(t *testing.T, family []process) {
	t.Helper()
	await.Until(t, 10*time.Second, func() (err error) {
		for _, p := range family {
			if p.alive() {
				err = errors.Join(err, fmt.Errorf("process %d (%s) outlives the service", p.pid, p.command()))
			}
		}
		return err
	})
}
