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
	ran := runExamples(t, "docs/clients.md")
	for _, language := range []string{"sh", "go", "python", "js"} {
		if ran[language] == 0 {
			t.Errorf("there is no example in %s", language)
		}
	}
}

// Every command in docs/api runs unchanged, except for commands with a gap (…).
func TestAPIExamples(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(repositoryRoot, "docs", "api", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, page := range pages {
		ran += runExamples(t, filepath.Join("docs", "api", filepath.Base(page)))["sh"]
	}
	if ran < 7 {
		t.Errorf("%d commands ran", ran)
	}
}

// runExamples runs the blocks of code of a page, and counts them by language.
func runExamples(t *testing.T, page string) map[string]int {
	s := shared.get(t)
	ran := make(map[string]int)
	for _, block := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```").FindAllStringSubmatch(readFile(t, page), -1) {
		language, code := block[1], strings.ReplaceAll(block[2], "http://127.0.0.1:8080", s.url)
		if language == "json" || language == "sh" && strings.Contains(code, "…") {
			continue
		}
		ran[language]++
		t.Run(language, func(t *testing.T) { runExample(t, language, code) })
	}
	return ran
}

func runExample(t *testing.T, language, code string) {
	dir, err := os.MkdirTemp(filepath.Join(repositoryRoot, "tests"), ".example-") // in the module, for Go
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	picture := readFile(t, "tests/testdata/scene_00.jpg")
	file := map[string]string{"sh": "example.sh", "go": "main.go", "python": "example.py", "js": "example.mjs"}[language]
	for name, content := range map[string]string{"picture.jpg": picture, file: code, ".curlrc": "fail-with-body\n"} {
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
	cmd.Env = append(os.Environ(), "CURL_HOME="+dir, "PYTHONPATH="+filepath.Join(repositoryRoot, "clients", "python"))
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) == 0 {
		t.Errorf("%v\n%s\n%s", err, out, code)
	}
}
