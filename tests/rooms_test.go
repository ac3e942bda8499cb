package tests_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
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
