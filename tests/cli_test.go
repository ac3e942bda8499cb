package tests_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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

// What keeps the service from starting is said in words, with what to do.
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
		{"no wheel", "REFERSAM_PYTHON=/usr/bin/python3", nil, "make run"},
		{"a misspelt setting", "REFERSAM_SPLITT=bert:1", nil, "REFERSAM_SPLITT"},
		{"a variant that is not there", "REFERSAM_SPLIT=bert:50,gpt:50", nil, "gpt"},
		{"a port that is taken", "REFERSAM_LOG_LEVEL=INFO", []string{"--listen", taken.Addr().String()}, taken.Addr().String()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"up", "--listen", "127.0.0.1:0", "--data", t.TempDir()}, tc.args...)
			// Another service on this machine may have the default address.
			out, err := failing(t, []string{tc.environment, "REFERSAM_ADMIN_LISTEN=off"}, args...)
			if err == nil || !strings.Contains(out, tc.want) {
				t.Errorf("%v, want a message with %q:\n%s", err, tc.want, out)
			}
		})
	}
}

// failing runs the binary, which must exit with a status that is not 0, and
// returns what it prints and that status as an error.
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
