package tests_test

import (
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"
)

// composeFile is the part of compose.yaml that must agree with the rest of the
// repository. The order of its entries does not matter.
type composeFile struct {
	Services map[string]struct {
		Image       string            `yaml:"image"`
		Command     []string          `yaml:"command"`
		Environment map[string]string `yaml:"environment"`
		Expose      []string          `yaml:"expose"`
		Ports       []string          `yaml:"ports"`
		Volumes     []string          `yaml:"volumes"`
		Build       struct {
			Context    string `yaml:"context"`
			Dockerfile string `yaml:"dockerfile"`
		} `yaml:"build"`
		DependsOn map[string]struct {
			Condition string `yaml:"condition"`
		} `yaml:"depends_on"`
		Healthcheck struct {
			Test []string `yaml:"test"`
		} `yaml:"healthcheck"`
	} `yaml:"services"`
}

func compose(t *testing.T) composeFile {
	t.Helper()
	data := readFile(t, "compose.yaml")
	// ${NAME:-default} means default: nothing is set in the tests.
	withDefaults := regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`).ReplaceAllString(data, "$1")
	if i := strings.Index(withDefaults, "${"); i >= 0 {
		t.Fatalf("a variable without a default: %.40s", withDefaults[i:])
	}
	var file composeFile
	if err := yaml.Unmarshal([]byte(withDefaults), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestComposeGateway(t *testing.T) {
	file := compose(t)
	gateway, triton := file.Services["gateway"], file.Services["triton"]
	dockerfile := readFile(t, filepath.Join(gateway.Build.Context, gateway.Build.Dockerfile))

	// The settings exist, and are valid.
	known := command(t, nil, executable, "config")
	var environment []string
	for name, value := range gateway.Environment {
		if !strings.Contains(known, name) {
			t.Errorf("the gateway knows no setting %s", name)
		}
		environment = append(environment, name+"="+value)
	}
	command(t, environment, executable, "config")
	command(t, nil, executable, append(slices.Clone(gateway.Command), "--help")...)

	// The gateway's Triton is the other service, at its gRPC port, and compose
	// waits for it.
	host, port, err := net.SplitHostPort(gateway.Environment["REFERSAM_TRITON"])
	if err != nil || host != "triton" || !slices.Contains(triton.Expose, port) {
		t.Errorf("REFERSAM_TRITON %q, and triton exposes %v: %v", gateway.Environment["REFERSAM_TRITON"], triton.Expose, err)
	}
	if gateway.DependsOn["triton"].Condition != "service_healthy" || len(triton.Healthcheck.Test) == 0 {
		t.Error("the gateway does not wait until triton is healthy")
	}

	// The gateway listens on the port that is published, as the image says.
	_, listen, err := net.SplitHostPort(gateway.Environment["REFERSAM_LISTEN"])
	if err != nil {
		t.Fatal(err)
	}
	if len(gateway.Ports) != 1 || !strings.HasSuffix(gateway.Ports[0], ":"+listen) || !strings.HasPrefix(gateway.Ports[0], "127.0.0.1:") {
		t.Errorf("published %v, want the port %s on loopback", gateway.Ports, listen)
	}
	if !strings.Contains(dockerfile, "\nEXPOSE "+listen+"\n") {
		t.Errorf("the Dockerfile does not EXPOSE %s", listen)
	}
	// The gateway's state is in a volume, and the image has a folder for it.
	data := gateway.Environment["REFERSAM_DATA"]
	if data == "" || !slices.Contains(gateway.Volumes, "data:"+data) || !strings.Contains(dockerfile, "--chown=nonroot:nonroot "+data+" "+data+"\n") {
		t.Errorf("REFERSAM_DATA %q, and the volumes are %v", data, gateway.Volumes)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readFile(t, "go.mod"))
	if !strings.Contains(dockerfile, "FROM golang:"+version[1]+"-") {
		t.Errorf("the Dockerfile does not build with Go %s, as go.mod wants", version[1])
	}
}

// The first "docker compose up" on a machine must work: with only the environment
// and the command of compose.yaml, the gateway makes a key and prints it, once,
// with a command that works.
func TestComposeFirstStart(t *testing.T) {
	gateway := compose(t).Services["gateway"]
	server := startNull(t)
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	container, volume := t.TempDir(), t.TempDir()
	environment := maps.Clone(gateway.Environment)
	// The surroundings of the container: its port, the other container, and the volume.
	environment["REFERSAM_LISTEN"] = strings.Replace(environment["REFERSAM_LISTEN"], ":8080", ":"+port, 1)
	environment["REFERSAM_TRITON"] = server.address
	environment["REFERSAM_DATA"] = volume
	start := func() *service {
		s := &service{url: "http://127.0.0.1:" + port, logs: &buffer{}, done: make(chan struct{})}
		s.cmd = exec.Command(executable, gateway.Command...)
		s.cmd.Dir = container
		s.cmd.Env = []string{}
		for name, value := range environment {
			s.cmd.Env = append(s.cmd.Env, name+"="+value)
		}
		s.cmd.Stdout, s.cmd.Stderr = s.logs, s.logs
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			s.err = s.cmd.Wait()
			close(s.done)
		}()
		cleanUp(t, s)
		s.waitSaid(t, "  Stop     Ctrl-C\n")
		return s
	}

	first := start()
	text := first.logs.all()
	key := regexp.MustCompile(`(?m)^  (rsk_\S+)$`).FindStringSubmatch(text)
	line := tryIt.FindStringSubmatch(text)
	if key == nil || line == nil {
		t.Fatalf("the first start has no key, or no line to try:\n%s", text)
	}
	dir := t.TempDir()
	shell(t, dir, line[1])
	readPicture(t, filepath.Join(dir, "duck.png"))
	if status, _ := first.ask(t, "/v1/models", ""); status != http.StatusUnauthorized {
		t.Errorf("status %d without a key, want 401", status)
	}
	if err := first.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	second := start()
	if text := second.logs.all(); strings.Contains(text, "rsk_"+strings.Split(key[1], "_")[1]) || strings.Contains(text, "first API key") {
		t.Errorf("the second start shows a key again:\n%s", text)
	}
	if status, body := second.ask(t, "/v1/models", key[1]); status != http.StatusOK {
		t.Errorf("status %d with the key of the first start: %s", status, body)
	}
	if err := second.signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	// After all keys have been revoked, no new first key is made.
	command(t, []string{"REFERSAM_DATA=" + volume}, executable, "keys", "revoke", strings.Split(key[1], "_")[1])
	last := exec.Command(executable, gateway.Command...)
	last.Dir, last.Env = container, second.cmd.Env
	if out, err := last.CombinedOutput(); err == nil || !strings.Contains(string(out), "refersam keys create") || strings.Contains(string(out), "first API key") {
		t.Errorf("%v with all keys revoked:\n%s", err, out)
	}
	// The container's own file system is read-only.
	if files, err := os.ReadDir(container); err != nil || len(files) > 0 {
		t.Errorf("outside its volume the gateway has written %v: %v", files, err)
	}
}

func TestComposeTriton(t *testing.T) {
	triton := compose(t).Services["triton"]
	server, args := triton.Command[0], triton.Command[1:]
	if server != "tritonserver" || !strings.Contains(triton.Image, "/tritonserver:") {
		t.Errorf("command %q in image %q", server, triton.Image)
	}

	help := tritonHelp(t)
	flags := make(map[string]string)
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		if !regexp.MustCompile(regexp.QuoteMeta(name) + `\b`).MatchString(help) {
			t.Errorf("tritonserver knows no %s", name)
		}
		flags[name] = value
	}

	source, target, _ := strings.Cut(strings.TrimSuffix(triton.Volumes[0], ":ro"), ":")
	if target != flags["--model-repository"] {
		t.Errorf("the models are mounted at %q and looked for at %q", target, flags["--model-repository"])
	}
	for _, variant := range variants {
		if _, err := os.Stat(filepath.Join(repositoryRoot, source, "refersam_"+variant, "config.pbtxt")); err != nil {
			t.Error(err)
		}
	}
	config := "configs/" + flags["--model-config-name"] + ".pbtxt"
	stages, err := filepath.Glob(filepath.Join(repositoryRoot, source, "refersam_*", "1", "model.onnx"))
	if err != nil || len(stages) == 0 {
		t.Fatalf("no stages in %s: %v", source, err)
	}
	for _, stage := range stages {
		if _, err := os.Stat(filepath.Join(filepath.Dir(stage), "..", config)); err != nil {
			t.Error(err)
		}
	}
}

// The files that .dockerignore does not exclude are enough to build the gateway.
func TestImageContext(t *testing.T) {
	context := t.TempDir()
	for line := range strings.Lines(readFile(t, ".dockerignore")) {
		pattern, included := strings.CutPrefix(strings.TrimSpace(line), "!")
		if !included {
			continue
		}
		paths, err := filepath.Glob(filepath.Join(repositoryRoot, pattern))
		if err != nil || len(paths) == 0 {
			t.Errorf(".dockerignore names %s, and there is none: %v", pattern, err)
		}
		for _, path := range paths {
			copyInto(t, context, path)
		}
	}
	run := regexp.MustCompile(`(?m)^RUN (.*) -o /refersam (.*)$`).FindStringSubmatch(readFile(t, "deploy/gateway.Dockerfile"))
	if run == nil {
		t.Fatal("the Dockerfile has no line that builds /refersam")
	}
	build := exec.Command("sh", "-c", run[1]+" -o /dev/null "+run[2])
	build.Dir = context
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("building with what the image gets: %v\n%s", err, out)
	}
}

// copyInto copies a file or folder, without tests and test data.
func copyInto(t *testing.T, context, path string) {
	t.Helper()
	err := filepath.WalkDir(path, func(from string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Name() == "testdata" {
			return fs.SkipDir
		}
		if entry.IsDir() || strings.HasSuffix(from, "_test.go") {
			return nil
		}
		name, err := filepath.Rel(repositoryRoot, from)
		if err != nil {
			return err
		}
		to := filepath.Join(context, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tritonHelp returns what the installed tritonserver says about its flags.
func tritonHelp(t *testing.T) string {
	t.Helper()
	packages, err := filepath.Glob(filepath.Join(repositoryRoot, ".venv/lib/python3.*/site-packages"))
	if err != nil || len(packages) != 1 {
		t.Fatalf("no virtual environment, run make setup: %v", err)
	}
	help := exec.Command(filepath.Join(packages[0], "pytriton/tritonserver/bin/tritonserver"), "--help")
	help.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(packages[0], "nvidia_pytriton.libs"))
	// It ends with a status of 1 after --help.
	out, _ := help.CombinedOutput()
	if !strings.Contains(string(out), "--model-repository") {
		t.Fatalf("tritonserver --help: %s", out)
	}
	return string(out)
}

// command runs a program and returns what it prints; it must succeed.
func command(t *testing.T, environment []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = repositoryRoot
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repositoryRoot, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
