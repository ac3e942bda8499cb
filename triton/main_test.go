package triton_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
	"go.uber.org/goleak"
)

// childWorkDir makes the test binary a child of a test: it starts a server
// that works in the folder named, says how that went, and sleeps.
// childSharedMemory gives it a /dev/shm of that size first.
const (
	childWorkDir      = "REFERSAM_TEST_CHILD_WORK_DIR"
	childSharedMemory = "REFERSAM_TEST_CHILD_SHARED_MEMORY"
	// childFleet makes it have a fleet of the server at that address instead.
	childFleet = "REFERSAM_TEST_CHILD_FLEET"
)

func TestMain(m *testing.M) {
	if os.Getenv(childStranger) != "" {
		stranger()
	}
	if workDir := os.Getenv(childWorkDir); workDir != "" {
		child(workDir)
	}
	goleak.VerifyTestMain(m)
}

func child(workDir string) {
	if size := os.Getenv(childSharedMemory); size != "" {
		// Without the first mount the second would show outside as well.
		err := errors.Join(
			syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
			syscall.Mount("tmpfs", "/dev/shm", "tmpfs", 0, "size="+size),
		)
		if err != nil {
			fmt.Println("mount:", err)
		}
	}
	if address := os.Getenv(childFleet); address != "" {
		childOf(address)
	}
	cfg := local.DefaultConfig()
	cfg.Repository = filepath.Join("testdata", "model_repository")
	cfg.Python = pythonPath()
	cfg.WorkDir = workDir
	_, err := local.Start(context.Background(), cfg)
	fmt.Println("started:", err)
	select {}
}

// childOf does an inference on a server and says where its pixels are.
func childOf(address string) {
	var log logBuffer
	fleet, err := triton.NewFleet(triton.DefaultConfig(), log.logger())
	if err == nil {
		err = fleet.Add(address)
	}
	ctx := context.Background()
	var contracts []triton.Contract
	if err == nil {
		contracts, err = fleet.Contracts(ctx)
	}
	if err == nil {
		err = fleet.Probe(ctx, &contracts[0])
	}
	regions, _ := filepath.Glob("/dev/shm/refersam-pixels-*")
	fmt.Println("probed:", err, "regions:", regions, "log:", strings.ReplaceAll(log.String(), "\n", " "))
	select {}
}

// startChild starts such a child and returns it with the line it says.
func startChild(t *testing.T, attributes *syscall.SysProcAttr, environment ...string) (*exec.Cmd, string) {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), childWorkDir+"="+t.TempDir())
	cmd.Env = append(cmd.Env, environment...)
	cmd.SysProcAttr = attributes
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the test may have done so
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

const testModel = "refersam_tiny"

// Sizes of testModel.
const (
	imageSize = 32
	maxTokens = 6
	side      = imageSize / 4
)

// localConfig is the configuration of a server for t.
func localConfig(t testing.TB) local.Config {
	cfg := local.DefaultConfig()
	cfg.Repository = filepath.Join("testdata", "model_repository")
	cfg.Python = pythonPath()
	cfg.WorkDir = t.TempDir()
	cfg.Threads = 1
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	return cfg
}

// pythonPath is the interpreter of the project's virtual environment.
func pythonPath() string {
	if path := os.Getenv("REFERSAM_PYTHON"); path != "" {
		return path
	}
	return filepath.Join("..", ".venv", "bin", "python")
}

// startLocal starts a server that ends with the test.
func startLocal(t testing.TB, cfg local.Config) *local.Server {
	t.Helper()
	server, err := local.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := server.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return server
}

// newFleet makes a fleet of the servers named that ends with the test.
func newFleet(t testing.TB, cfg triton.Config) *triton.Fleet {
	t.Helper()
	fleet, err := triton.NewFleet(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fleet.Close(); err != nil {
			t.Error(err)
		}
	})
	return fleet
}

// fleetOf makes a fleet of the servers at addresses that ends with the test.
func fleetOf(t testing.TB, addresses ...string) *triton.Fleet {
	t.Helper()
	cfg := triton.DefaultConfig()
	cfg.Addresses = addresses
	fleet := newFleet(t, cfg)
	if err := fleet.Resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	return fleet
}

// contract returns the only contract that a fleet has.
func contract(t testing.TB, fleet *triton.Fleet) *triton.Contract {
	t.Helper()
	contracts, err := fleet.Contracts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(contracts) != 1 {
		t.Fatalf("%d contracts, want 1", len(contracts))
	}
	return &contracts[0]
}

// logBuffer collects the lines of a logger as text.
type logBuffer struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// process is a process of this machine.
type process struct {
	pid, parent int
	state       string
	command     string // arguments, separated by blanks
}

// processes lists the running processes that keep accepts. A process that has
// ended and only waits to be reaped is not running any more.
func processes(t testing.TB, keep func(process) bool) []process {
	t.Helper()
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, folder := range folders {
		stat, err := os.ReadFile(filepath.Join(folder, "stat"))
		if err != nil {
			continue // it has ended since
		}
		// pid (name) state parent …; the name may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		command, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
		p := process{state: fields[0], command: string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))}
		p.pid, _ = strconv.Atoi(filepath.Base(folder))
		p.parent, _ = strconv.Atoi(fields[1])
		if p.state != "Z" && keep(p) {
			found = append(found, p)
		}
	}
	return found
}

// server is what the outside sees of a local server: its process, the prefix
// that its shared memory and the arguments of its models' processes have, and
// its folders.
type server struct {
	pid     int
	prefix  string
	folders []string
}

// serverOf returns the server that the process parent has started.
func serverOf(t testing.TB, parent int) server {
	t.Helper()
	found := processes(t, func(p process) bool {
		return p.parent == parent && strings.Contains(p.command, "/tritonserver ")
	})
	if len(found) != 1 {
		t.Fatalf("process %d has %d servers, want 1: %v", parent, len(found), found)
	}
	_, rest, ok := strings.Cut(found[0].command, "shm-region-prefix-name=")
	if !ok {
		t.Fatalf("server without a prefix: %s", found[0].command)
	}
	prefix, _, _ := strings.Cut(rest, " ")
	s := server{pid: found[0].pid, prefix: prefix}
	for argument := range strings.FieldsSeq(found[0].command) {
		if folder, ok := strings.CutPrefix(argument, "--backend-directory="); ok {
			s.folders = append(s.folders, folder)
		}
		if socket, ok := strings.CutPrefix(argument, "--grpc-address=unix:"); ok {
			s.folders = append(s.folders, filepath.Dir(socket))
		}
	}
	return s
}

// traces lists the processes, the shared memory and the folders of s.
func (s server) traces(t testing.TB) []string {
	t.Helper()
	traces, err := filepath.Glob("/dev/shm/" + s.prefix + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes(t, func(p process) bool { return strings.Contains(p.command, s.prefix) }) {
		traces = append(traces, p.command)
	}
	for _, folder := range s.folders {
		if _, err := os.Stat(folder); err == nil {
			traces = append(traces, folder)
		}
	}
	return traces
}
