// Command generate writes the parts of the documentation that repeat the code: the
// tables between the markers of docs/**/*.md, and the picture of the parts. A test
// in this folder fails if they are out of date.
//
//	go run ./docs/generate [FOLDER OF THE REPOSITORY]
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	files, err := Generate(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "generate:", err)
			os.Exit(1)
		}
	}
}

// marked matches a generated part of a page: its opening marker, the name and the
// arguments of a table, and the closing marker.
var marked = regexp.MustCompile(`(?s)(<!-- make docs: (\w+)([^>]*?) -->\n).*?(<!-- end -->)`)

// Generate returns the content of all files that are generated, wholly or in part,
// by their path below root.
func Generate(root string) (map[string][]byte, error) {
	pages, err := readFiles(root, ".md")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{picturePath: picture()}
	places := placesOfTypes(pages)
	for name, text := range pages {
		if !marked.MatchString(text) {
			continue
		}
		text = marked.ReplaceAllStringFunc(text, func(part string) string {
			m := marked.FindStringSubmatch(part)
			table, tableErr := makeTable(root, m[2], strings.Fields(m[3]), places.from(name))
			if tableErr != nil && err == nil {
				err = fmt.Errorf("%s: %s: %w", name, m[2], tableErr)
			}
			return m[1] + "\n" + table + "\n" + m[4]
		})
		files[name] = []byte(text)
	}
	return files, err
}

// readFiles returns the files of the repository with an extension, by their path
// below root. Installed, built and downloaded files are left out.
func readFiles(root, extension string) (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == "bin" || name == "var" || d.Name() == "node_modules" || name != "." && strings.HasPrefix(d.Name(), ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != extension {
			return nil
		}
		text, err := os.ReadFile(path)
		files[filepath.ToSlash(name)] = string(text)
		return err
	})
	return files, err
}

// makeTable returns the table with a name.
func makeTable(root, name string, args []string, places places) (string, error) {
	switch name {
	case "types":
		return typeTables(args, places)
	case "form":
		return formTable()
	case "routes":
		return routeTable()
	case "bodies":
		return bodyTable()
	case "headers":
		return headerTable(args)
	case "problems":
		return problemTable()
	case "limits":
		return limitTable()
	case "settings":
		return settingTable(root)
	default:
		return "", fmt.Errorf("no such table")
	}
}

// table writes a table in Markdown.
func table(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	b.WriteString(strings.Repeat("|---", len(head)) + "|\n")
	for _, row := range rows {
		line(row)
	}
	return b.String()
}
