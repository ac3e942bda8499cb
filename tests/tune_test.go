package tests_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/tests/ensembles"
	"github.com/refersam/refersam/triton"
)

// tuneCost makes the image stage take 60 ms of a full batch and the others 40 ms in
// all. So a second instance of the image stage doubles the throughput, and a second
// instance of any other stage changes nothing.
var tuneCost = ensembles.Cost{Fixed: 20 * time.Millisecond, Row: 10 * time.Millisecond}

// A stage that benefits from a second instance gets one, in the file that the
// server reads, and the server accepts it.
func TestTune(t *testing.T) {
	repository, dir := t.TempDir(), t.TempDir()
	if err := ensembles.WriteParallel(repository, tuneCost); err != nil {
		t.Fatal(err)
	}
	before := contents(t, repository)
	plot := filepath.Join(dir, "plot.svg")
	out := tune(t, repository, dir, "--budget", "12s", "--max-instances", "2", "--modes", "adaptive",
		"--objective", "throughput", "--plot", plot, "--write")

	rates := make(map[string]float64)
	for _, row := range regexp.MustCompile(`(?m)^\S+ +(\d[\d·]*) +adaptive +8 +\S+ +([\d.]+) `).FindAllStringSubmatch(out, -1) {
		rates[row[1]], _ = strconv.ParseFloat(row[2], 64)
	}
	if ratio := rates["1·2·1·1·1"] / rates["1·1·1·1·1"]; !(ratio > 1.7 && ratio < 2.3) {
		t.Errorf("a second instance of the image stage makes it %.2f times as fast, want 2", ratio)
	}
	image := filepath.Join(triton.ModelPrefix+ensembles.CalibratedVariant+"_image", "config.pbtxt")
	for name, text := range contents(t, repository) {
		want := before[name]
		if name == image {
			want = strings.Replace(want, "count: 1", "count: 2", 1)
		}
		if text != want {
			t.Errorf("%s is\n%s\nwant\n%s", name, text, want)
		}
	}
	if svg, err := os.ReadFile(plot); err != nil || !bytes.Contains(svg, []byte("</svg>")) {
		t.Errorf("no plot: %v", err)
	}
	if !strings.Contains(out, "REFERSAM_BATCH_MODE=adaptive\n") {
		t.Errorf("no settings for the gateway in:\n%s", out)
	}
	checkNothingLeft(t, dir)

	server := startTriton(t, func(to string) error { return os.CopyFS(to, os.DirFS(repository)) })
	if counts := instances(t, server); counts[1] != 2 || counts[0] != 1 {
		t.Errorf("a server with the repository has %v instances", counts)
	}
}

