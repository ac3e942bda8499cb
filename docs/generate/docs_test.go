package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/refersam/refersam/api/openapi"
)

const root = "../.."

// The generated parts of the documentation agree with the code.
func TestGenerated(t *testing.T) {
	files, err := Generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(root, name)); err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s does not agree with the code: run make docs", name)
		}
	}
}

// Every object that the API's description names has a table.
func TestTypes(t *testing.T) {
	places := placesOfTypes(markdownFiles(t))
	for name := range openapi.New().Components.Schemas.Map() {
		if places.of[name] == "" {
			t.Errorf("no page of docs/api has a table of %s", name)
		}
	}
}

// markdownFiles returns the text of all pages of the repository by path.
func markdownFiles(t *testing.T) map[string]string {
	t.Helper()
	pages, err := readFiles(root, ".md")
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 10 {
		t.Fatalf("there are %d pages", len(pages))
	}
	return pages
}

// prose returns the lines of a page outside its blocks of code, by line number.
func prose(text string) map[int]string {
	lines := make(map[int]string)
	code := false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		} else if !code {
			lines[i+1] = line
		}
	}
	return lines
}

// Lines of prose are short enough for a review. Rows of tables cannot be broken.
func TestLineLength(t *testing.T) {
	for name, text := range markdownFiles(t) {
		for number, line := range prose(text) {
			if length := len([]rune(line)); length >= 140 && !strings.HasPrefix(line, "|") {
				t.Errorf("%s:%d has %d characters; break lines before 140", name, number, length)
			}
		}
	}
}

var (
	linked  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`^#+ +(.*)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
)

// anchors returns the anchors that GitHub makes of a page's headings.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	lines := prose(text)
	for i := range strings.Count(text, "\n") + 1 {
		m := heading.FindStringSubmatch(lines[i+1])
		if m == nil {
			continue
		}
		anchor := strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")
		for n, base := 1, anchor; all[anchor]; n++ {
			anchor = base + "-" + strconv.Itoa(n)
		}
		all[anchor] = true
	}
	return all
}

// Every relative link leads to a file, and its anchor to a heading.
func TestLinks(t *testing.T) {
	pages := markdownFiles(t)
	checked := 0
	for name, text := range pages {
		for number, line := range prose(text) {
			for _, m := range linked.FindAllStringSubmatch(line, -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				checked++
				file, anchor, hasAnchor := strings.Cut(m[1], "#")
				target := name
				if file != "" {
					target = path.Join(path.Dir(name), file)
				}
				if _, err := os.Stat(filepath.Join(root, target)); err != nil {
					t.Errorf("%s:%d: %v", name, number, err)
				} else if hasAnchor && !anchors(pages[target])[anchor] {
					t.Errorf("%s:%d: %s has no heading for #%s", name, number, target, anchor)
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("%d links were checked", checked)
	}
}

// The table of the parts names every folder with Go code, and no folder that is
// gone.
func TestParts(t *testing.T) {
	_, table, _ := strings.Cut(markdownFiles(t)["docs/architecture.md"], "## The parts")
	table, _, _ = strings.Cut(table, "\n## ")
	named := make(map[string]bool)
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]*) \|`).FindAllStringSubmatch(table, -1) {
		for _, folder := range regexp.MustCompile("`([\\w/]+)/`").FindAllStringSubmatch(row[1], -1) {
			named[folder[1]] = true
			if _, err := os.Stat(filepath.Join(root, folder[1])); err != nil {
				t.Error(err)
			}
		}
	}
	files, err := readFiles(root, ".go")
	if err != nil {
		t.Fatal(err)
	}
	missing := make(map[string]bool)
	for name := range files {
		top, _, inside := strings.Cut(name, "/")
		if inside && !named[top] && !named[path.Dir(name)] {
			missing[top] = true
		}
	}
	for folder := range missing {
		t.Errorf("docs/architecture.md does not say what %s owns", folder)
	}
}

// Every example in JSON, except for examples with a gap (…), is an object of the
// API and has no member that the object does not have.
func TestExamples(t *testing.T) {
	fits := func(example string) bool {
		for _, v := range append(slices.Clone(requests), answers...) {
			decoder := json.NewDecoder(strings.NewReader(example))
			decoder.DisallowUnknownFields()
			if decoder.Decode(reflect.New(reflect.TypeOf(v)).Interface()) == nil {
				return true
			}
		}
		return false
	}
	checked := 0
	for name, text := range markdownFiles(t) {
		if path.Dir(name) != "docs/api" {
			continue
		}
		for _, block := range regexp.MustCompile("(?ms)^```json\n(.*?)^```").FindAllStringSubmatch(text, -1) {
			example := strings.ReplaceAll(block[1], "<base64>", "")
			if !json.Valid([]byte(example)) && strings.Contains(example, "…") {
				continue
			}
			checked++
			if !fits(example) {
				t.Errorf("%s has an example that is no object of the API:\n%s", name, example)
			}
		}
	}
	if checked < 6 {
		t.Errorf("%d examples were checked", checked)
	}
}
