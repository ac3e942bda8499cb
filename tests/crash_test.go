package tests_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/store/storetest"
	"github.com/refersam/refersam/tests/await"
)

// crashRounds is how often the gateway is killed with each database. make
// crash-proof sets it.
func crashRounds() (rounds, perRound int) {
	rounds, err := strconv.Atoi(os.Getenv("CRASH_ROUNDS"))
	if err != nil {
		return 1, 60
	}
	return rounds, 500
}

// TestCrash kills the gateway at random moments while it accepts jobs and feedback
// and runs jobs. All acknowledged work is done once and reported, and requests that
// were repeated with the same Idempotency-Key have created one job.
func TestCrash(t *testing.T) {
	server := startNull(t)
	t.Run("SQLite", func(t *testing.T) {
		data := t.TempDir()
		crash(t, server.address, "REFERSAM_DATA="+data)
		// Nothing is half written.
		backup := exec.Command(executable, "backup", "--data", data, filepath.Join(t.TempDir(), "backup.db"))
		if out, err := backup.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		address := storetest.NewCluster(t).NewDatabase(t)
		crash(t, server.address, "REFERSAM_DATABASE_URL="+string(address), "REFERSAM_DATA="+t.TempDir())
	})
}

// tinyPicture is a PNG of 4 × 2 pixels.
var tinyPicture = func() string {
	raw, err := base64.StdEncoding.DecodeString("iVBORw0KGgoAAAANSUhEUgAAAAQAAAACCAIAAADwyuo0AAAAEElEQVR42mP476AARwzIHACVqgr5fE1q6QAAAABJRU5ErkJggg==")
	if err != nil {
		panic(err)
	}
	return string(raw)
}()

// hooks is a server that receives webhooks.
type hooks struct {
	*httptest.Server
	mu   sync.Mutex
	told map[string]map[string]int // per job and id: how often
}

func newHooks(t *testing.T) *hooks {
	h := &hooks{told: make(map[string]map[string]int)}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body api.WebhookMessage
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Data.Status != api.JobSucceeded {
			t.Errorf("told %+v: %v", body, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.told[body.Data.ID] == nil {
			h.told[body.Data.ID] = make(map[string]int)
		}
		h.told[body.Data.ID][r.Header.Get("Webhook-Id")]++
	}))
	t.Cleanup(h.Close)
	return h
}

// environment allows a gateway to send webhooks to h.
func (h *hooks) environment(t *testing.T) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"REFERSAM_WEBHOOK_HOSTS=" + h.Listener.Addr().String(), "REFERSAM_FETCH_NETWORKS=127.0.0.1/32", "SSL_CERT_FILE=" + file}
}

// crashing is a gateway that is killed and started again.
type crashing struct {
	t           *testing.T
	dir         string
	environment []string
	current     atomic.Pointer[service]
}

func (c *crashing) start() {
	s, err := launch(c.dir, c.environment, "serve")
	if err == nil {
		err = s.waitReady()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.current.Store(s)
}

func (c *crashing) kill() {
	if err := c.current.Load().signal(syscall.SIGKILL); err == nil {
		c.t.Error("the gateway survived SIGKILL")
	}
}

func crash(t *testing.T, triton string, environment ...string) {
	rounds, perRound := crashRounds()
	h := newHooks(t)
	c := &crashing{t: t, dir: t.TempDir(), environment: append(append(environment, h.environment(t)...),
		"REFERSAM_TRITON="+triton, "REFERSAM_LOG_LEVEL=ERROR", "REFERSAM_REQUEST_TIMEOUT=3s", "REFERSAM_WRITE_TIMEOUT=3s", "REFERSAM_ADMIN_LISTEN=off")}
	c.start()
	defer func() { c.current.Load().kill() }()
	all := make(map[string]bool)
	for round := range rounds {
		ids := c.round(round, perRound, h.URL+"/hook")
		for _, id := range ids {
			if all[id] {
				t.Errorf("two requests made the job %s", id)
			}
			all[id] = true
			c.expectDone(id)
		}
		t.Logf("round %d: %d jobs are done, once", round+1, len(ids))
	}
	c.expectKnown(all)
	h.expectTold(t, all)
	if err := c.current.Load().signal(syscall.SIGTERM); err != nil {
		t.Errorf("the stop: %v", err)
	}
}

// round submits n jobs while the gateway is killed once, and returns their ids.
func (c *crashing) round(round, n int, hook string) []string {
	ids := make([]string, n)
	var clients sync.WaitGroup
	var next, acknowledged atomic.Int64
	next.Store(-1)
	for range 4 {
		clients.Go(func() {
			for {
				i := int(next.Add(1))
				if i >= n {
					return
				}
				ids[i] = c.submit(fmt.Sprintf("crash-%d-%d", round, i), hook)
				acknowledged.Add(1)
			}
		})
	}
	// At a random moment, while the jobs are being submitted or are running.
	at := rand.Int64N(int64(n) * 5 / 4)
	await.Until(c.t, time.Minute, func() error {
		if got := acknowledged.Load(); got < min(at, int64(n)) {
			return fmt.Errorf("%d of %d jobs are acknowledged", got, n)
		}
		return nil
	})
	time.Sleep(rand.N(50 * time.Millisecond)) // so that it dies in any phase of its work
	c.kill()
	c.start()
	clients.Wait()
	return ids
}

// submit sends a job and feedback until they are acknowledged, and returns the
// job's id.
func (c *crashing) submit(name, hook string) string {
	contentType, body, err := encodeForm(part{"image", tinyPicture}, part{"phrase", name}, part{"webhook", hook})
	if err != nil {
		c.t.Error(err)
		return ""
	}
	id := c.post("/v1/segment", contentType, body, name, http.StatusAccepted)
	c.post("/v1/feedback", "application/json", fmt.Appendf(nil, `{"request_id": %q, "rating": 3}`, name), name+"-feedback", http.StatusCreated)
	return id
}

// post repeats a request that stores something until it is acknowledged with a
// status, and returns its id.
func (c *crashing) post(path, contentType string, body []byte, name string, want int) string {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		// The gateway may be dead, so that no answer says when to ask again.
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.current.Load().url+path, bytes.NewReader(body))
		if err != nil {
			c.t.Error(err)
			return ""
		}
		req.Header.Set("Content-Type", contentType)
		req.Header.Set("Prefer", "respond-async")
		req.Header.Set("Idempotency-Key", name)
		resp, err := client.Do(req)
		if err != nil {
			continue // the gateway has just been killed
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			continue
		}
		var job api.Job
		switch resp.StatusCode {
		case want:
			if err := json.Unmarshal(answer, &job); err != nil {
				c.t.Error(err)
			}
			return job.ID
		case http.StatusConflict, http.StatusServiceUnavailable: // the one that was killed holds the name for a while
		default:
			c.t.Errorf("%s: status %d: %s", name, resp.StatusCode, answer)
			return ""
		}
	}
	c.t.Errorf("%s was not acknowledged in time", name)
	return ""
}

