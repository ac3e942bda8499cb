package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/store"
)

// dial connects until the test ends.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange sends bytes over a new connection, and returns the statuses of the
// answers until the gateway closes it.
func exchange(t *testing.T, address string, pieces ...string) (statuses []int) {
	t.Helper()
	conn := dial(t, address)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	for i, piece := range pieces {
		if i > 0 {
			time.Sleep(50 * time.Millisecond) // the pace of a slow client
		}
		if _, err := io.WriteString(conn, piece); err != nil {
			break // enough answers
		}
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	for r := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, resp.StatusCode)
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// A request that is not HTTP, or that two readers might read in two ways, is
// refused, and the rest of the connection is not read.
func TestWire(t *testing.T) {
	s := start(t)
	address := listen(t, s)
	const live = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, tc := range []struct {
		name, sent string
		want       []int
	}{
		{"two requests at once", live + live, []int{200, 200}},
		{"HTTP/1.0", "GET /livez HTTP/1.0\r\n\r\n" + live, []int{200}},
		{"an absolute address", "GET http://evil.example/livez HTTP/1.1\r\nHost: a\r\n\r\n", []int{200}},
		{"no host", "GET /livez HTTP/1.1\r\n\r\n" + live, []int{400}},
		{"two hosts", "GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + live, []int{400}},
		{"garbage", "\x00\x01\x02\r\n\r\n" + live, []int{400}},
		{"garbage after a request", live + "\x16\x03\x01\x02\r\n\r\n" + live, []int{200, 400}},
		{"two lengths", "POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 40\r\n\r\nabcd" + live, []int{400}},
		{"a length that is none", "POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd" + live, []int{400}},
		{"a negative length", "POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: -4\r\n\r\n" + live, []int{400}},
		{"a length that is too much", "POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nExpect: 100-continue\r\nContent-Length: 100000000000\r\n\r\n" + live, []int{413}},
		{"a long body where there is to be none", "POST /v1/webhooks/secret/rotate HTTP/1.1\r\nHost: a\r\nContent-Length: " + fmt.Sprint(20_000*len(live)) + "\r\n\r\n" + strings.Repeat(live, 20_000), []int{422}},
		{"a broken one", "DELETE /v1/jobs/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + live, []int{400}},
		{"another encoding", "POST /v1/segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + live, []int{501}},
		{"an encoding in disguise", "POST /v1/segment HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + live, []int{400}},
		{"a folded header", "GET /livez HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", []int{200}},
		{"a header without a name", "GET /livez HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n" + live, []int{400}},
		{"a null byte", "GET /livez HTTP/1.1\r\nHost: a\r\nX-A: \x00\r\n\r\n" + live, []int{400}},
		{"long headers", "GET /livez HTTP/1.1\r\nHost: a\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n" + live, []int{431}},
		{"many headers", "GET /livez HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X-A: b\r\n", 100_000) + "\r\n" + live, []int{431}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := exchange(t, address, tc.sent); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
	// With both a length and chunks, the chunks count (RFC 9112, section 6.3): the
	// bytes after them are the next request, whatever the length says.
	both := exchange(t, address, "POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"+live)
	if fmt.Sprint(both) != "[422 200]" {
		t.Errorf("a length and chunks: %v", both)
	}
}

// A body that trickles in is cut off when the time for the request is over.
func TestSlowBody(t *testing.T) {
	s := start(t, func(cfg *gateway.Config) { cfg.ReadTimeout = 300 * time.Millisecond })
	address := listen(t, s)
	trickle := []string{"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"}
	for range 100 {
		trickle = append(trickle, " ")
	}
	begun := time.Now()
	statuses := exchange(t, address, trickle...)
	if took := time.Since(begun); took > 8*time.Second || len(statuses) > 1 || len(statuses) == 1 && statuses[0]/100 == 2 {
		t.Errorf("after %s: %v", took, statuses)
	}
	if w := s.get("/livez"); w.Code != http.StatusOK {
		t.Errorf("status %d", w.Code)
	}
}

// A body that does not arrive is cut off long before the time for the request is
// over.
func TestSilentBody(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *gateway.Config) { cfg.ReadTimeout = 6 * time.Second })
	conn := dial(t, listen(t, s))
	begun := time.Now()
	fmt.Fprint(conn, "POST /v1/segment?phrase=red HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n")
	for range 20 { // as fast as required
		fmt.Fprint(conn, strings.Repeat("x", 20))
		time.Sleep(100 * time.Millisecond) // the pace of a slow client
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	// 400 bytes are due after 2.4 s, and the next ones 1 s later.
	if took := time.Since(begun); resp.StatusCode != http.StatusRequestTimeout || !resp.Close || took < 3*time.Second || took > 5*time.Second || !strings.Contains(string(body), "body_too_slow") {
		t.Errorf("after %s: status %d: %s", took, resp.StatusCode, body)
	}
}

// A client that waits for 100 Continue before it sends the body gets the error at
// once.
func TestExpect(t *testing.T) {
	address := listen(t, start(t))
	for _, target := range []string{"/v1/segment", "/v1/images", "/v1/segment?phrase=red"} {
		conn := dial(t, address)
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusUnsupportedMediaType || !resp.Close {
			t.Errorf("%s: status %d, %v", target, resp.StatusCode, resp.Header)
		}
	}
}

// The time limit of a body ends with the body: the answer may take longer.
func TestSlowAnswer(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *gateway.Config) { cfg.ReadTimeout = 300 * time.Millisecond })
	address := listen(t, s)
	// The model takes twice as long as a body may, over a real connection.
	s.model.SetBefore(func(context.Context) error { time.Sleep(600 * time.Millisecond); return nil })
	for name, req := range map[string]*http.Request{
		"form":  form(part{"image", picture}, part{"phrase", "red"}),
		"JSON":  jsonRequest(`{"image":{"data":%q},"prompts":[{"text":"green"}]}`, encoded),
		"raw":   rawRequest("phrase=blue"),
		"batch": batchRequest(`{"items":[{"image":{"data":%q},"prompts":[{"text":"yellow"}]}]}`, encoded),
	} {
		req.URL.Scheme, req.URL.Host, req.RequestURI = "http", address, ""
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || strings.Contains(string(body), "problem") {
			t.Errorf("%s: status %d: %.300s", name, resp.StatusCode, body)
		}
	}
}

// A body of unknown size is not measured by the largest allowed size.
func TestSlowBody_Chunked(t *testing.T) {
	t.Parallel()
	s := start(t, func(cfg *gateway.Config) { cfg.ReadTimeout = 3 * time.Second })
	conn := dial(t, listen(t, s))
	fmt.Fprint(conn, "POST /v1/segment?phrase=red HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n")
	for piece := range slices.Chunk([]byte(picture), len(picture)/8) {
		fmt.Fprintf(conn, "%x\r\n%s\r\n", len(piece), piece)
		time.Sleep(150 * time.Millisecond) // the pace of a slow client
	}
	fmt.Fprint(conn, "0\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
}

// The pictures of a batch do not wait behind another request of the same client,
// because that request may be waiting for the batch itself.
func TestBatchBeforeWaiting(t *testing.T) {
	s := start(t, func(cfg *gateway.Config) { cfg.Answers.BodyMemory = 16 << 10 })
	address := listen(t, s)
	kept := decodeImage(t, s.do(upload()), http.StatusCreated).ID
	waiting := make(chan struct{})
	var once sync.Once
	s.model.SetBefore(func(ctx context.Context) error {
		once.Do(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { conn.Close() })
			fmt.Fprint(conn, "POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 4000\r\n\r\n")
			time.Sleep(100 * time.Millisecond) // nothing shows that the request waits for memory by now
			close(waiting)
		})
		return nil
	})
	post := func(body string) api.BatchAnswer {
		t.Helper()
		resp, err := http.Post("http://"+address+"/v1/segment:batch", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var a api.BatchAnswer
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || len(a.Results) == 0 {
			t.Fatalf("status %d, %v", resp.StatusCode, err)
		}
		return a
	}
	first := fmt.Sprintf(`{"image": {"data": %q}, "prompts": [{"text": "red"}]}`, encoded)
	items := []string{first}
	for i := range 12 { // the last eight begin when the first have ended
		items = append(items, fmt.Sprintf(`{"image": {"id": %q}, "prompts": [{"text": "red %d"}]}`, kept, i))
	}
	for i, r := range post(`{"items": [` + strings.Join(items, ",") + `]}`).Results {
		if r.Answer == nil {
			t.Errorf("item %d: %+v", i, r.Problem)
		}
	}
	<-waiting
}

// Without keys a client is an address.
func TestSlowBodies_OfOneAddress(t *testing.T) {
	s := start(t, func(cfg *gateway.Config) { cfg.Answers.BodyMemory = 16 << 20 })
	address := listen(t, s)
	for range 20 {
		conn := dial(t, address)
		fmt.Fprintf(conn, "POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 1048576\r\n\r\nx")
	}
	time.Sleep(200 * time.Millisecond) // nothing shows that the gateway reads the bodies by now
	begun := time.Now()
	decode(t, s.do(segment())) // from 192.0.2.1
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("another client waited %s", took)
	}
}

// A client with bodies that do not arrive blocks others neither for memory nor for
// its own requests.
func TestSlowBodies_OfOneKey(t *testing.T) {
	s := start(t, authenticated, func(cfg *gateway.Config) { cfg.Answers.BodyMemory = 16 << 20 })
	address := listen(t, s)
	slow, other := s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
	var connections []net.Conn
	for range 20 { // each of 3 MiB
		conn := dial(t, address)
		connections = append(connections, conn)
		fmt.Fprintf(conn, "POST /v1/segment HTTP/1.1\r\nHost: a\r\nX-API-Key: %s\r\nContent-Type: image/png\r\nContent-Length: 1048576\r\n\r\nx", slow.Reveal())
	}
	time.Sleep(200 * time.Millisecond) // nothing shows that the gateway reads the bodies by now
	begun := time.Now()
	decode(t, s.do(bearer(segment(), other)))
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("another client waited %s", took)
	}
	for _, conn := range connections {
		conn.Close()
	}
	decode(t, s.do(bearer(segment(), slow)))
}

// Its requests with stored or fetched pictures block nobody either, however long
// they wait for the model.
func TestPicturesOfOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, authenticated, func(cfg *gateway.Config) {
			cfg.Answers.BodyMemory, cfg.Answers.RequestTimeout = int64(16*len(picture)), 3*time.Second
		})
		many, other := s.newKey(t, store.Key{}), s.newKey(t, store.Key{})
		kept := decodeImage(t, s.do(bearer(upload(), many)), http.StatusCreated).ID
		s.model.SetBefore(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		var clients sync.WaitGroup
		for i := range 60 {
			clients.Go(func() {
				s.do(bearer(form(part{"image_id", kept}, part{"phrase", fmt.Sprint("red ", i)}), many))
			})
		}
		synctest.Wait()
		begun := time.Now()
		decodeImage(t, s.do(bearer(upload(), other)), http.StatusCreated)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("another client waited %s", took)
		}
		clients.Wait()
	})
}
