package tests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	_ "image/jpeg"
	"image/png"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/refersam/refersam/tests/await"
)

// ducks is the sample in README and in the last lines of a start.
const (
	ducks     = "gateway/web/samples/ducks.jpg"
	ducksLeft = "the duck on the left"
)

// Every command of README runs unchanged in a fresh checkout, and gives a good
// result.
func TestReadme(t *testing.T) {
	s := shared.get(t)
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(readFile(t, "README.md"), -1)
	if len(blocks) < 4 || blocks[0][1] != "make run\n" {
		t.Fatalf("README has %d commands, and the first is not make run: %q", len(blocks), blocks)
	}
	// The shared service was started with make run.
	if plan := command(t, nil, "make", "-n", "run"); !strings.Contains(plan, "bin/refersam up --listen 127.0.0.1:8080\n") {
		t.Errorf("make run does not start the service where README asks it:\n%s", plan)
	}

	checkout := t.TempDir()
	entries, err := os.ReadDir(repositoryRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.Symlink(filepath.Join(repositoryRoot, entry.Name()), filepath.Join(checkout, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(checkout, "var")); err != nil && !os.IsNotExist(err) { // a fresh checkout has none
		t.Fatal(err)
	}
	var printed []string
	for _, block := range blocks[1:] {
		script := strings.ReplaceAll(block[1], "http://127.0.0.1:8080", s.url)
		printed = append(printed, shell(t, checkout, script))
	}

	var a answer
	if err := json.Unmarshal([]byte(printed[1]), &a); err != nil {
		t.Fatalf("%v in %s", err, printed[1])
	}
	if len(a.Results) != 2 || a.Results[0].Phrase != ducksLeft || a.Results[1].Phrase != "both ducks" {
		t.Fatalf("README's JSON answers %+v", a.Results)
	}
	left, both := mustDecode(t, *a.Results[0].Masks.RLE), mustDecode(t, *a.Results[1].Masks.RLE)
	if left.area() == 0 || both.area() < left.area()*3/2 {
		t.Errorf("one duck has %d pixels and both have %d", left.area(), both.area())
	}
	expectOverlay(t, filepath.Join(checkout, "duck.png"), left)
	mask, err := os.ReadFile(filepath.Join(checkout, "mask.png"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(mask))
	if err != nil {
		t.Fatal(err)
	}
	if agreement := iou(fromImage(img), left); agreement < 0.8 { // another variant may have answered
		t.Errorf("the mask of refersam segment has IoU %.2f with the service's, want at least 0.8", agreement)
	}
}

// expectOverlay checks that a file is the sample with the mask in red over it.
func expectOverlay(t *testing.T, path string, want bitmap) {
	t.Helper()
	overlay, plain := readPicture(t, path), readPicture(t, filepath.Join(repositoryRoot, ducks))
	if overlay.Bounds() != plain.Bounds() {
		t.Fatalf("%s is %v, want the size of the picture, %v", path, overlay.Bounds(), plain.Bounds())
	}
	got := bitmap{width: want.width, height: want.height, set: make([]bool, len(want.set))}
	for x := range want.width {
		for y := range want.height {
			r, g, b, _ := overlay.At(x, y).RGBA()
			r0, g0, b0, _ := plain.At(x, y).RGBA()
			// Two JPEG decoders differ by a little at every pixel; red over a pixel
			// differs by more.
			got.set[x*want.height+y] = apart(r, r0)+apart(g, g0)+apart(b, b0) > 24
		}
	}
	if agreement := iou(got, want); agreement < 0.8 {
		t.Errorf("what is red in %s has IoU %.2f with the mask, want at least 0.8", path, agreement)
	}
}

// apart is how much two values of 16 bits differ, of 255.
func apart(a, b uint32) int { return max(int(a>>8)-int(b>>8), int(b>>8)-int(a>>8)) }

func readPicture(t *testing.T, path string) image.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, _, err := image.Decode(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return img
}

// shell runs a script as a person at a terminal would, and returns its output.
func shell(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, script)
	}
	return string(out)
}

// tryIt is the command at the end of a start, for pasting.
var tryIt = regexp.MustCompile(`(?m)^  Try it +(.*)$`)

// A second service on a machine starts although the first uses the port of the
// metrics, with the same data folder, and prints all that its user needs.
func TestUp_Second(t *testing.T) {
	// The default port of the metrics is taken, by this listener or by another program.
	if ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:8081"); err == nil {
		defer ln.Close()
	}
	first := shared.get(t)
	folder := filepath.Join(shared.dir, "data")
	s, err := launch(t.TempDir(), []string{"REFERSAM_ADMIN_LISTEN="}, "up", "--data", folder)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	s.waitSaid(t, "  Stop     Ctrl-C\n") // the last line of the start
	text := s.logs.all()
	if !regexp.MustCompile(`(?sm)^refersam: +0 s  starting a Triton server.*\nrefersam: +\d+ s  the models are loaded; trying them`).MatchString(text) {
		t.Error("the start does not say what it waits for")
	}
	metrics := regexp.MustCompile(`(?m)^  Metrics +(http://127\.0\.0\.1:(\d+)/metrics)$`).FindStringSubmatch(text)
	if metrics == nil || metrics[2] == "8081" {
		t.Fatalf("the metrics are at %q, want a free port", metrics)
	}
	if !strings.Contains(shell(t, t.TempDir(), "curl -fsS "+metrics[1]), "refersam_") {
		t.Errorf("there are no metrics at %s", metrics[1])
	}
	if !strings.Contains(text, "default=127.0.0.1:8081") {
		t.Error("the log does not say that the default port is taken")
	}
	for _, want := range []string{"refersam is ready on " + s.url + " after ", "  Page     " + s.url + "/\n", "  API      " + s.url + "/docs\n", "  Keys     not required: only this machine", "  Data     " + folder + "\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the start does not say %q", want)
		}
	}
	line := tryIt.FindStringSubmatch(text)
	if line == nil {
		t.Fatal("the start has no line to try")
	}
	dir := t.TempDir()
	shell(t, dir, line[1])
	a := first.segment(t, "", part{"image", readFile(t, ducks)}, part{"phrase", ducksLeft})
	expectOverlay(t, filepath.Join(dir, "duck.png"), mustDecode(t, *a.Results[0].Masks.RLE))

	// The first service still works.
	if status, err := first.status("/readyz"); err != nil || status != 200 {
		t.Errorf("/readyz of the first service: %d, %v", status, err)
	}
}

// waitSaid waits until the service has printed something.
func (s *service) waitSaid(t *testing.T, text string) {
	t.Helper()
	await.Until(t, startTimeout, func() error {
		logs := s.logs.all()
		if strings.Contains(logs, text) {
			return nil
		}
		select {
		case <-s.done:
			t.Fatalf("the service ended and has not said %q: %v\n%s", text, s.err, logs)
		default:
		}
		return fmt.Errorf("the service has not said %q\n%s", text, logs)
	})
}

// all returns all that was written.
func (b *buffer) all() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
