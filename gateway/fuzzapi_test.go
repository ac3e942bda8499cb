package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/tests/await"
)

const (
	// fuzzMemory bounds the memory of gateway and clients together, in bytes.
	fuzzMemory = 1 << 30
	// fuzzPatience is how long a client waits for an answer, because streams never
	// end.
	fuzzPatience = 2 * time.Second
)

// message is a request as it is sent over the connection.
type message struct {
	method, target string
	header         [][2]string
	body           []byte
	// length is the value of Content-Length, if the header is not left out.
	length  int
	chunked bool
}

func (m message) clone() message {
	m.header, m.body = slices.Clone(m.header), slices.Clone(m.body)
	return m
}

func (m *message) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: fuzz\r\n", m.method, m.target)
	for _, h := range m.header {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	if m.chunked {
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(m.body), m.body)
	} else {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", m.length, m.body)
	}
	return b.Bytes()
}

// seeds are valid requests of every kind, with a key.
func seeds(t *testing.T, key string) []message {
	t.Helper()
	auth := [2]string{"Authorization", "Bearer " + key}
	var all []message
	add := func(method, target, mediaType string, body []byte, header ...[2]string) {
		m := message{method: method, target: target, header: append([][2]string{auth}, header...), body: body, length: len(body)}
		if mediaType != "" {
			m.header = append(m.header, [2]string{"Content-Type", mediaType})
		}
		all = append(all, m)
	}
	asForm := func(fields ...part) (string, []byte) {
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		for _, f := range fields {
			create := w.CreateFormField
			if f.name == "image" {
				create = func(name string) (io.Writer, error) { return w.CreateFormFile(name, "picture.png") }
			}
			field, err := create(f.name)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(field, f.value)
		}
		_ = w.Close()
		return w.FormDataContentType(), body.Bytes()
	}
	image, phrase := part{"image", picture}, part{"phrase", "the red square"}
	for range 3 { // these have the most to get wrong
		kind, body := asForm(image, phrase)
		add("POST", "/v1/segment", kind, body)
		kind, body = asForm(image, phrase, part{"phrase", "green"}, part{"format", "png,polygon"}, part{"threshold", "0.4"}, part{"size", "model"}, part{"quality", "true"}, part{"deadline_ms", "900"})
		add("POST", "/v1/segment", kind, body, [2]string{"Accept", "application/zip"})
		add("POST", "/v1/segment", "application/json", fmt.Appendf(nil, `{"image": {"data": %q}, "prompts": [{"id": "a", "text": "red", "formats": ["rle"], "fill_holes": 3}], "output": {"size": "original"}, "priority": "batch"}`, encoded))
		add("POST", "/v1/segment:batch", "application/json", fmt.Appendf(nil, `{"items": [{"id": "a", "image": {"data": %[1]q}, "prompts": [{"text": "red"}]}, {"image": {"id": "img_0"}, "prompts": [{"text": "green"}]}]}`, encoded))
		add("POST", "/v1/segment?phrase=red&format=coco_rle&min_area=4", "image/png", []byte(picture), [2]string{"Accept-Encoding", "gzip"})
		kind, body = asForm(image)
		add("POST", "/v1/images", kind, body)
	}
	kind, body := asForm(image, phrase)
	add("POST", "/v1/segment", kind, body, [2]string{"Prefer", "respond-async"}, [2]string{"Idempotency-Key", "fuzz"})
	for _, target := range []string{
		"/v1/models", "/v1/models/bert", "/v1/usage?from=2026-11-01", "/v1/images?limit=3", "/v1/jobs?status=running", "/v1/jobs/job_x", "/v1/jobs/job_x/events?last_event_id=2",
		"/v1/jobs/job_x/items/0", "/v1/images/img_x/content", "/v1/webhooks/secret", "/readyz", "/openapi.json", "/docs", "/web/shared/icon.svg", "/problems/overloaded", "/version",
	} {
		add("GET", target, "", nil)
	}
	add("DELETE", "/v1/images/img_x", "", nil)
	add("POST", "/v1/jobs/job_x/cancel", "", nil)
	return all
}

