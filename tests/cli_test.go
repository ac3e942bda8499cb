package tests_test

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/refersam/refersam/api"
)

// `refersam segment` gives the masks of the API without a service.
func TestCommandSegment(t *testing.T) {
	scene := scenes(t)[1]
	picture := filepath.Join("tests", "testdata", scene.File)
	phrase := scene.Questions[0].Phrase
	a := shared.get(t).segment(t, "", part{"image", string(scene.picture(t))}, part{"phrase", phrase}, part{"variant", "clip"})
	want := mustDecode(t, *a.Results[0].Masks.RLE)

	t.Run("PNG", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "mask.png")
		command(t, nil, executable, "segment", picture, phrase, "-o", out, "--variant", "clip")
		f, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		img, err := png.Decode(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := iou(fromImage(img), want); got != 1 {
			t.Errorf("IoU %v with the API's mask, want 1", got)
		}
	})

	t.Run("PNG on standard output", func(t *testing.T) {
		cmd := exec.Command(executable, "segment", picture, phrase, "-o", "-", "--variant", "clip")
		cmd.Dir = repositoryRoot
		var table bytes.Buffer
		cmd.Stderr = &table
		data, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, table.String())
		}
		rest := bytes.NewReader(data)
		img, err := png.Decode(rest)
		if err != nil {
			t.Fatal(err)
		}
		if got := iou(fromImage(img), want); got != 1 {
			t.Errorf("IoU %v with the API's mask, want 1", got)
		}
		if rest.Len() > 0 {
			t.Errorf("%d bytes behind the PNG", rest.Len())
		}
		if !strings.Contains(table.String(), phrase) {
			t.Errorf("no table on standard error: %q", table.String())
		}
	})

	t.Run("JSON", func(t *testing.T) {
		cmd := exec.Command(executable, "segment", picture, phrase, scene.Questions[1].Phrase, "--json", "--variant", "clip")
		cmd.Dir = repositoryRoot
		data, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var a answer
		if err := json.Unmarshal(data, &a); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		if len(a.Results) != 2 || a.Model.Variant != "clip" {
			t.Fatalf("variant %q and %d results, want clip and 2", a.Model.Variant, len(a.Results))
		}
		if got := iou(mustDecode(t, *a.Results[0].Masks.RLE), want); got != 1 {
			t.Errorf("IoU %v with the API's mask, want 1", got)
		}
	})

	t.Run("not a picture", func(t *testing.T) {
		out, err := failing(t, nil, "segment", "go.mod", phrase)
		if err == nil || !strings.Contains(out, "unsupported") && !strings.Contains(out, "not a picture") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// The error of a service that cannot start says why, and what to do.
func TestUpSaysWhatIsMissing(t *testing.T) {
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct {
		name        string
		environment string
		args        []string
		want        string
	}{
		{"no models", "REFERSAM_MODEL_REPOSITORY=" + t.TempDir(), nil, "REFERSAM_MODEL_REPOSITORY"},
		{"no folder of models", "REFERSAM_MODEL_REPOSITORY=/nowhere/models", nil, "/nowhere/models: no such file or directory"},
		{"no wheel", "REFERSAM_PYTHON=/usr/bin/python3", nil, "make run"},
		{"a misspelt setting", "REFERSAM_SPLITT=bert:1", nil, "REFERSAM_SPLITT"},
		{"a variant that is not there", "REFERSAM_SPLIT=bert:50,gpt:50", nil, "gpt"},
		{"a port that is taken", "REFERSAM_LOG_LEVEL=INFO", []string{"--listen", taken.Addr().String()},
			fmt.Sprintf("%s is taken by process %d (tests.test): choose another address with --listen HOST:PORT", taken.Addr(), os.Getpid())},
		{"a port of the metrics that is taken", "REFERSAM_ADMIN_LISTEN=" + taken.Addr().String(), nil,
			fmt.Sprintf("REFERSAM_ADMIN_LISTEN is %q, the address of metrics and settings, which is taken by process %d", taken.Addr(), os.Getpid())},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := t.TempDir()
			args := append([]string{"up", "--listen", "127.0.0.1:0", "--data", data}, tc.args...)
			// Another service on this machine may use the default address.
			out, err := failing(t, []string{"REFERSAM_ADMIN_LISTEN=off", tc.environment}, args...)
			if err == nil || !strings.Contains(out, tc.want) {
				t.Errorf("%v, want a message with %q:\n%s", err, tc.want, out)
			}
			if left, err := os.ReadDir(data); strings.Contains(tc.environment, "MODEL_REPOSITORY") && (err != nil || len(left) > 0) {
				t.Errorf("a mistyped folder of models leaves %v behind: %v", left, err)
			}
		})
	}
}

