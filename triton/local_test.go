package triton_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/triton/local"
)

func TestLocalLeavesNothing(t *testing.T) {
	var log logBuffer
	cfg := localConfig(t)
	cfg.Logger = log.logger()
	running := startLocal(t, cfg)
	if err := running.Err(); err != nil {
		t.Errorf("error of a server that runs: %v", err)
	}
	server := serverOf(t, os.Getpid())
	// The server, its guard, a process and a region for each of the two stages,
	// the folders of the backends and of the socket.
	if traces := server.traces(t); len(traces) != 8 {
		t.Errorf("a running server shows %d traces, want 8: %q", len(traces), traces)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := running.Close(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-running.Done():
	default:
		t.Error("Close returned before the server was done")
	}
	if err := running.Err(); err != nil {
		t.Errorf("error of a server that was closed: %v", err)
	}
	if traces := server.traces(t); len(traces) > 0 {
		t.Errorf("left behind: %q", traces)
	}
	if err := running.Close(ctx); err != nil {
		t.Errorf("second Close: %v", err)
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") {
			t.Errorf("a machine without a GPU is no reason to complain: %s", line)
		}
	}
	for _, want := range []string{"CudaDriverHelper has not been initialized", "tritonserver is ready", "source=grpc_server.cc"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q", want)
		}
	}
}

func TestCloseKills(t *testing.T) {
	running := startLocal(t, localConfig(t))
	server := serverOf(t, os.Getpid())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// A stopped process cannot follow SIGTERM.
	if err := syscall.Kill(server.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := running.Close(ctx); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("error %v, want one that says killed", err)
	}
	if traces := server.traces(t); len(traces) > 0 {
		t.Errorf("left behind: %q", traces)
	}
}

// When the process that started a server is killed, the server and the
// processes of its models end as well, and take their shared memory and folders
// along.
func TestParentKilled(t *testing.T) {
	parent, line := startChild(t, nil)
	if line != "started: <nil>" {
		t.Fatal(line)
	}
	server := serverOf(t, parent.Process.Pid)
	if traces := server.traces(t); len(traces) != 8 {
		t.Errorf("a running server shows %d traces, want 8: %q", len(traces), traces)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await.Until(t, 15*time.Second, func() error {
		if left := server.traces(t); len(left) > 0 {
			return fmt.Errorf("left behind: %q", left)
		}
		return nil
	})
}

func TestSharedMemoryTooSmall(t *testing.T) {
	own := syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		own.Cloneflags |= syscall.CLONE_NEWUSER
		own.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	_, line := startChild(t, &own, childSharedMemory+"=8m")
	for _, want := range []string{"/dev/shm has 8 MiB free", "need 64 MiB", "--shm-size"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q lacks %q", line, want)
		}
	}
}

