package tests_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
)

// brokenRepository is testModels with an unreadable file of clip.
func brokenRepository(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	err := os.CopyFS(dir, os.DirFS(filepath.Join(repositoryRoot, testModels)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte("name: } no model"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// get returns the body of a GET.
func (s *service) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	resp, err := client.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// If one variant is broken the other one serves, and every description of the
// service says which stage is broken and why. The units that a split gives to the
// broken variant get no other one.
func TestOneVariantIsBroken(t *testing.T) {
	python := "REFERSAM_PYTHON=" + filepath.Join(repositoryRoot, ".venv", "bin", "python")
	for _, split := range []string{"", "bert:50,clip:50"} {
		t.Run("split "+split, func(t *testing.T) {
			environment := []string{python, "REFERSAM_TRITON_WORK_DIR=" + filepath.Join(shared.dir, "triton")}
			if split != "" {
				environment = append(environment, "REFERSAM_SPLIT="+split)
			}
			s, err := launch(t.TempDir(), environment, "up", "--repository", brokenRepository(t, "refersam_clip_decoder/1/model.onnx"))
			if err != nil {
				t.Fatal(err)
			}
			cleanUp(t, s)
			if err := s.waitReady(); err != nil {
				t.Fatal(err)
			}
			const why = "refersam_clip_decoder"
			status, body := s.get(t, "/readyz")
			if status != http.StatusOK || !strings.HasPrefix(body, "ok\n") || !strings.Contains(body, why) || !strings.Contains(body, "INVALID_PROTOBUF") {
				t.Errorf("readyz: status %d: %s", status, body)
			}
			if strings.Contains(body, os.TempDir()) {
				t.Errorf("readyz names a folder: %s", body)
			}
			status, body = s.get(t, "/v1/models")
			if status != http.StatusOK || !strings.Contains(body, `"unusable":[{"name":"refersam_clip","variant":"clip"`) || !strings.Contains(body, why) {
				t.Errorf("models: status %d: %s", status, body)
			}
			if status, body = s.get(t, "/v1/models/clip"); status != http.StatusServiceUnavailable || !strings.Contains(body, why) {
				t.Errorf("the broken model: status %d: %s", status, body)
			}
			if !strings.Contains(s.logs.String(), "a variant cannot be used") || strings.Contains(s.logs.String(), "cannot learn the model") {
				t.Errorf("log:\n%s", s.logs)
			}

			picture := part{"image", string(scenes(t)[0].picture(t))}
			phrase := part{"phrase", "a dog"}
			contentType, ofClip := form(t, picture, phrase, part{"variant", "clip"})
			reply := s.post(t, contentType, ofClip)
			reply.expectProblem(t, http.StatusServiceUnavailable, "not_ready")
			if !strings.Contains(string(reply.body), why) || reply.header.Get("Retry-After") == "" {
				t.Errorf("asked for the broken variant: %v %s", reply.header, reply.body)
			}
			var served, refused int
			plainType, plainForm := form(t, picture, phrase)
			for _, unit := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"} {
				switch reply := s.post(t, plainType, plainForm, "X-Unit-Id", unit); reply.status {
				case http.StatusOK:
					served++
					if a := reply.answer(t); a.Model.Variant != "bert" {
						t.Errorf("answered by %s", a.Model.Variant)
					}
				case http.StatusServiceUnavailable:
					refused++
				default:
					t.Errorf("status %d: %s", reply.status, reply.body)
				}
			}
			if split == "" && refused > 0 || split != "" && (refused == 0 || served == 0) {
				t.Errorf("%d units were answered and %d refused", served, refused)
			}
		})
	}
}

// The error also names an ensemble or a stage with an unreadable configuration.
func TestOneConfigurationIsBroken(t *testing.T) {
	for file, why := range map[string]string{
		"refersam_clip/config.pbtxt":          "variant clip cannot be used: it is not loaded: the log of the model server says why",
		"refersam_clip_vlp/configs/cpu.pbtxt": "variant clip cannot be used: its stage refersam_clip_vlp is not loaded: the log of the model server says why",
	} {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			environment := []string{
				"REFERSAM_PYTHON=" + filepath.Join(repositoryRoot, ".venv", "bin", "python"),
				"REFERSAM_TRITON_WORK_DIR=" + filepath.Join(shared.dir, "triton"),
			}
			s, err := launch(t.TempDir(), environment, "up", "--repository", brokenRepository(t, file))
			if err != nil {
				t.Fatal(err)
			}
			cleanUp(t, s)
			if err := s.waitReady(); err != nil {
				t.Fatal(err)
			}
			if status, body := s.get(t, "/readyz"); status != http.StatusOK || !strings.Contains(body, why) {
				t.Errorf("readyz: status %d: %s", status, body)
			}
			if a := s.segment(t, "", part{"image", string(scenes(t)[0].picture(t))}, part{"phrase", "a dog"}); a.Model.Variant != "bert" {
				t.Errorf("answered by %s", a.Model.Variant)
			}
		})
	}
}

// A server that was never reached is not used, and the gateway says that it
// cannot be reached.
func TestServerNeverReached(t *testing.T) {
	address, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s, err := launch(t.TempDir(), []string{"REFERSAM_TRITON=" + address, "REFERSAM_ADMIN_LISTEN=" + admin}, "serve")
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	s.waitAlive(t)
	g := &guarded{s, "http://" + admin}
	const reason = "the model server cannot be reached"
	await.Until(t, 10*time.Second, func() error {
		status, body := s.get(t, "/readyz")
		if status != http.StatusServiceUnavailable {
			t.Fatalf("readyz: status %d: %s", status, body)
		}
		if !strings.Contains(body, reason) {
			return fmt.Errorf("readyz does not say %q: %s", reason, body)
		}
		if strings.Contains(body, address) {
			t.Errorf("readyz names an address: %s", body)
		}
		return nil
	})
	if usable := g.metric(t, "refersam_replica_usable", address); usable != 0 {
		t.Errorf("refersam_replica_usable is %v for a server that was never reached", usable)
	}
	if strings.Contains(s.logs.String(), "replica is usable") {
		t.Errorf("log:\n%s", s.logs)
	}
}
