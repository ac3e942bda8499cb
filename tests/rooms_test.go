package tests_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/refersam/refersam"

// leafRooms import the root package, packages below themselves and libraries,
// but never one another.
var leafRooms = []string{"tokenize", "preprocess", "postprocess", "triton", "schedule", "store", "blobs", "fetch"}

// withoutHTTP are the rooms that answer a question; they know no router and no
// handler.
var withoutHTTP = []string{"access", "answer", "experiment", "images", "pipeline", "schedule", "store"}

// The laws of docs/architecture.md about imports hold.
func TestRooms(t *testing.T) {
	list := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	list.Dir = repositoryRoot
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	rooms := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; rooms++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		checkRoom(t, strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/"), p.Imports)
	}
	if rooms < 20 {
		t.Errorf("%d packages were looked at", rooms)
	}
}

func checkRoom(t *testing.T, room string, imports []string) {
	t.Helper()
	top, _, _ := strings.Cut(room, "/")
	for _, imported := range imports {
		own, inside := strings.CutPrefix(imported, module+"/")
		ownTop, _, _ := strings.Cut(own, "/")
		switch {
		case ownTop == "experiment" && room == "pipeline":
			t.Errorf("%s imports %s, which chooses its variant", room, imported)
		case inside && slices.Contains(leafRooms, top) && ownTop != top:
			t.Errorf("%s is a leaf and imports %s", room, imported)
		case inside && top == "api":
			if ownTop != "api" {
				t.Errorf("%s is the contract with clients and imports %s", room, imported)
			}
		case imported == "github.com/gin-gonic/gin" && room != "gateway":
			t.Errorf("%s imports gin", room)
		case imported == "net/http" && slices.Contains(withoutHTTP, room):
			t.Errorf("%s imports net/http", room)
		case imported == "database/sql" && top != "store" && room != "jobs": // River wants its transaction
			t.Errorf("%s imports database/sql", room)
		}
	}
}

const (
	// maxLines is how many lines a package may have without its tests and without
	// generated files, so that it can be read in one sitting.
	maxLines = 3500
	// maxMethods is how many methods a type may have.
	maxMethods = 25
)

// The laws of docs/architecture.md about sizes hold.
func TestRoomSizes(t *testing.T) {
	list := exec.Command("go", "list", "-json=Dir,GoFiles,CgoFiles,IgnoredGoFiles", "./...")
	list.Dir = repositoryRoot
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Dir                               string
			GoFiles, CgoFiles, IgnoredGoFiles []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		lines, methods := 0, make(map[string]int)
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
			n, err := measure(filepath.Join(p.Dir, name), methods)
			if err != nil {
				t.Error(err)
			}
			lines += n
		}
		if lines > maxLines {
			t.Errorf("%s has %d lines, allowed: %d; cut it along what it owns", p.Dir, lines, maxLines)
		}
		for name, n := range methods {
			if n > maxMethods {
				t.Errorf("%s: %s has %d methods, allowed: %d; give a part of them a type of their own", p.Dir, name, n, maxMethods)
			}
		}
	}
}

// measure returns the lines of a Go file, and adds to methods how many methods it
// declares for each type. A generated file and a test have none.
func measure(path string, methods map[string]int) (lines int, err error) {
	if strings.HasSuffix(path, "_test.go") {
		return 0, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, content, parser.ParseComments)
	if err != nil || ast.IsGenerated(file) {
		return 0, err
	}
	for _, declaration := range file.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Recv == nil {
			continue
		}
		receiver := f.Recv.List[0].Type
		if star, ok := receiver.(*ast.StarExpr); ok {
			receiver = star.X
		}
		switch generic := receiver.(type) {
		case *ast.IndexExpr:
			receiver = generic.X
		case *ast.IndexListExpr:
			receiver = generic.X
		}
		methods[receiver.(*ast.Ident).Name]++
	}
	return strings.Count(string(content), "\n"), nil
}

// A file is measured as it is: a package and a type that are too large are found.
func TestMeasure(t *testing.T) {
	source := "package p\n\ntype T[A, B any] struct{}\n\nfunc (t *T[A, B]) M() {}\n\nfunc (T[A, B]) N() {}\n\nfunc F() {}\n"
	for name, want := range map[string]struct{ lines, methods int }{
		"p.go":      {9, 2},
		"p_test.go": {0, 0},
	} {
		path, methods := filepath.Join(t.TempDir(), name), make(map[string]int)
		if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		if lines, err := measure(path, methods); err != nil || lines != want.lines || methods["T"] != want.methods {
			t.Errorf("%s: %d lines, %d methods, %v, want %+v", name, lines, methods["T"], err, want)
		}
	}
}
