package tests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestStockClient generates a client from the description, with a generator that
// knows only the description, and segments a picture with it: make api-check.
// STOCK_CLIENT is the folder of the generator's environment.
func TestStockClient(t *testing.T) {
	tools := os.Getenv("STOCK_CLIENT")
	if tools == "" {
		t.Skip("no STOCK_CLIENT; make api-check sets it")
	}
	s := shared.get(t)
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(tools, "bin", name), args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "PATH="+filepath.Join(tools, "bin")+":"+filepath.Join(repositoryRoot, ".venv", "bin")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	run("openapi-python-client", "generate", "--url", s.url+"/openapi.json", "--output-path", "stock_client_generated", "--meta", "none")
	run("python", filepath.Join(repositoryRoot, "tests", "apicheck", "stock_client.py"), s.url, filepath.Join(repositoryRoot, "tests", "testdata", "scene_00.jpg"))
}
