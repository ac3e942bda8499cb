package main_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	main "github.com/refersam/refersam/cmd/refersam"
)

// run runs the program with these inputs only.
func run(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m := main.Main{Args: args, Environ: environ, Stdin: strings.NewReader("not a picture"), Stdout: &out, Stderr: &errs}
	code = m.Run(ctx)
	return code, out.String(), errs.String()
}

func TestConfig(t *testing.T) {
	code, out, errs := run(t, []string{
		"REFERSAM_SPLIT=bert:90,clip:10", "REFERSAM_TRITON=a:1,b:2", "REFERSAM_MAX_IMAGE_BYTES=1000", "REFERSAM_LOG_LEVEL=debug", "REFERSAM_EMOJI_FONT=/emoji.ttf", "HOME=/",
	}, "config")
	if code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	values := make(map[string][]string)
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		values[fields[0]] = fields[1:]
	}
	for name, want := range map[string]string{
		"REFERSAM_SPLIT":                  "bert:90,clip:10 environment",
		"REFERSAM_TRITON":                 "a:1,b:2 environment",
		"REFERSAM_MAX_IMAGE_BYTES":        "1000 environment",
		"REFERSAM_LOG_LEVEL":              "DEBUG environment",
		"REFERSAM_LISTEN":                 "127.0.0.1:8080 default",
		"REFERSAM_REQUEST_TIMEOUT":        "30s default",
		"REFERSAM_MODEL_REPOSITORY":       "model_repository default",
		"REFERSAM_TRUSTED_PROXIES":        "default",
		"REFERSAM_TRITON_CONNECT_TIMEOUT": "5s default",
	} {
		if got := strings.Join(values[name], " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if _, shown := values["HOME"]; shown {
		t.Error("HOME is none of ours")
	}
}

func TestFailures(t *testing.T) {
	picture := filepath.Join("..", "..", "gateway", "web", "samples", "ducks.jpg")
	for _, tc := range []struct {
		name    string
		environ []string
		args    []string
		code    int
		want    string
	}{
		{"no command", nil, nil, 2, "expected one of"},
		{"another command", nil, []string{"fly"}, 2, "fly"},
		{"another flag", nil, []string{"up", "--fast"}, 2, "--fast"},
		{"no phrase", nil, []string{"segment", picture}, 2, "phrase"},
		{"a misspelt variable", []string{"REFERSAM_SPLITT=a:1"}, []string{"config"}, 1, "REFERSAM_SPLITT"},
		{"a value of another type", []string{"REFERSAM_REQUEST_TIMEOUT=long"}, []string{"config"}, 1, `REFERSAM_REQUEST_TIMEOUT is "long", allowed: a duration, such as 500ms, 30s or 2m`},
		{"a log format that is none", []string{"REFERSAM_LOG_FORMAT=xml"}, []string{"config"}, 1, "REFERSAM_LOG_FORMAT"},
		{"values out of range", []string{"REFERSAM_MAX_IMAGE_SIDE=0", "REFERSAM_TRITON_THREADS=-1"}, []string{"config"}, 1, "REFERSAM_MAX_IMAGE_SIDE"},
		{"a connection out of range", []string{"REFERSAM_TRITON_CONNECTIONS=0"}, []string{"config"}, 1, "REFERSAM_TRITON_CONNECTIONS"},
		{"an address that is none", []string{"REFERSAM_TRITON=triton"}, []string{"config"}, 1, "host:port"},
		{"a split that is none", []string{"REFERSAM_SPLIT=bert", "REFERSAM_TRITON=127.0.0.1:1"}, []string{"serve"}, 1, "REFERSAM_SPLIT"},
		{"a listen address that is none", []string{"REFERSAM_TRITON=127.0.0.1:1"}, []string{"serve", "--listen", "8080"}, 1, "REFERSAM_LISTEN"},
		{"reachable without a key", []string{"REFERSAM_TRITON=127.0.0.1:1", "REFERSAM_DATA=" + t.TempDir()}, []string{"serve", "--listen", "0.0.0.0:0"}, 1, "refersam keys create"},
		{"another way to authenticate", []string{"REFERSAM_AUTH=maybe"}, []string{"config"}, 1, "REFERSAM_AUTH"},
		{"half of TLS", []string{"REFERSAM_TLS_CERT=cert.pem"}, []string{"config"}, 1, "REFERSAM_TLS_KEY"},
		{"a folder that is none", []string{"REFERSAM_TRITON=127.0.0.1:1"}, []string{"serve", "--listen", "127.0.0.1:0", "--data", "/dev/null/data"}, 1, "REFERSAM_DATA"},
		{"serve before nothing", nil, []string{"serve"}, 1, "REFERSAM_TRITON"},
		{"up before servers that run", []string{"REFERSAM_TRITON=127.0.0.1:1"}, []string{"up"}, 1, "refersam serve"},
		{"no such picture", nil, []string{"segment", "nowhere.png", "a duck"}, 1, "nowhere.png"},
		{"two masks on standard output", nil, []string{"segment", picture, "a duck", "a dog", "-o", "-"}, 1, "one phrase"},
		{"a mask and JSON on standard output", nil, []string{"segment", picture, "a duck", "--json", "-o", "-"}, 1, "leave out --json"},
		{"no Triton there", []string{"REFERSAM_TRITON=127.0.0.1:1"}, []string{"segment", picture, "a duck"}, 1, "127.0.0.1:1"},
		{"no Triton at a socket", []string{"REFERSAM_TRITON=unix:/nowhere/grpc"}, []string{"segment", picture, "a duck"}, 1, "unix:/nowhere/grpc"},
		{"a socket that is none", []string{"REFERSAM_TRITON=unix:grpc"}, []string{"config"}, 1, "absolute path"},
		{"a setting for tritonserver", []string{"REFERSAM_TRITON_ENV=REFERSAM_DATABASE_URL"}, []string{"config"}, 1, "must not see"},
		{"no models", []string{"REFERSAM_MODEL_REPOSITORY=" + t.TempDir()}, []string{"segment", "-", "a duck"}, 1, "REFERSAM_MODEL_REPOSITORY"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, errs := run(t, tc.environ, tc.args...)
			if code != tc.code || !strings.Contains(errs, tc.want) {
				t.Errorf("exit %d, want %d and a message with %q:\n%s", code, tc.code, tc.want, errs)
			}
		})
	}
}

