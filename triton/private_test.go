package triton_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// childStranger makes the test binary try what its arguments name and print one
// line per attempt: "done" or the error.
const childStranger = "REFERSAM_TEST_CHILD_STRANGER"

// strangerID is the user and the group "nobody", which own nothing.
const strangerID = 65534

func stranger() {
	for _, attempt := range os.Args[1:] {
		kind, object, _ := strings.Cut(attempt, " ")
		var err error
		switch kind {
		case "unix", "tcp":
			var conn net.Conn
			if conn, err = net.Dial(kind, object); err == nil {
				conn.Close()
			}
		case "read":
			var file *os.File
			if file, err = os.Open(object); err == nil {
				_, err = io.ReadAll(file)
				file.Close()
			}
		case "write":
			var file *os.File
			if file, err = os.CreateTemp(object, "stranger"); err == nil {
				file.Close()
				err = os.Remove(file.Name())
			}
		default:
			err = fmt.Errorf("no such attempt: %s", attempt)
		}
		if err == nil {
			fmt.Println("done")
		} else {
			fmt.Println(err)
		}
	}
	os.Exit(0)
}

// attempt makes each attempt as the user with the id given and returns an
// outcome per attempt.
func attempt(t *testing.T, id uint32, attempts []string) []string {
	t.Helper()
	// The folder that `go test` builds in can be entered by one user only.
	folder, err := os.MkdirTemp("", "refersam-stranger-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(executable)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(folder, "stranger")
	if err := os.WriteFile(copied, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, copied} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), copied, attempts...)
	cmd.Env = []string{childStranger + "=1"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	outcomes := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(outcomes) != len(attempts) {
		t.Fatalf("%d outcomes of %d attempts: %q", len(outcomes), len(attempts), outcomes)
	}
	return outcomes
}

// listeners returns where processes listen, as "tcp ADDRESS" or "unix PATH".
func listeners(t *testing.T, pids []int) []string {
	t.Helper()
	inodes := make(map[string]bool)
	for _, pid := range pids {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "socket:[") {
				inodes[strings.Trim(target, "socket:[]")] = true
			}
		}
	}
	var found []string
	for _, family := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/net/" + family)
		if err != nil {
			continue // the kernel has no IPv6
		}
		for line := range strings.Lines(string(text)) {
			// number: local remote state … inode; state 0A listens.
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != "0A" || !inodes[fields[9]] {
				continue
			}
			port, err := strconv.ParseUint(fields[1][strings.LastIndexByte(fields[1], ':')+1:], 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, fmt.Sprintf("tcp 127.0.0.1:%d", port))
		}
	}
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		// address: references protocol flags type state inode path; the flag
		// 00010000 listens.
		fields := strings.Fields(line)
		if len(fields) == 8 && fields[3] == "00010000" && inodes[fields[6]] {
			found = append(found, "unix "+fields[7])
		}
	}
	return found
}

// pids are the processes of a server: tritonserver, its guard, and the
// processes of its Python models.
func (s server) pids(t *testing.T) []int {
	t.Helper()
	var pids []int
	for _, p := range processes(t, func(p process) bool { return strings.Contains(p.command, s.prefix) }) {
		pids = append(pids, p.pid)
	}
	if len(pids) < 3 {
		t.Fatalf("a server has %d processes, want at least 3", len(pids))
	}
	return pids
}

