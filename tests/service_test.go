// Package tests_test runs the whole service as a user would: the built binary,
// a real tritonserver, a real browser. Its models are testModels, except where a test
// says that it is about the shipped models.
//
// It needs the virtual environment (make setup) and is skipped by -short.
package tests_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
)

const (
	// startTimeout bounds loading both variants on two busy cores.
	startTimeout = 3 * time.Minute
	// testModels is the folder of small models that know scenes of emoji, below the
	// repository's root.
	testModels = "tests/models"

	// stopTimeout bounds a graceful stop; the service promises less.
	stopTimeout = 30 * time.Second
)

// shippedModels is the environment of a command that uses the default settings for
// models instead of testModels.
var shippedModels = []string{"REFERSAM_MODEL_REPOSITORY=", "REFERSAM_TRITON_WORK_DIR="}

var (
	repositoryRoot string
	executable     string
	// shared is a service for every test that neither stops it nor counts its
	// requests.
	shared = &sharedService{}
)

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("end-to-end tests are skipped by -short")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if repositoryRoot, err = filepath.Abs(".."); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "refersam-tests")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	shared.dir = dir
	// Every command of a test inherits these, and may set them otherwise.
	err = errors.Join(
		os.Setenv("REFERSAM_MODEL_REPOSITORY", filepath.Join(repositoryRoot, testModels)),
		os.Setenv("REFERSAM_TRITON_WORK_DIR", filepath.Join(dir, "triton")),
	)
	if err != nil {
		return 0, err
	}

	executable = filepath.Join(repositoryRoot, "bin", "refersam")
	build := exec.Command("make", "build")
	build.Dir = repositoryRoot
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("make build: %w\n%s", err, out)
	}

	code = m.Run()
	if err := shared.stop(); err != nil {
		return code, fmt.Errorf("the shared service did not stop cleanly: %w", err)
	}
	return code, nil
}

// service is a running `refersam up` or `refersam serve`.
type service struct {
	url  string
	cmd  *exec.Cmd
	logs *buffer
	// done is closed when the process has ended; err is how it ended.
	done chan struct{}
	err  error
}

// launch starts the binary with a free port and does not wait until it is ready.
func launch(dir string, environment []string, command string, args ...string) (*service, error) {
	return launchBy(nil, dir, environment, command, args...)
}

// launchBy is launch through a command that executes its arguments.
func launchBy(by []string, dir string, environment []string, command string, args ...string) (*service, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &service{url: "http://" + address, logs: &buffer{}, done: make(chan struct{})}
	line := append(slices.Clone(by), executable, command, "--listen", address)
	line = append(line, args...)
	s.cmd = exec.Command(line[0], line[1:]...)
	s.cmd.Dir = repositoryRoot
	s.cmd.Env = append(os.Environ(), "TMPDIR="+dir, "REFERSAM_ADMIN_LISTEN=127.0.0.1:0", "REFERSAM_DATA="+filepath.Join(dir, "data"))
	s.cmd.Env = append(s.cmd.Env, environment...)
	s.cmd.Stdout, s.cmd.Stderr = s.logs, s.logs
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	return s, nil
}

// up starts a service for one test and kills it at the end if the test has not
// stopped it.
func up(t *testing.T) *service {
	t.Helper()
	dir := t.TempDir()
	s, err := launch(dir, nil, "up", "--data", filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	return s
}

// serve starts only a gateway, for a Triton at the given address.
func serve(t *testing.T, triton string) *service {
	t.Helper()
	s, err := launch(t.TempDir(), []string{"REFERSAM_TRITON=" + triton}, "serve")
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	return s
}

func cleanUp(t *testing.T, s *service) {
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("log of the service:\n%s", s.logs)
		}
	})
}

// waitReady waits until /readyz returns 200.
func (s *service) waitReady() error {
	err := await.Within(startTimeout, func() error {
		select {
		case <-s.done:
			return nil
		default:
			return s.answers("/readyz")
		}
	})
	select {
	case <-s.done:
		return fmt.Errorf("the service ended while it started: %w\n%s", s.err, s.logs)
	default:
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.logs)
	}
	return nil
}

// answers returns an error unless a GET is answered with status 200.
func (s *service) answers(path string) error {
	status, err := s.status(path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: status %d", path, status)
	}
	return err
}

// waitAlive waits until /livez returns 200.
func (s *service) waitAlive(t *testing.T) {
	t.Helper()
	await.Until(t, 10*time.Second, func() error { return s.answers("/livez") })
}

// status returns the HTTP status of a GET.
func (s *service) status(path string) (int, error) {
	resp, err := client.Get(s.url + path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// signal sends the signal and waits for the end; the result is the process's.
func (s *service) signal(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return s.wait(stopTimeout)
}

// wait waits for the end; the result is the process's.
func (s *service) wait(limit time.Duration) error {
	select {
	case <-s.done:
		return s.err
	case <-time.After(limit):
		return fmt.Errorf("still running after %v", limit)
	}
}

func (s *service) kill() {
	select {
	case <-s.done:
	default:
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// sharedService starts one service when the first test asks for it.
type sharedService struct {
	dir     string
	once    sync.Once
	service *service
	err     error
}

// get returns the running service. Its split is half and half, so that every test
// that does not choose a variant meets both.
func (s *sharedService) get(t *testing.T) *service {
	t.Helper()
	s.once.Do(func() {
		s.service, s.err = launch(s.dir, []string{"REFERSAM_SPLIT=bert:50,clip:50"}, "up", "--data", filepath.Join(s.dir, "data"))
		if s.err == nil {
			s.err = s.service.waitReady()
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the shared service:\n%s", s.service.logs)
		}
	})
	return s.service
}

func (s *sharedService) stop() error {
	if s.service == nil {
		return nil
	}
	defer s.service.kill()
	if s.err != nil {
		return nil // reported by the tests that asked for it
	}
	return s.service.signal(syscall.SIGTERM)
}

// client never reuses a connection for another service, and never waits for ever.
var client = &http.Client{Timeout: time.Minute}

// freeAddress returns a loopback address with a port that was free a moment ago.
func freeAddress() (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// buffer is a bytes.Buffer for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns the last lines, without the requests of waitReady.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []string
	for line := range strings.Lines(b.b.String()) {
		if !strings.Contains(line, "route=/readyz") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-40):], "")
}