// Instances that cannot be loaded are a line of the table, with the reason, and the
// sweep continues with the others.
func TestTune_refused(t *testing.T) {
	t.Parallel()
	repository, dir := t.TempDir(), t.TempDir()
	if err := ensembles.WriteParallel(repository, tuneCost); err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(repository, triton.ModelPrefix+ensembles.CalibratedVariant+"_image", "1", "model.py")
	code, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	const begin = "    def initialize(self, args: dict[str, str]) -> None:\n"
	refusal := begin + "        if args['model_instance_name'].endswith('_1'):\n            raise RuntimeError('no memory is left')\n"
	if err := os.WriteFile(model, bytes.Replace(code, []byte(begin), []byte(refusal), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	refused := regexp.MustCompile(`(?m)^· +1·2·1·1·1 .*no memory is left`)
	continued := regexp.MustCompile(`(?m)^\S+ +1·1·1·1·1 +adaptive +4 +0s +[\d.]+ `)
	// On busy cores the starts of servers may take most of the first budget.
	var out string
	for _, budget := range []string{"28s", "90s"} {
		out = tune(t, repository, dir, "--budget", budget, "--max-instances", "2", "--modes", "adaptive")
		if refused.MatchString(out) && continued.MatchString(out) {
			break
		}
	}
	if !refused.MatchString(out) {
		t.Error("the table has no line with the reason")
	}
	if !continued.MatchString(out) {
		t.Error("it did not go on with what can be loaded")
	}
	checkNothingLeft(t, dir)
}

// Servers that run already are changed while they run, one after the other, and
// restored at the end.
func TestTune_running(t *testing.T) {
	t.Parallel()
	write := func(to string) error { return ensembles.WriteParallel(to, tuneCost) }
	servers := []*tritonServer{startTriton(t, write), startTriton(t, write)}
	dir := t.TempDir()
	cmd := tuneCommand(t, dir, "--budget", "12s", "--max-instances", "2", "--modes", "adaptive")
	cmd.Env = append(cmd.Env, "REFERSAM_TRITON="+servers[0].address+","+servers[1].address)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out)
	// While other tests run, the busiest stage is not predictable.
	if tried := regexp.MustCompile(`(?m)^\S+ +[1·]*2[12·]* +adaptive .* %$`); !tried.Match(out) {
		t.Error("no setting with more instances was measured")
	}
	if !strings.Contains(string(out), "instances: ") {
		t.Error("it does not say which instances it chose")
	}
	for _, server := range servers {
		for i, count := range instances(t, server) {
			if count != 1 {
				t.Errorf("step %d of %s is left with %d instances", i, server.address, count)
			}
		}
	}
	checkNothingLeft(t, dir)
}

// Ctrl-C ends the sweep within a short time and leaves nothing behind.
func TestTune_interrupted(t *testing.T) {
	t.Parallel()
	repository, dir := t.TempDir(), t.TempDir()
	if err := ensembles.WriteParallel(repository, tuneCost); err != nil {
		t.Fatal(err)
	}
	cmd := tuneCommand(t, dir, "--budget", "5m", "--repository", repository, "--write")
	progress := &buffer{}
	cmd.Stderr = progress
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await.Until(t, startTimeout, func() error {
		if !strings.Contains(progress.String(), "instances") {
			return fmt.Errorf("it measures nothing:\n%s", progress)
		}
		return nil
	})
	family := descendants(t, cmd.Process.Pid)
	time.Sleep(500 * time.Millisecond) // into the first measurement, which says nothing before its end
	begun := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(progress.String(), "nothing was written") {
		t.Errorf("it ended with %v:\n%s", err, progress)
	}
	if took := time.Since(begun); took > stopTimeout {
		t.Errorf("it took %v to stop", took)
	}
	for _, p := range family {
		if p.alive() {
			t.Errorf("%s is still there", p.command())
		}
	}
	checkNothingLeft(t, dir)
}

// tuneCommand is `refersam tune` with its temporary files in dir.
func tuneCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), executable, append([]string{"tune"}, args...)...)
	cmd.Dir = repositoryRoot
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "REFERSAM_PYTHON="+filepath.Join(repositoryRoot, ".venv", "bin", "python"),
		"REFERSAM_TRITON_WORK_DIR="+filepath.Join(shared.dir, "triton"), "REFERSAM_TRITON_THREADS=1")
	cmd.Stderr = t.Output()
	return cmd
}

func tune(t *testing.T, repository, dir string, args ...string) string {
	t.Helper()
	out, err := tuneCommand(t, dir, append(args, "--repository", repository)...).Output()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Logf("%s", out)
	return string(out)
}

// contents returns the texts of a folder's files.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		texts[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// checkNothingLeft reports copies of repositories that are still in dir.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(dir, "refersam-tune-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// instances returns how many instances of each step of the calibrated ensemble a
// server has.
func instances(t *testing.T, server *tritonServer) []int {
	t.Helper()
	cfg := triton.DefaultConfig()
	cfg.Addresses = []string{server.address}
	fleet, err := triton.NewFleet(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	if err := fleet.Resolve(context.Background()); err != nil {
		t.Fatal(err)
	}
	contracts, err := fleet.Contracts(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var counts []int
	for _, step := range contracts[0].StepNames() {
		config, err := fleet.Replicas()[0].Config(context.Background(), step)
		if err != nil {
			t.Fatal(err)
		}
		counts = append(counts, int(config.GetInstanceGroup()[0].GetCount()))
	}
	return counts
}
