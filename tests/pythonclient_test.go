package tests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The Python client installs as its documentation says, and its tests pass
// against the running service.
func TestPythonClient(t *testing.T) {
	s := shared.get(t)
	python := filepath.Join(repositoryRoot, ".venv", "bin", "python")
	site := t.TempDir()
	run := func(environment []string, args ...string) {
		t.Helper()
		cmd := exec.Command(python, args...)
		cmd.Dir = filepath.Join(repositoryRoot, "clients", "python")
		cmd.Env = append(os.Environ(), environment...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	run(nil, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", site, ".")
	run([]string{"PYTHONPATH=" + site, "REFERSAM_URL=" + s.url}, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "tests")
}
