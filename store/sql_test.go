package store_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var statement = regexp.MustCompile(`^\s*(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE (TABLE|INDEX)|ALTER TABLE)\b`)

// SQL stands in package store alone, and package store imports no other package
// of the program but the root.
func TestSQLStandsHere(t *testing.T) {
	const root = "github.com/refersam/refersam"
	var inStore int
	err := fs.WalkDir(os.DirFS(".."), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(path.Base(name), ".") || path.Base(name) == "testdata" || path.Base(name) == "bin") {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path.Join("..", name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		here := strings.HasPrefix(name, "store/")
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			switch {
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case here && statement.MatchString(text):
				inStore++
			case statement.MatchString(text):
				t.Errorf("%s has SQL: %.60s", name, text)
			case path.Dir(name) == "store" && strings.HasPrefix(text, root+"/"):
				t.Errorf("%s imports %s", name, text)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if inStore < 50 {
		t.Errorf("only %d statements were found in package store: the search misses them", inStore)
	}
}