// get returns the status and the body of a GET.
func (c *crashing) get(path string) (int, []byte) {
	resp, err := client.Get(c.current.Load().url + path)
	if err != nil {
		c.t.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Error(err)
	}
	return resp.StatusCode, body
}

// expectDone waits for the end of a job by its events. The events must contain the
// end of its item exactly once.
func (c *crashing) expectDone(id string) {
	c.t.Helper()
	var status int
	var stream []byte
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if status, stream = c.get("/v1/jobs/" + id + "/events"); bytes.Contains(stream, []byte("event: job\ndata: {\"job\":\""+id+"\",\"status\":\"succeeded\"}")) {
			break
		}
	}
	if n := strings.Count(string(stream), "event: item"); status != http.StatusOK || n != 1 {
		c.t.Errorf("%s: status %d, %d ends of its item: %s", id, status, n, stream)
	}
	if status, body := c.get("/v1/jobs/" + id + "/items/0"); status != http.StatusOK || !bytes.Contains(body, []byte(`"status":"ok"`)) {
		c.t.Errorf("%s: status %d: %s", id, status, body)
	}
}

// expectKnown checks that there are no other jobs, and as many entries of feedback,
// each about another request.
func (c *crashing) expectKnown(all map[string]bool) {
	c.t.Helper()
	listed := c.list("/v1/jobs", "jobs", "id")
	for id, n := range listed {
		if !all[id] || n != 1 {
			c.t.Errorf("the job %s is listed %d times; somebody was told of it: %t", id, n, all[id])
		}
	}
	said := c.list("/v1/feedback", "feedback", "request_id")
	for request, n := range said {
		if n != 1 {
			c.t.Errorf("feedback about %s is there %d times", request, n)
		}
	}
	if len(listed) != len(all) || len(said) != len(all) {
		c.t.Errorf("of %d jobs %d are listed, and %d pieces of feedback", len(all), len(listed), len(said))
	}
}

// list counts the entries of a list by one of their members.
func (c *crashing) list(path, name, member string) map[string]int {
	counts := make(map[string]int)
	for cursor := ""; ; {
		status, body := c.get(path + "?limit=100" + cursor)
		var page map[string]json.RawMessage
		var entries []map[string]any
		err := json.Unmarshal(body, &page)
		if err == nil {
			err = json.Unmarshal(page[name], &entries)
		}
		if err != nil || status != http.StatusOK {
			c.t.Fatalf("status %d, %v: %s", status, err, body)
		}
		for _, e := range entries {
			counts[fmt.Sprint(e[member])]++
		}
		var next string
		if page["next"] == nil || json.Unmarshal(page["next"], &next) != nil {
			return counts
		}
		cursor = "&cursor=" + next
	}
}

// expectTold waits until the ends of all jobs have been reported, each under one
// id.
func (h *hooks) expectTold(t *testing.T, all map[string]bool) {
	t.Helper()
	told := func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.told)
	}
	await.Until(t, 2*time.Minute, func() error {
		if n := told(); n < len(all) {
			return fmt.Errorf("%d ends were reported of %d", n, len(all))
		}
		return nil
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := range all {
		if len(h.told[id]) != 1 {
			t.Errorf("%s was told under the ids %v", id, h.told[id])
		}
	}
	if len(h.told) != len(all) {
		t.Errorf("%d ends were told of %d", len(h.told), len(all))
	}
}
