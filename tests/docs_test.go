package tests_test

import (
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