// A value that a variable does not allow is an error with the variable, the value
// and the allowed ones. All wrong variables are reported at once.
func TestConfigErrors(t *testing.T) {
	code, out, errs := run(t, nil, "config")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	// Any text is a valid value of these variables.
	free := map[string]bool{"REFERSAM_DATA": true, "REFERSAM_MODEL_REPOSITORY": true, "REFERSAM_PYTHON": true, "REFERSAM_TRITON_WORK_DIR": true, "REFERSAM_TRITON_SOCKET_DIR": true}
	for _, bad := range []string{"-7", "-7s", "?"} {
		var all, wrong []string
		for line := range strings.Lines(out) {
			name := strings.Fields(line)[0]
			if free[name] || name == "REFERSAM_TLS_KEY" || name == "REFERSAM_LENIENT_JPEG" || name == "REFERSAM_REDUCE_JPEG" {
				continue
			}
			if bad != "?" && name == "REFERSAM_TRITON_CONFIG_NAME" { // ? is a valid name
				continue
			}
			wrong = append(wrong, name)
			all = append(all, name+"="+bad)
		}
		code, _, errs := run(t, all, "up")
		if code != 1 {
			t.Errorf("exit %d with all variables wrong", code)
		}
		for _, name := range wrong {
			value := `"` + regexp.QuoteMeta(bad) + `"`
			switch {
			case name == "REFERSAM_DATABASE_URL": // what is no URL may hold a password
				value = `"\(not a URL\)"`
			case bad != "?":
				value = `("` + bad + `"|` + bad + `)`
			}
			if !regexp.MustCompile(`(?m)^(refersam: )?` + name + ` (is|has) ` + value + `.*allowed: .`).MatchString(errs) {
				t.Errorf("%s=%s: no line with the variable, the value and what is allowed", name, bad)
			}
		}
		if t.Failed() {
			t.Log(errs)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	if code, out, _ := run(t, nil, "--help"); code != 0 || !strings.Contains(out, "segment") {
		t.Errorf("--help: exit %d:\n%s", code, out)
	}
	if code, out, _ := run(t, nil, "segment", "--help"); code != 0 || !strings.Contains(out, "--variant") {
		t.Errorf("segment --help: exit %d:\n%s", code, out)
	}
	if code, out, _ := run(t, nil, "version"); code != 0 || !strings.HasPrefix(out, "refersam ") || !strings.Contains(out, "go1.") {
		t.Errorf("version: exit %d:\n%s", code, out)
	}
}

// A program that is stopped by a signal has not failed, at any moment of its start.
func TestServe_Stop(t *testing.T) {
	for _, after := range []time.Duration{0, 3 * time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) { testStop(t, after) })
	}
}

func testStop(t *testing.T, after time.Duration) {
	ctx, stop := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	m := main.Main{
		Args:    []string{"serve", "--listen", "127.0.0.1:0"},
		Environ: []string{"REFERSAM_TRITON=127.0.0.1:1", "REFERSAM_ADMIN_LISTEN=off", "REFERSAM_DATA=" + t.TempDir()},
		Stdout:  &out,
		Stderr:  &errs,
	}
	time.AfterFunc(after, stop)
	if code := m.Run(ctx); code != 0 {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error("it ended before it was told to")
	}
	if strings.Contains(out.String(), "ready") {
		t.Errorf("ready without a model: %s", out.String())
	}
}
