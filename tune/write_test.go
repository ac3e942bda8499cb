package tune_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/tune"
)

func TestSetInstances(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{
			"as the exporter writes it",
			"name: \"m\"\ninstance_group {\n  count: 1\n  kind: KIND_CPU\n}\nmax_batch_size: 8\n",
			"name: \"m\"\ninstance_group {\n  count: 3\n  kind: KIND_CPU\n}\nmax_batch_size: 8\n",
		},
		{
			"with comments that speak of it",
			"# instance_group { count: 7 }\ninstance_group [ # count: 8\n  { kind: KIND_GPU  # the one\n    gpus: [ 0 ]\n    count : 12 } ]\n",
			"# instance_group { count: 7 }\ninstance_group [ # count: 8\n  { kind: KIND_GPU  # the one\n    gpus: [ 0 ]\n    count : 3 } ]\n",
		},
		{
			"several groups, and a count that is none of ours",
			"instance_group: [{count: 1, kind: KIND_CPU}, {kind: KIND_GPU, rate_limiter {resources [{name: \"count: 5 }\" count: 9}]}, count: 2}]\ninstance_group < count: 1 >",
			"instance_group: [{count: 3, kind: KIND_CPU}, {kind: KIND_GPU, rate_limiter {resources [{name: \"count: 5 }\" count: 9}]}, count: 3}]\ninstance_group < count: 3 >",
		},
		{
			"a group without a count",
			"instance_group {\n    kind: KIND_GPU\n}\n",
			"instance_group {\n    count: 3\n    kind: KIND_GPU\n}\n",
		},
		{"a group without anything", "instance_group {}", "instance_group { count: 3}"},
		{"a group without anything, on two lines", "instance_group {\n}\n", "instance_group {\n  count: 3\n}\n"},
		{"no group", "name: 'it\\'s {'", "name: 'it\\'s {'\ninstance_group {\n  count: 3\n}\n"},
		{"an empty list", "instance_group: []\n", "instance_group: []\ninstance_group {\n  count: 3\n}\n"},
		{
			"fields that are not known here",
			"model_operations { op_library_filename: \"a.so\" }\ninstance_group { count: 1 }\n",
			"model_operations { op_library_filename: \"a.so\" }\ninstance_group { count: 3 }\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tune.SetInstances([]byte(tc.text), 3)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, text := range []string{"instance_group {", "name: \"", "]", "instance_group", "instance_group:"} {
		if got, err := tune.SetInstances([]byte(text), 3); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// Every configuration that ships differs in the count alone.
func TestSetInstances_shipped(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "tests", "models", "*_*_*", "configs", "cpu.pbtxt"))
	if err != nil || len(files) == 0 {
		t.Fatal("no configurations", err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tune.SetInstances(text, 2)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Replace(string(text), "  count: 1\n  kind: KIND_CPU\n", "  count: 2\n  kind: KIND_CPU\n", 1); string(got) != want {
			t.Errorf("%s: %s", path, cmp.Diff(want, string(got)))
		}
	}
}

// Whatever goes in, nothing comes out that says something else.
func FuzzSetInstances(f *testing.F) {
	f.Add("instance_group [ {count: 1} ] # a")
	f.Add("instance_group: < kind: KIND_CPU > name: \"x\\\"\"")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := tune.SetInstances([]byte(text), 5)
		if err != nil {
			return
		}
		config, err := triton.ParseConfig(got)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range config.GetInstanceGroup() {
			if group.GetCount() != 5 {
				t.Errorf("%q became %q", text, got)
			}
		}
	})
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	check := func(want map[string]string) {
		t.Helper()
		got := make(map[string]string)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if text, err := os.ReadFile(filepath.Join(dir, entry.Name())); err == nil {
				got[entry.Name()] = string(text)
			} else if !entry.IsDir() {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	a := tune.Change{Path: write("a", "1", 0o640), Before: []byte("1"), After: []byte("2")}
	b := tune.Change{Path: write("b", "1", 0o644), Before: []byte("1"), After: []byte("2")}

	missing := tune.Change{Path: filepath.Join(dir, "none", "c"), After: []byte("2")}
	if err := tune.Write([]tune.Change{a, b, missing}); err == nil {
		t.Error("it wrote into a folder that is not there")
	}
	check(map[string]string{"a": "1", "b": "1"})

	// A file cannot be renamed to a folder, which is noticed after a and b are.
	folder := tune.Change{Path: filepath.Join(dir, "d"), After: []byte("2")}
	if err := os.MkdirAll(filepath.Join(folder.Path, "e"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tune.Write([]tune.Change{a, b, folder}); err == nil {
		t.Error("it wrote over a folder")
	}
	check(map[string]string{"a": "1", "b": "1"})

	if err := tune.Write([]tune.Change{a, b}); err != nil {
		t.Error(err)
	}
	check(map[string]string{"a": "2", "b": "2"})
	if info, err := os.Stat(a.Path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}