// `refersam up` finds an installed Python wherever the models are, and names every
// place where it has looked for one.
func TestUpFindsPython(t *testing.T) {
	installed, err := filepath.Abs(filepath.Join(repositoryRoot, ".venv"))
	if err != nil {
		t.Fatal(err)
	}
	// at makes a folder .venv with the installed environment, or with a Python that lacks everything.
	at := func(t *testing.T, folder string, whole bool) {
		t.Helper()
		err := os.MkdirAll(folder, 0o755)
		venv := filepath.Join(folder, ".venv")
		if whole {
			err = errors.Join(err, os.Symlink(installed, venv))
		} else {
			err = errors.Join(err, os.MkdirAll(filepath.Join(venv, "bin"), 0o755),
				os.WriteFile(filepath.Join(venv, "bin", "python"), []byte("#!/bin/sh\necho '{\"version\": \"3.11\"}'\n"), 0o755))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const found = "folder of Triton's backends" // making it fails right after the search
	for _, tc := range []struct {
		name      string
		prepare   func(t *testing.T, root string)
		activated string
		want      []string
	}{
		{"beside the models", func(t *testing.T, root string) { at(t, filepath.Join(root, "models"), true) }, "", []string{found}},
		{"in the checkout of the program", func(t *testing.T, root string) { at(t, filepath.Join(root, "program"), true) }, "", []string{found}},
		{"beside the program", func(t *testing.T, root string) { at(t, filepath.Join(root, "program", "bin"), true) }, "", []string{found}},
		{"in the working directory", func(t *testing.T, root string) { at(t, filepath.Join(root, "work"), true) }, "", []string{found}},
		{"activated", func(*testing.T, string) {}, installed, []string{found}},
		{"behind one without the wheel", func(t *testing.T, root string) { at(t, filepath.Join(root, "models"), false) }, installed, []string{found}},
		{"nowhere", func(*testing.T, string) {}, "", []string{
			"no file ROOT/models/.venv/bin/python", "no file ROOT/program/bin/.venv/bin/python", "no file ROOT/program/.venv/bin/python",
			"no file ROOT/work/.venv/bin/python", "VIRTUAL_ENV is not set", "make run", "REFERSAM_PYTHON",
		}},
		{"without the wheel", func(t *testing.T, root string) { at(t, filepath.Join(root, "work"), false) }, "/nowhere", []string{
			"python ROOT/work/.venv/bin/python has no wheel nvidia-pytriton", "no file /nowhere/bin/python", "no file ROOT/models/.venv/bin/python",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			program := filepath.Join(root, "program", "bin", "refersam")
			data, err := os.ReadFile(executable)
			err = errors.Join(err, os.MkdirAll(filepath.Dir(program), 0o755), os.Mkdir(filepath.Join(root, "work"), 0o755))
			if err == nil {
				err = os.WriteFile(program, data, 0o755)
			}
			models := filepath.Join(root, "models", "model_repository")
			err = errors.Join(err, os.CopyFS(models, os.DirFS(filepath.Join(repositoryRoot, "triton", "testdata", "model_repository"))))
			if err != nil {
				t.Fatal(err)
			}
			tc.prepare(t, root)
			cmd := exec.CommandContext(t.Context(), program, "up", "--repository", models, "--listen", "127.0.0.1:0")
			cmd.Dir = filepath.Join(root, "work")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "REFERSAM_ADMIN_LISTEN=off", "REFERSAM_DATA=" + filepath.Join(root, "data"), "REFERSAM_TRITON_WORK_DIR=/dev/null/work"}
			if tc.activated != "" {
				cmd.Env = append(cmd.Env, "VIRTUAL_ENV="+tc.activated)
			}
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("it succeeded: %s", out)
			}
			for _, want := range tc.want {
				if want = strings.ReplaceAll(want, "ROOT", root); !strings.Contains(string(out), want) {
					t.Errorf("want a message with %q:\n%s", want, out)
				}
			}
		})
	}
}

// A slow start prints every few seconds what it is waiting for, and why.
func TestServeSaysWhatItWaitsFor(t *testing.T) {
	nobody, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, nobody)
	s.waitSaid(t, " s  still waiting for the models of "+nobody)
	if text := s.logs.all(); !regexp.MustCompile(`still waiting for the models of \S+ and measuring how long they take \(.*refused`).MatchString(text) {
		t.Errorf("the start does not say why:\n%s", text)
	}
}

// failing runs the binary, which must exit with a status other than 0. It returns
// the output, and the status as an error.
func failing(t *testing.T, environment []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), executable, args...)
	cmd.Dir = repositoryRoot
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err
}

// GET /version and `refersam version` name what the linker stored in the binary.
func TestVersion(t *testing.T) {
	info, err := buildinfo.ReadFile(executable)
	if err != nil {
		t.Fatal(err)
	}
	want := api.Build{Version: info.Main.Version, Go: info.GoVersion}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			want.Revision = s.Value
		case "vcs.modified":
			want.Modified = s.Value == "true"
		}
	}
	status, body := shared.get(t).get(t, "/version")
	var got api.Build
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("status %d, %v: %s", status, err, body)
	}
	if got != want {
		t.Errorf("/version: %+v, want %+v", got, want)
	}
	line, err := exec.Command(executable, "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{want.Version, want.Revision, want.Go} {
		if !strings.Contains(string(line), part) {
			t.Errorf("refersam version: %q does not name %q", line, part)
		}
	}
}
