package tests_test

import (
	"bufio"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/tests/ensembles"
	"github.com/refersam/refersam/triton/local"
)

// tritonServer is a tritonserver with a test ensemble. It keeps its address when it
// is started again. Like a server that others run, it loads models on request.
type tritonServer struct {
	address string
	config  local.Config
	local   *local.Server
	server  process
}

// startNull starts a tritonserver with the null ensemble.
func startNull(t *testing.T) *tritonServer {
	t.Helper()
	return startTriton(t, ensembles.WriteNull)
}

// startCalibrated starts a tritonserver with the calibrated ensemble.
func startCalibrated(t *testing.T, cost ensembles.Cost) *tritonServer {
	t.Helper()
	return startTriton(t, func(dir string) error { return ensembles.WriteCalibrated(dir, cost) })
}

func startTriton(t *testing.T, write func(dir string) error) *tritonServer {
	t.Helper()
	repository := t.TempDir()
	if err := write(repository); err != nil {
		t.Fatal(err)
	}
	s := &tritonServer{config: local.DefaultConfig()}
	s.config.SocketDir = filepath.Join(t.TempDir(), "socket")
	s.config.ModelControl = true
	s.config.Repository = repository
	s.config.Python = filepath.Join(repositoryRoot, ".venv", "bin", "python")
	s.config.WorkDir = filepath.Join(shared.dir, "triton")
	s.config.Threads = 1
	s.start(t)
	t.Cleanup(func() { s.kill(t) })
	return s
}

// start starts the server, also again after kill.
func (s *tritonServer) start(t *testing.T) {
	t.Helper()
	var err error
	if s.local, err = local.Start(context.Background(), s.config); err != nil {
		t.Fatal(err)
	}
	s.address = s.local.Address()
	_, started, err := stat(s.local.PID())
	if err != nil {
		t.Fatal(err)
	}
	s.server = process{s.local.PID(), started}
}

// kill ends the server as kill -9 does, and returns when no process is left.
func (s *tritonServer) kill(t *testing.T) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	select {
	case <-s.local.Done():
	case <-time.After(10 * time.Second):
		t.Error("tritonserver is still there 10 s after SIGKILL")
	}
}

func (s *tritonServer) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if !s.server.alive() {
		return
	}
	if err := syscall.Kill(s.server.pid, sig); err != nil {
		t.Fatal(err)
	}
}

// guarded is a gateway with metrics that the test can read.
type guarded struct {
	*service
	admin string
}

// serveBefore starts a gateway before servers and waits until it is ready.
func serveBefore(t *testing.T, environment []string, addresses ...string) *guarded {
	t.Helper()
	return serveBy(t, nil, environment, addresses...)
}

// serveBy is serveBefore through a command that executes its arguments.
func serveBy(t *testing.T, by, environment []string, addresses ...string) *guarded {
	t.Helper()
	admin, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	environment = append(environment, "REFERSAM_TRITON="+strings.Join(addresses, ","), "REFERSAM_LOG_LEVEL=WARN",
		"REFERSAM_ADMIN_LISTEN="+admin)
	s, err := launchBy(by, t.TempDir(), environment, "serve")
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	return &guarded{s, "http://" + admin}
}

// metric returns the sum of a metric over the label sets that contain labels.
func (g *guarded) metric(t *testing.T, name, labels string) float64 {
	t.Helper()
	resp, err := client.Get(g.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var sum float64
	found := false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if series != name && !strings.HasPrefix(series, name+"{") || !strings.Contains(series, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, found = sum+v, true
	}
	if !found {
		t.Fatalf("no metric %s with %s", name, labels)
	}
	return sum
}

// waitUsable waits until the gateway uses a replica, or no longer uses it, and
// returns how long that took.
func (g *guarded) waitUsable(t *testing.T, address string, usable bool, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	err := await.Within(limit, func() error {
		if got := g.metric(t, "refersam_replica_usable", address); (got == 1) != usable {
			return fmt.Errorf("refersam_replica_usable of %s is %v", address, got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return time.Since(begin)
}