// Another user of the machine can neither talk to a server, nor read the
// pictures that it works on, nor change the programs that it runs.
func TestLocal_stranger(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can act as another user")
	}
	cfg := localConfig(t)
	cfg.Repository = markerRepository(t, imageSize, 0)
	var err error
	if cfg.WorkDir, err = os.MkdirTemp("", "refersam-work-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(cfg.WorkDir) })
	if err := os.Chmod(cfg.WorkDir, 0o755); err != nil { // strangers may enter it
		t.Fatal(err)
	}
	local := startLocal(t, cfg)
	fleet := newFleet(t, triton.DefaultConfig())
	if err := fleet.Add(local.Address()); err != nil {
		t.Fatal(err)
	}
	model := contract(t, fleet)
	row := markerRow(fleet.NewPixels(pictureBytes), 7, 9)
	answers, err := fleet.Replicas()[0].Infer(t.Context(), model, []triton.Row{row})
	if err != nil {
		t.Fatal(err)
	}
	checkMarker(t, row, answers[0])

	server := serverOf(t, os.Getpid())
	attempts := listeners(t, server.pids(t))
	if len(attempts) != 1 || !strings.HasPrefix(attempts[0], "unix ") {
		t.Errorf("the server listens on %q, want one unix socket: gRPC", attempts)
	}
	regions, err := filepath.Glob("/dev/shm/" + server.prefix + "*")
	if err != nil || len(regions) == 0 {
		t.Fatalf("the server has no shared memory: %v", err)
	}
	regions = append(regions, filepath.Join("/dev/shm", region(t, local.Address())))
	for _, path := range regions {
		attempts = append(attempts, "read "+path)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600: %v", path, info.Mode(), err)
		}
	}
	folders := map[string]bool{cfg.WorkDir: true}
	for _, pid := range server.pids(t) {
		for _, link := range []string{"cwd", "exe"} {
			target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link))
			if err != nil {
				t.Fatal(err)
			}
			if link == "exe" {
				target = filepath.Dir(target)
			}
			folders[target] = true
		}
	}
	for folder := range folders {
		attempts = append(attempts, "write "+folder)
	}
	for i, outcome := range attempt(t, 0, attempts) {
		if outcome != "done" {
			t.Errorf("%s fails even for the server's user, so that this test shows nothing: %s", attempts[i], outcome)
		}
	}
	for i, outcome := range attempt(t, strangerID, attempts) {
		if !strings.Contains(outcome, "permission denied") {
			t.Errorf("another user, %s: %s, want permission denied", attempts[i], outcome)
		}
	}
}

// Nothing is loaded or unloaded by request: with a model comes code.
func TestLocal_noModelControl(t *testing.T) {
	local := startLocal(t, localConfig(t))
	conn, err := grpc.NewClient(local.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = pb.NewGRPCInferenceServiceClient(conn).RepositoryModelLoad(t.Context(), &pb.RepositoryModelLoadRequest{ModelName: testModel})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "load / unload is not allowed") {
		t.Errorf("loading a model by request: %v, want that it is not allowed", err)
	}
	if err := unloadModel(t, local.Address(), testModel); status.Code(err) != codes.Unavailable {
		t.Errorf("unloading a model by request: %v, want that it is not allowed", err)
	}
	fleet := fleetOf(t, local.Address())
	if err := fleet.Probe(t.Context(), contract(t, fleet)); err != nil {
		t.Error(err)
	}
}

// A server and the processes of its models see no variable but those that are
// documented: no setting of the gateway, no credentials.
func TestLocal_environment(t *testing.T) {
	const planted = "planted-secret"
	for _, name := range []string{
		"REFERSAM_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "NVIDIA_API_KEY", "SSH_AUTH_SOCK", "UNHEARD_OF",
	} {
		t.Setenv(name, planted)
	}
	t.Setenv("OMP_WAIT_POLICY", "passive")
	t.Setenv("BACKEND_LICENSE", "for the backend")
	cfg := localConfig(t)
	cfg.Environment = []string{"BACKEND_LICENSE", "NOT_SET"}
	startLocal(t, cfg)
	server := serverOf(t, os.Getpid())
	allowed := []string{
		"PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "TZ", "OMP_WAIT_POLICY", "BACKEND_LICENSE",
		"REFERSAM_ONNX_THREADS", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES",
		// Set by the shell, and by tritonserver for its Python processes.
		"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE",
	}
	for _, pid := range server.pids(t) {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(environ, []byte(planted)) {
			t.Errorf("process %d sees a secret", pid)
		}
		for entry := range strings.SplitSeq(strings.Trim(string(environ), "\x00"), "\x00") {
			name, _, _ := strings.Cut(entry, "=")
			documented := slices.Contains(allowed, name)
			for _, prefix := range []string{"CUDA_", "KMP_", "LC_", "MKL_", "OMP_", "OPENBLAS_"} {
				documented = documented || strings.HasPrefix(name, prefix)
			}
			if !documented {
				t.Errorf("process %d sees %s, which is not documented", pid, name)
			}
		}
		if pid == server.pid && (!bytes.Contains(environ, []byte("OMP_WAIT_POLICY=passive\x00")) || !bytes.Contains(environ, []byte("BACKEND_LICENSE=for the backend\x00"))) {
			t.Error("tritonserver lacks a variable that it should see")
		}
	}
}

