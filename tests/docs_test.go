package tests_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The handbook names all settings and no others.
func TestDocsSettings(t *testing.T) {
	var known []string
	for line := range strings.Lines(command(t, nil, executable, "config")) {
		known = append(known, strings.Fields(line)[0])
	}
	var written []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(REFERSAM_[A-Z_]+)`").FindAllStringSubmatch(readFile(t, "docs/operations.md"), -1) {
		written = append(written, row[1])
	}
	for _, name := range known {
		if !slices.Contains(written, name) {
			t.Errorf("docs/operations.md does not name %s", name)
		}
	}
	for _, name := range written {
		if !slices.Contains(known, name) {
			t.Errorf("docs/operations.md names %s, which refersam config does not know", name)
		}
	}
}

// The API's page names every code that a client can receive.
func TestDocsCodes(t *testing.T) {
	codes := regexp.MustCompile(`Code = "(\w+)"`).FindAllStringSubmatch(readFile(t, "error.go"), -1)
	if len(codes) == 0 {
		t.Fatal("no codes in error.go")
	}
	page := readFile(t, "docs/api.md")
	for _, code := range codes {
		if !strings.Contains(page, "`"+code[1]+"`") {
			t.Errorf("docs/api.md does not name %s", code[1])
		}
	}
}

// The targets of relative links exist.
func TestDocsLinks(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(repositoryRoot, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, filepath.Join(repositoryRoot, "README.md"))
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), match[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(page), err)
			}
		}
	}
}
