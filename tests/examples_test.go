package tests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every example in docs/clients.md runs unchanged.
func TestClientExamples(t *testing.T) {
	s := shared.get(t)
	page := readFile(t, "docs/clients.md")
	ran := map[string]int{}
	for _, block := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```").FindAllStringSubmatch(page, -1) {
		language, code := block[1], strings.ReplaceAll(block[2], "http://127.0.0.1:8080", s.url)
		ran[language]++
		t.Run(language, func(t *testing.T) { runExample(t, language, code) })
	}
	for _, language := range []string{"sh", "go", "python", "js"} {
		if ran[language] == 0 {
			t.Errorf("there is no example in %s", language)
		}
	}
}

func runExample(t *testing.T, language, code string) {
	dir, err := os.MkdirTemp(filepath.Join(repositoryRoot, "tests"), ".example-") // in the module, for Go
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	picture := readFile(t, "tests/testdata/scene_00.jpg")
	file := map[string]string{"sh": "example.sh", "go": "main.go", "python": "example.py", "js": "example.mjs"}[language]
	for name, content := range map[string]string{"picture.jpg": picture, file: code} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var cmd *exec.Cmd
	switch language {
	case "sh":
		cmd = exec.Command("bash", "-euo", "pipefail", file)
	case "go":
		cmd = exec.Command("go", "run", file)
	case "python":
		cmd = exec.Command(filepath.Join(repositoryRoot, ".venv", "bin", "python"), file)
	case "js":
		node, err := exec.LookPath("node")
		if err != nil {
			t.Skip("Node is not installed")
		}
		cmd = exec.Command(node, file)
	default:
		t.Fatalf("nothing runs %s", language)
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(repositoryRoot, "clients", "python"))
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) == 0 {
		t.Errorf("%v\n%s\n%s", err, out, code)
	}
}
