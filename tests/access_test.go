package tests_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/store/storetest"
)

// refersam runs a command of the binary and returns its standard output.
func refersam(t *testing.T, environment []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(executable, args...)
	cmd.Dir = repositoryRoot
	cmd.Env = append(os.Environ(), environment...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("refersam %v: %v\n%s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// ask sends a GET with a key and returns the status and the body.
func (s *service) ask(t *testing.T, path, key string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// Keys are made, rotated and revoked by commands while gateways serve, with both
// databases; every gateway knows the change within 2 s.
func TestKeysWhileServing(t *testing.T) {
	for _, tc := range []struct {
		name     string
		database func(t *testing.T) string
	}{
		{"SQLite", func(t *testing.T) string { return "REFERSAM_DATA=" + t.TempDir() }},
		{"PostgreSQL", func(t *testing.T) string {
			return "REFERSAM_DATABASE_URL=" + string(storetest.NewCluster(t).NewDatabase(t))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			environment := []string{tc.database(t), "REFERSAM_TRITON=127.0.0.1:1", "REFERSAM_AUTH=on"}
			if out, err := failing(t, environment, "serve", "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(out, "refersam keys create") {
				t.Errorf("it starts without a key: %s", out)
			}
			create := []string{"keys", "create", "--name", "test", "--scopes", "segment"}
			key, other := refersam(t, environment, create...), refersam(t, environment, create...)
			id := strings.Split(key, "_")[1]
			var gateways []*service
			for range 2 {
				s, err := launch(t.TempDir(), environment, "serve")
				if err != nil {
					t.Fatal(err)
				}
				cleanUp(t, s)
				s.waitAlive(t)
				gateways = append(gateways, s)
			}
			expect := func(key string, want int) {
				t.Helper()
				for _, s := range gateways {
					if status, body := s.ask(t, "/v1/usage", key); status != want {
						t.Errorf("status %d, want %d: %s", status, want, body)
					}
				}
			}
			expect("", 401)
			expect(key, 200)
			expect(other, 200)

			rotated := refersam(t, environment, "keys", "rotate", id)
			time.Sleep(2*time.Second + 100*time.Millisecond) // processes keep what they know of a key for 2 s
			expect(key, 200)
			expect(rotated, 200)
			refersam(t, environment, "keys", "revoke", id)
			time.Sleep(2*time.Second + 100*time.Millisecond) // the same
			expect(key, 401)
			expect(rotated, 401)
			expect(other, 200)
			for _, s := range gateways {
				if err := s.signal(syscall.SIGTERM); err != nil {
					t.Error(err)
				}
				for _, secret := range []string{key, rotated, other} {
					if strings.Contains(s.logs.String(), strings.Split(secret, "_")[2]) {
						t.Error("a secret is in the log")
					}
				}
			}
		})
	}
}

// A backup is taken while the service answers, and restoring it brings the counted
// usage back.
func TestBackupWhileServing(t *testing.T) {
	folder := t.TempDir()
	s, err := launch(t.TempDir(), nil, "up", "--data", folder)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	environment := []string{"REFERSAM_DATA=" + folder}
	scene := scenes(t)[0]
	s.segment(t, "", part{"image", string(scene.picture(t))}, part{"phrase", scene.Questions[0].Phrase})
	status, body := s.ask(t, "/v1/usage", "")
	var answer api.Usage
	if err := json.Unmarshal(body, &answer); err != nil || status != 200 || len(answer.Usage) != 1 ||
		answer.Usage[0].Key != "anonymous" || answer.Usage[0].Requests != 1 || answer.Usage[0].GPUMS <= 0 {
		t.Errorf("usage with status %d, %v: %s", status, err, body)
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	refersam(t, environment, "backup", backup)
	if out, err := failing(t, environment, "restore", backup); err == nil || !strings.Contains(out, "in use") {
		t.Errorf("restored below a gateway: %v, %s", err, out)
	}
	if err := s.signal(syscall.SIGKILL); err == nil {
		t.Error("it was killed and ended well")
	}
	refersam(t, environment, "restore", backup)
	refersam(t, environment, "keys", "list")
}