// The working directory may be a folder that everybody can write to, such as
// /tmp. Python looks for modules there first, and this program for a virtual
// environment.
func TestLocal_workingDirectory(t *testing.T) {
	cfg := localConfig(t)
	for _, path := range []*string{&cfg.Repository, &cfg.Python} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			t.Fatal(err)
		}
		*path = absolute
	}
	folder := t.TempDir()
	trap := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, module := range []string{"json", "numpy", "onnxruntime"} {
		trap(module+".py", fmt.Sprintf("open(%q, 'w').close()\nraise ImportError('a module of the working directory')\n", filepath.Join(folder, "ran")), 0o644)
	}
	trap(".venv/bin/python", "#!/bin/sh\n: >"+filepath.Join(folder, "ran")+"\n", 0o755)
	if err := os.Chmod(folder, os.ModeSticky|0o777); err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	t.Setenv("VIRTUAL_ENV", filepath.Dir(filepath.Dir(cfg.Python)))
	cfg.Logger = slog.New(slog.DiscardHandler)
	for _, python := range []string{cfg.Python, ""} {
		cfg.Python = python
		// With no environment beside it.
		repository := filepath.Join(t.TempDir(), "models")
		if err := os.CopyFS(repository, os.DirFS(cfg.Repository)); err != nil {
			t.Fatal(err)
		}
		cfg.Repository = repository
		startLocal(t, cfg)
		if _, err := os.Stat("ran"); err == nil {
			t.Errorf("with REFERSAM_PYTHON=%q a program of the working directory has run", python)
		}
	}
}

// When the guard of a server is killed too, folders are left. The next server
// removes them, but not the folders of a server that runs.
func TestLocal_staleFolders(t *testing.T) {
	temporary, work := t.TempDir(), t.TempDir()
	folders := func() []string {
		found, _ := filepath.Glob(filepath.Join(temporary, "refersam-triton-*"))
		backends, _ := filepath.Glob(filepath.Join(work, "backends-*"))
		return append(found, backends...)
	}
	environment := []string{"TMPDIR=" + temporary, "XDG_RUNTIME_DIR=", childWorkDir + "=" + work}
	parent, line := startChild(t, nil, environment...)
	if line != "started: <nil>" {
		t.Fatal(line)
	}
	left := folders()
	if len(left) != 2 {
		t.Fatalf("a server has the folders %q, want 2", left)
	}
	guards := processes(t, func(p process) bool {
		return p.parent == parent.Process.Pid && strings.HasPrefix(p.command, "/bin/sh ")
	})
	if len(guards) != 1 {
		t.Fatalf("a server has %d guards, want 1: %v", len(guards), guards)
	}
	// The guard and its cat, then the parent.
	for _, pid := range []int{-guards[0].pid, parent.Process.Pid} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	_ = parent.Wait() // it was killed
	if got := folders(); !slices.Equal(got, left) {
		t.Fatalf("the folders are %q, want %q", got, left)
	}
	_, line = startChild(t, nil, environment...)
	if line != "started: <nil>" {
		t.Fatal(line)
	}
	running := folders()
	if len(running) != 2 || slices.Contains(running, left[0]) || slices.Contains(running, left[1]) {
		t.Errorf("the folders are %q, want 2 other than %q", running, left)
	}
	_, line = startChild(t, nil, environment...)
	if got := folders(); line != "started: <nil>" || len(got) != 4 {
		t.Errorf("%s: two servers have the folders %q, want 4", line, got)
	}
}

// A folder below which others could replace the socket's, or with a path that
// is too long for a socket, is not used.
func TestLocal_temporaryFolder(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	for _, test := range []struct{ runtime, temporary, want string }{
		{own, "/tmp", own},
		{open, own, own},
		{long, own, own},
		{open, long, "/tmp"},
		{"relative", own, own},
	} {
		t.Setenv("XDG_RUNTIME_DIR", test.runtime)
		t.Setenv("TMPDIR", test.temporary)
		address := startLocal(t, localConfig(t)).Address()
		if got := filepath.Dir(filepath.Dir(strings.TrimPrefix(address, "unix:"))); got != test.want {
			t.Errorf("with XDG_RUNTIME_DIR %s and TMPDIR %s the socket is at %s, want it below %s", test.runtime, test.temporary, address, test.want)
		}
	}
}