var (
	fuzzWords = []string{
		"", "0", "-1", "1e999", "NaN", "null", "true", "{}", "[]", `"`, "\\u0000", "\xff\xfe", "🦆", strings.Repeat("A", 300), strings.Repeat("[", 200), "../../etc/passwd", "%00", "%ff",
		"application/json", "multipart/form-data; boundary=x", "image/png", "text/plain", "gzip", "br", "chunked", "identity", "*/*", "a,b;q=2", "W/\"x\"", "respond-async", "9223372036854775808",
	}
	fuzzHeaders = []string{
		"Content-Type", "Accept", "Accept-Encoding", "Content-Encoding", "Prefer", "Idempotency-Key", "If-None-Match", "X-Request-Id", "X-Unit-Id", "X-API-Key", "Authorization", "Origin", "Last-Event-ID",
		"Expect", "Connection", "Transfer-Encoding", "Content-Length", "Host", "Range", "X-Forwarded-For", "Upgrade",
	}
	fuzzMethods = []string{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "QUERY"}
)

// mutate changes a request in one to four places.
func mutate(r *rand.Rand, m message) message {
	m = m.clone()
	word := func() string { return fuzzWords[r.IntN(len(fuzzWords))] }
	for range 1 + r.IntN(4) {
		switch r.IntN(14) {
		case 0, 1, 2: // bytes of the body
			for range min(len(m.body), 1+r.IntN(6)) {
				m.body[r.IntN(len(m.body))] = byte(r.UintN(256))
			}
		case 3: // cut off
			m.body = m.body[:r.IntN(len(m.body)+1)]
			m.length = len(m.body)
		case 4, 5: // something in between
			at := r.IntN(len(m.body) + 1)
			m.body = slices.Insert(m.body, at, []byte(word())...)
			m.length = len(m.body)
		case 6: // a piece twice
			if len(m.body) > 8 {
				from := r.IntN(len(m.body) - 4)
				m.body = append(m.body, m.body[from:from+r.IntN(len(m.body)-from)]...)
				m.length = len(m.body)
			}
		case 7: // a header
			name := fuzzHeaders[r.IntN(len(fuzzHeaders))]
			m.header = append(m.header, [2]string{name, strings.Map(printable, word())})
		case 8: // one less, or another value
			if len(m.header) > 0 {
				i := r.IntN(len(m.header))
				if r.IntN(2) == 0 {
					m.header = slices.Delete(m.header, i, i+1)
				} else {
					m.header[i][1] = strings.Map(printable, word())
				}
			}
		case 9:
			m.method = fuzzMethods[r.IntN(len(fuzzMethods))]
		case 10: // the target
			separator := []string{"?", "&", "/", "=", "%2f", ";", ":"}[r.IntN(7)]
			m.target += separator + strings.ReplaceAll(strings.Map(printable, word()), " ", "+")
		case 11:
			m.length = []int{0, 1, len(m.body) + 1, len(m.body) / 2, 1 << 20}[r.IntN(5)]
		case 12:
			m.chunked = !m.chunked
		case 13: // what JSON and queries have most of
			for _, pair := range [][2]string{{`"text"`, `"txet"`}, {"phrase", "image"}, {"0", "-"}, {":", ","}, {"{", "["}} {
				if r.IntN(3) == 0 {
					m.body = bytes.Replace(m.body, []byte(pair[0]), []byte(pair[1]), 1)
				}
			}
			m.length = len(m.body)
		}
	}
	return m
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '.'
	}
	return r
}

