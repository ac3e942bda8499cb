package tests_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The tritonserver of `refersam up` is only for the user that has started it: it
// sees no secret, listens on a socket that no other user can reach, and shares no
// memory that others can open. After a kill none of its folders is left.
func TestUpIsPrivate(t *testing.T) {
	const planted = "planted-secret"
	dir := t.TempDir()
	s, err := launch(dir, []string{
		"REFERSAM_FETCH_HOSTS=" + planted + ".example.com", "AWS_SECRET_ACCESS_KEY=" + planted, "XDG_RUNTIME_DIR=",
	}, "up", "--data", filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.cmd.Process.Pid)); err != nil || bytes.Count(environ, []byte(planted)) != 2 {
		t.Fatalf("the secrets are not planted: %v", err)
	}
	family, tritonserver := tritonFamily(t, s)
	for _, p := range append(family, process{pid: s.cmd.Process.Pid}) {
		for _, path := range p.sharedMemory() {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v, want 0600: %v", path, info.Mode(), err)
			}
		}
	}
	stubs := 0
	for _, p := range family {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(environ, []byte(planted)) {
			t.Errorf("%s sees a secret", p.command())
		}
		if p.command() == "triton_python_backend_stub" {
			stubs++
		}
	}
	if stubs != 10 {
		t.Errorf("%d processes of Python models, want one for each of the 5 stages of 2 variants", stubs)
	}

	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", tritonserver.pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"--model-control-mode=none", "--allow-http=false", "--allow-metrics=false", "--grpc-address=unix:" + dir + "/refersam-triton-"} {
		if !bytes.Contains(line, []byte("\x00"+want)) {
			t.Errorf("tritonserver runs without %s: %q", want, line)
		}
	}
	sockets, err := filepath.Glob(filepath.Join(dir, "refersam-triton-*", "grpc:*"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("the sockets are %q, want one: %v", sockets, err)
	}
	for path, want := range map[string]os.FileMode{sockets[0]: os.ModeSocket | 0o700, filepath.Dir(sockets[0]): os.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v: %v", path, info.Mode(), want, err)
		}
	}
	if !strings.Contains(s.logs.String(), "address=unix:"+sockets[0]) {
		t.Error("the log does not say where the server listens")
	}

	_ = s.signal(syscall.SIGKILL)
	expectGone(t, family)
	left, _ := filepath.Glob(filepath.Join(dir, "refersam-triton-*"))
	backends, _ := filepath.Glob(filepath.Join(dir, "data", "triton", "backends-*"))
	if left = append(left, backends...); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