func TestStartErrors(t *testing.T) {
	// folder makes a folder with the mode given.
	folder := func(t *testing.T, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "folder")
		if err := errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// python makes an interpreter that answers with the description given.
	python := func(t *testing.T, description string) string {
		path := filepath.Join(t.TempDir(), "python")
		if err := os.WriteFile(path, []byte("#!/bin/sh\ncat <<'END'\n"+description+"\nEND\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// repository makes a changed copy of the repository: in the file named, each
	// first string of a pair becomes the second.
	repository := func(t *testing.T, file string, pairs ...string) string {
		root := filepath.Join(t.TempDir(), "models")
		if err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", "model_repository"))); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, filepath.FromSlash(file))
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(string(text), pairs[i]) {
				t.Fatalf("%s lacks %q", file, pairs[i])
			}
		}
		if err := os.WriteFile(path, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
		return root
	}
	pytriton := pytritonFolder(t)

	tests := []struct {
		name   string
		change func(t *testing.T, cfg *local.Config)
		want   []string
	}{
		{"no python", func(t *testing.T, cfg *local.Config) {
			cfg.Python = filepath.Join(t.TempDir(), "python")
		}, []string{"no python", "`make run` installs it", "REFERSAM_PYTHON"}},
		{"python fails", func(t *testing.T, cfg *local.Config) {
			cfg.Python = "false"
		}, []string{"does not run", "exit status 1", "`make run` installs it"}},
		{"python without the wheel", func(t *testing.T, cfg *local.Config) {
			cfg.Python = basePython(t)
		}, []string{"no wheel nvidia-pytriton", "`make run` installs it"}},
		{"python without onnxruntime", func(t *testing.T, cfg *local.Config) {
			cfg.Python = python(t, `{"version": "3.11", "pytriton": "/x", "missing": ["onnxruntime"]}`)
		}, []string{"no package onnxruntime", "`make run` installs it"}},
		{"python too new", func(t *testing.T, cfg *local.Config) {
			cfg.Python = python(t, fmt.Sprintf(`{"version": "3.14", "pytriton": %q}`, pytriton))
		}, []string{"version 3.14", "no stub", "3.11, 3.12, 3.13"}},
		{"python without a shared library", func(t *testing.T, cfg *local.Config) {
			cfg.Python = python(t, fmt.Sprintf(`{"version": "3.11", "pytriton": %q, "library_folders": ["/nowhere"]}`, pytriton))
		}, []string{"libpython3.11.so.1.0", "install the package libpython3.11", "--enable-shared", "/nowhere"}},
		{"socket folder in use", func(t *testing.T, cfg *local.Config) {
			cfg.SocketDir = folder(t, 0o700)
			file, err := os.Open(cfg.SocketDir)
			if err == nil {
				err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { file.Close() })
		}, []string{"REFERSAM_TRITON_SOCKET_DIR", "another tritonserver uses it"}},
		{"socket folder open to others", func(t *testing.T, cfg *local.Config) {
			cfg.SocketDir = folder(t, 0o750)
		}, []string{"REFERSAM_TRITON_SOCKET_DIR", "mode 0750", "with mode 0700"}},
		{"socket folder in a folder that others can write to", func(t *testing.T, cfg *local.Config) {
			cfg.SocketDir = filepath.Join(folder(t, 0o777), "socket")
		}, []string{"REFERSAM_TRITON_SOCKET_DIR", "folder has mode 0777", "other users can replace"}},
		{"socket folder too long", func(t *testing.T, cfg *local.Config) {
			cfg.SocketDir = "/tmp/" + strings.Repeat("x", 96)
		}, []string{"REFERSAM_TRITON_SOCKET_DIR", "would have 108 bytes, allowed: 107"}},
		{"work folder that others can write to", func(t *testing.T, cfg *local.Config) {
			cfg.WorkDir = folder(t, 0o777)
		}, []string{"REFERSAM_TRITON_WORK_DIR", "folder has mode 0777", "other users can replace"}},
		{"no models", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = t.TempDir()
		}, []string{"no ensemble named refersam_*", "REFERSAM_MODEL_REPOSITORY"}},
		{"no configuration", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = t.TempDir()
			if err := os.Mkdir(filepath.Join(cfg.Repository, "refersam_x"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, []string{"refersam_x/config.pbtxt"}},
		{"broken configuration", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = repository(t, "refersam_tiny/config.pbtxt", "max_batch_size: 8", "max_batch_size: eight")
		}, []string{"refersam_tiny/config.pbtxt", "eight"}},
		{"no stage", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = repository(t, "refersam_tiny/config.pbtxt")
			if err := os.RemoveAll(filepath.Join(cfg.Repository, "refersam_tiny_decoder")); err != nil {
				t.Fatal(err)
			}
		}, []string{"has no model refersam_tiny_decoder, which is a stage of the ensemble refersam_tiny: export the variant again"}},
		{"broken graph", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = repository(t, "refersam_tiny_image/1/model.onnx", "ReduceMean", "ReduceBean")
		}, []string{"its stage refersam_tiny_image is not loaded", "ReduceBean"}},
		{"graph and configuration differ", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = repository(t, "refersam_tiny_image/configs/cpu.pbtxt",
				`"image"`, `"picture"`, "TYPE_FP32 dims: [8, 8]", "TYPE_FP16 dims: [8, 9]")
		}, []string{
			"its stage refersam_tiny_image is not loaded",
			"input picture is not in the graph",
			"the graph's input image is not in the config",
			"output features is TYPE_FP16 in the config, tensor(float) in the graph",
			"output features is [8, 9] in the config, [8, 8] in the graph",
		}},
		{"no graph", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = repository(t, "refersam_tiny_image/configs/cpu.pbtxt", "model.onnx", "absent.onnx")
		}, []string{"its stage refersam_tiny_image is not loaded", "absent.onnx does not exist"}}, // the log names the whole path
		{"instances on a GPU", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = repository(t, "refersam_tiny_image/configs/cpu.pbtxt", "KIND_CPU", "KIND_MODEL")
		}, []string{"only KIND_CPU"}},
		{"other contract", func(t *testing.T, cfg *local.Config) {
			cfg.Repository = repository(t, "refersam_tiny/config.pbtxt", `"stretch"`, `"pad"`)
		}, []string{"model refersam_tiny", `parameter "resize" is "pad", allowed: stretch, longest_side_pad`}},
		{"too slow", func(t *testing.T, cfg *local.Config) {
			cfg.StartTimeout = 50 * time.Millisecond // it has been ready within 220
		}, []string{"not ready within 50ms", "REFERSAM_TRITON_START_TIMEOUT"}},
		{"invalid values", func(t *testing.T, cfg *local.Config) {
			*cfg = local.Config{Threads: -1, ConfigName: "../cpu", Environment: []string{"A=b", "REFERSAM_DATABASE_URL"}}
		}, []string{
			"REFERSAM_MODEL_REPOSITORY", "REFERSAM_TRITON_THREADS", "REFERSAM_TRITON_CONFIG_NAME", "REFERSAM_TRITON_START_TIMEOUT",
			`REFERSAM_TRITON_ENV has "A=b", allowed: names`, "REFERSAM_TRITON_ENV has REFERSAM_DATABASE_URL",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := localConfig(t)
			test.change(t, &cfg)
			running, err := local.Start(t.Context(), cfg)
			if err == nil {
				_ = running.Close(t.Context())
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
			left := processes(t, func(p process) bool {
				return p.parent == os.Getpid() && strings.Contains(p.command, "/tritonserver ")
			})
			if len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// ask runs a line of Python in the project's virtual environment.
func ask(t *testing.T, line string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), pythonPath(), "-c", line).Output()
	if err != nil {
		t.Fatalf("the tests need the project's virtual environment, which `make test` makes: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func pytritonFolder(t *testing.T) string {
	return ask(t, "import importlib.util as u; print(u.find_spec('pytriton').submodule_search_locations[0])")
}

// basePython is the interpreter that the virtual environment was made from.
func basePython(t *testing.T) string {
	return ask(t, "import sys; print(sys._base_executable)")
}

// A server that aborts while it starts, as 24.10 does now and then, is started
// again, but not for ever.
func TestStart_Crash(t *testing.T) {
	real, dir := pytritonFolder(t), t.TempDir()
	fake := filepath.Join(dir, "pytriton")
	if err := os.MkdirAll(filepath.Join(fake, "tritonserver", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"backends", "python_backend_stubs"} {
		if err := os.Symlink(filepath.Join(real, "tritonserver", name), filepath.Join(fake, "tritonserver", name)); err != nil {
			t.Fatal(err)
		}
	}
	runs := filepath.Join(dir, "runs")
	crash := "#!/bin/sh\necho run >>" + runs + "\n" +
		"echo \"terminate called after throwing an instance of 'boost::interprocess::lock_exception'\" >&2\nkill -ABRT $$\n"
	if err := os.WriteFile(filepath.Join(fake, "tritonserver", "bin", "tritonserver"), []byte(crash), 0o755); err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(dir, "python")
	own, err := filepath.Abs(pythonPath())
	if err != nil {
		t.Fatal(err)
	}
	answer := "#!/bin/sh\n" + own + " \"$@\" | sed 's#" + real + "#" + fake + "#'\n"
	if err := os.WriteFile(python, []byte(answer), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := local.DefaultConfig()
	cfg.Repository, cfg.Python, cfg.WorkDir = filepath.Join("testdata", "model_repository"), python, dir
	_, err = local.Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "lock_exception") {
		t.Errorf("error %v, want what the server said", err)
	}
	if text, err := os.ReadFile(runs); err != nil || strings.Count(string(text), "run") != 3 {
		t.Errorf("it was run %d times, want 3 (%v)", strings.Count(string(text), "run"), err)
	}
}