// TestFuzzAPI sends changed requests to a real listener: make fuzz-api. No request
// may crash the gateway, cause an error that is the gateway's fault, or leave
// memory in use. Every refusal is a problem with a listed code.
func TestFuzzAPI(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("FUZZ_API_COUNT"))
	if err != nil {
		count = 2000
	}
	s := start(t, authenticated)
	token := s.newKey(t, store.Key{Scopes: store.Scopes})
	address, stop := listenUntil(t, s)
	before := runtime.NumGoroutine()
	all := seeds(t, token.Reveal())
	codes := knownCodes(s)
	var (
		next    atomic.Int64
		mu      sync.Mutex
		answers = map[int]int{}
		workers sync.WaitGroup
		peak    int64
	)
	begun := time.Now()
	for w := range 4 {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			c := &fuzzClient{address: address}
			defer c.close()
			for next.Add(1) <= int64(count) {
				m := all[r.IntN(len(all))]
				if r.IntN(20) > 0 { // otherwise the request stays valid
					m = mutate(r, m)
				}
				status, fault := c.send(&m, codes)
				if fault != "" {
					t.Errorf("%s\n%.300q", fault, m.bytes())
				}
				mu.Lock()
				answers[status]++
				if n := answers[status]; n%1000 == 1 {
					peak = max(peak, residentMemory(t))
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	took := time.Since(begun)
	stop()
	for _, status := range slices.Sorted(maps.Keys(answers)) {
		t.Logf("%4d: %d", status, answers[status])
	}
	t.Logf("%d requests in %s, %.0f a second; at most %d MB in memory", count, took.Round(time.Second), float64(count)/took.Seconds(), peak>>20)
	if answers[http.StatusOK] < count/5 {
		t.Errorf("only %d of %d requests succeeded", answers[http.StatusOK], count)
	}
	// A request that ends in the middle, or waits for a stream, gets no answer.
	if answers[0] > count/5 {
		t.Errorf("%d of %d requests were not answered", answers[0], count)
	}
	if peak > fuzzMemory {
		t.Errorf("%d MB in memory", peak>>20)
	}
	if log := s.log.String(); strings.Contains(log, "panic") {
		i := strings.Index(log, "panic")
		t.Errorf("the log tells of a panic: %.3000s", log[max(0, i-300):])
	}
	// Meanwhile the maintenance of jobs may have begun; leaked requests would need
	// far more.
	const slack = 40
	await.Until(t, 10*time.Second, func() error {
		n := runtime.NumGoroutine()
		if n <= before+slack {
			return nil
		}
		var stacks bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		return fmt.Errorf("%d goroutines, %d before\n%s", n, before, stacks.Bytes())
	})
}

// knownCodes are the codes in the description.
func knownCodes(s *service) map[string]bool {
	var document struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	_ = json.Unmarshal(s.get("/openapi.json").Body.Bytes(), &document)
	codes := map[string]bool{}
	for _, code := range document.Components.Schemas["Problem"].Properties["code"].Enum {
		codes[code] = true
	}
	return codes
}

// fuzzClient has one connection at a time.
type fuzzClient struct {
	address string
	conn    net.Conn
	reader  *bufio.Reader
}

func (c *fuzzClient) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// send returns the status of the answer, or 0 for none, and what is wrong with the
// answer.
func (c *fuzzClient) send(m *message, codes map[string]bool) (status int, fault string) {
	if c.conn == nil {
		var err error
		if c.conn, err = net.Dial("tcp", c.address); err != nil {
			return 0, "the gateway is gone: " + err.Error()
		}
		c.reader = bufio.NewReader(c.conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(fuzzPatience))
	if _, err := c.conn.Write(m.bytes()); err != nil {
		c.close() // the gateway has answered and closed before it got everything
		return 0, ""
	}
	if m.chunked || m.length != len(m.body) { // the gateway must not wait for the rest
		_ = c.conn.(*net.TCPConn).CloseWrite()
	}
	resp, err := http.ReadResponse(c.reader, &http.Request{Method: strings.ToUpper(m.method)})
	for err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(c.reader, &http.Request{Method: strings.ToUpper(m.method)})
	}
	if err != nil {
		c.close()
		return 0, ""
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	_ = resp.Body.Close()
	if err != nil || resp.Close || m.chunked || m.length != len(m.body) || m.method == "CONNECT" {
		c.close()
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return resp.StatusCode, ""
	}
	return resp.StatusCode, wrongAnswer(m, resp, body, codes)
}

func wrongAnswer(m *message, resp *http.Response, body []byte, codes map[string]bool) string {
	status := resp.StatusCode
	// net/http itself refuses requests that are not HTTP.
	if ours := resp.Header.Get("X-Request-Id") != ""; !ours {
		switch status {
		case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge, http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusExpectationFailed:
			return ""
		}
		return fmt.Sprintf("status %d that is not ours", status)
	}
	switch {
	case status < 400, status == 499: // the latter to who stops sending before the answer
		return ""
	case status >= 500 && status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout:
		return fmt.Sprintf("status %d: %.300s", status, body)
	case status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "":
		return "503 without Retry-After"
	case strings.EqualFold(m.method, "HEAD"):
		return ""
	}
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil || !codes[string(p.Code)] || p.Status != status || resp.Header.Get("Content-Type") != "application/problem+json" {
		return fmt.Sprintf("status %d is no problem that is known: %.300s", status, body)
	}
	return ""
}

// residentMemory is the resident memory of this process, in bytes.
func residentMemory(t *testing.T) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
