package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
	"github.com/refersam/refersam/tests/ensembles"
	"github.com/refersam/refersam/triton/local"
)

const (
	startTimeout = 3 * time.Minute
	stopTimeout  = 30 * time.Second
)

// bench is shared by all measurements.
type bench struct {
	root    string
	work    string // folder that is deleted at the end
	scale   float64
	known   map[string]bool // the settings of the gateway
	started int
}

func newBench(ctx context.Context, root string, scale float64) (*bench, error) {
	work, err := os.MkdirTemp("", "refersam-serving")
	if err != nil {
		return nil, err
	}
	b := &bench{root: root, work: work, scale: scale, known: map[string]bool{}}
	out, err := exec.CommandContext(ctx, program(b.root), "config").Output()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bin/refersam config: %w", err), b.close())
	}
	for line := range strings.Lines(string(out)) {
		b.known[strings.Fields(line)[0]] = true
	}
	return b, nil
}

func (b *bench) close() error { return os.RemoveAll(b.work) }

// demoModels is the folder of the demo model, which is small.
func demoModels(root string) string { return filepath.Join(root, "tests", "models") }

func program(root string) string { return filepath.Join(root, "bin", "refersam") }

// lasting scales a duration by the factor on the command line.
func (b *bench) lasting(seconds float64) time.Duration {
	return time.Duration(seconds * b.scale * float64(time.Second))
}

// source makes requests of one picture size, the same ones at each run.
func source(width, height, phrases int) *load.Source {
	return load.NewSource(newRandom(), 24, width, height, phrases)
}

func newRandom() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// startTritons starts a number of tritonservers. write makes the repository of
// each.
func (b *bench) startTritons(ctx context.Context, n int, write func(dir string) error) ([]*local.Server, error) {
	var servers []*local.Server
	for range n {
		b.started++
		repository := filepath.Join(b.work, fmt.Sprintf("repository-%d", b.started))
		if err := write(repository); err != nil {
			closeTritons(ctx, servers)
			return nil, err
		}
		server, err := b.startTriton(ctx, repository, 1)
		if err != nil {
			closeTritons(ctx, servers)
			return nil, err
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// startCalibrated starts a number of tritonservers with the given cost per batch.
func (b *bench) startCalibrated(ctx context.Context, n int, cost ensembles.Cost) ([]*local.Server, error) {
	return b.startTritons(ctx, n, func(dir string) error { return ensembles.WriteCalibrated(dir, cost) })
}

func (b *bench) startTriton(ctx context.Context, repository string, threads int) (*local.Server, error) {
	config := local.DefaultConfig()
	config.Repository = repository
	config.Python = filepath.Join(b.root, ".venv", "bin", "python")
	config.WorkDir = filepath.Join(b.work, "triton")
	config.Threads = threads
	config.StartTimeout = startTimeout
	return local.Start(ctx, config)
}

// closeTritons stops servers. Errors go only to standard error, because the figures
// have already been measured.
func closeTritons(ctx context.Context, servers []*local.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	var wait sync.WaitGroup
	for _, server := range servers {
		wait.Go(func() {
			if err := server.Close(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "serving:", err)
			}
		})
	}
	wait.Wait()
}

func addresses(servers []*local.Server) []string {
	var all []string
	for _, server := range servers {
		all = append(all, server.Address())
	}
	return all
}

// service is a process that answers HTTP.
type service struct {
	*load.Target
	cmd *exec.Cmd
	// ended is closed when the process has ended.
	ended chan struct{}
	// counted are further processes that count as usage of the service.
	counted []int
}

// with returns the service with the usage of a Triton server included.
func (s *service) with(server *local.Server) *service {
	return &service{s.Target, s.cmd, s.ended, []int{server.PID()}}
}

// errUnknownSetting is the error of measurements that need a setting which this
// build of the gateway does not have.
var errUnknownSetting = errors.New("not in this build")

// startGateway starts bin/refersam for Triton servers. It caches no results,
// because no request is repeated, and a cache that fills would look like a leak.
func (b *bench) startGateway(ctx context.Context, tritons []string, settings ...string) (*service, error) {
	for _, setting := range settings {
		if name, _, _ := strings.Cut(setting, "="); !b.known[name] {
			return nil, fmt.Errorf("%s: %w", name, errUnknownSetting)
		}
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program(b.root), "serve", "--listen", address)
	cmd.Env = append(os.Environ(),
		"REFERSAM_TRITON="+strings.Join(tritons, ","), "REFERSAM_LOG_LEVEL=ERROR",
		"REFERSAM_MAX_IN_FLIGHT=4096", "REFERSAM_ADMIN_LISTEN=127.0.0.1:0", "REFERSAM_CACHE_BYTES=0")
	cmd.Env = append(cmd.Env, settings...)
	return start(cmd, address, "/readyz")
}

// start starts a service and waits until it is ready.
func start(cmd *exec.Cmd, address, ready string) (*service, error) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &service{load.NewTarget("http://" + address), cmd, make(chan struct{}), nil}
	go func() {
		defer close(s.ended)
		_ = cmd.Wait() // it was ended by a signal
	}()
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		if answers("http://" + address + ready) {
			return s, nil
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("%s ended before it was ready", strings.Join(cmd.Args, " "))
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s was not ready after %v", strings.Join(cmd.Args, " "), startTimeout)
}

func answers(url string) bool {
	resp, err := http.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// stop ends the service and its descendants.
func (s *service) stop() {
	s.Close()
	pids, _ := load.Family(s.cmd.Process.Pid)
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && alive(pids); {
		time.Sleep(20 * time.Millisecond)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.ended
}

// alive reports whether any of the processes still runs.
func alive(pids []int) bool {
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			return true
		}
	}
	return false
}

// usage is what the service has used so far.
func (s *service) usage() load.Usage {
	var sum load.Usage
	for _, pid := range append([]int{s.cmd.Process.Pid}, s.counted...) {
		usage, err := load.UsageOf(pid)
		if err != nil {
			panic(err) // /proc is missing
		}
		sum.CPU += usage.CPU
		sum.Memory += usage.Memory
		sum.Peak += usage.Peak
	}
	return sum
}

// freeAddress is a loopback address with a port that was free a moment ago.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
