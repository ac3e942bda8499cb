package client_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/client"
	"github.com/refersam/refersam/pipeline/pipelinetest"
)

// transport answers requests without a network, so that the tests can use
// synctest's clock. tries counts the requests.
type transport struct {
	tries  int
	answer func(try int, r *http.Request) (*http.Response, error)
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	t.tries++
	return t.answer(t.tries, r)
}

// through returns a Client that gets its answers from a function.
func through(t *testing.T, answer func(try int, r *http.Request) (*http.Response, error)) (*client.Client, *transport) {
	t.Helper()
	tr := &transport{answer: answer}
	c, err := client.New("http://masks.example.com/prefix", client.WithHTTPClient(&http.Client{Transport: tr}))
	if err != nil {
		t.Fatal(err)
	}
	return c, tr
}

func reply(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

func overloaded(header ...string) *http.Response {
	return reply(http.StatusServiceUnavailable, `{"code": "overloaded", "detail": "no", "request_id": "r1"}`, header...)
}

// The context's deadline alone bounds how often a temporary failure is retried.
func TestRetriesUntilDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, tr := through(t, func(int, *http.Request) (*http.Response, error) { return overloaded(), nil })
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		begun := time.Now()
		_, err := c.Models(ctx)
		var e *refersam.Error
		if !errors.As(err, &e) || e.Code != refersam.CodeOverloaded || e.RequestID != "r1" {
			t.Errorf("%v", err)
		}
		// 0.25 + 0.5 + … + 8 s, then 10 s each, and at most a quarter or 2 s more
		// each.
		if took := time.Since(begun); took < 105*time.Second || took > 2*time.Minute || tr.tries < 14 || tr.tries > 17 {
			t.Errorf("%d tries in %s", tr.tries, took)
		}
	})
}

// A pause is at least Retry-After, and little more. If it does not fit the
// deadline, or is too long without a deadline, the error is returned at once.
func TestRetryAfter(t *testing.T) {
	for name, tc := range map[string]struct {
		timeout    time.Duration
		retryAfter string
		date       time.Duration
		wait       time.Duration // 0: there is no second try
	}{
		"seconds":         {timeout: time.Minute, retryAfter: "4", wait: 4 * time.Second},
		"many":            {timeout: time.Hour, retryAfter: "1200", wait: 1200 * time.Second},
		"a date":          {timeout: time.Minute, date: 20 * time.Second, wait: 20 * time.Second},
		"past":            {timeout: time.Minute, date: -20 * time.Second, wait: 250 * time.Millisecond},
		"0":               {timeout: time.Minute, retryAfter: "0", wait: 250 * time.Millisecond},
		"nonsense":        {timeout: time.Minute, retryAfter: "soon", wait: 250 * time.Millisecond},
		"too long":        {timeout: time.Minute, retryAfter: "61"},
		"too long a date": {timeout: time.Minute, date: 2 * time.Minute},
		"no deadline":     {retryAfter: "60", wait: time.Minute},
		"far too long":    {retryAfter: "3600"},
		"a far date":      {timeout: time.Minute, retryAfter: "Fri, 31 Dec 9999 23:59:59 GMT"},
		"beyond numbers":  {timeout: time.Hour, retryAfter: "9999999999999"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				value := tc.retryAfter
				if tc.date != 0 {
					value = time.Now().Add(tc.date).UTC().Format(http.TimeFormat)
				}
				c, tr := through(t, func(try int, _ *http.Request) (*http.Response, error) {
					if try == 1 {
						return overloaded("Retry-After", value), nil
					}
					return reply(http.StatusOK, `{"models": []}`), nil
				})
				ctx := t.Context()
				if tc.timeout > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.timeout)
					defer cancel()
				}
				begun := time.Now()
				_, err := c.Models(ctx)
				took := time.Since(begun)
				switch {
				case tc.wait == 0 && (refersam.ErrorCode(err) != refersam.CodeOverloaded || took != 0 || tr.tries != 1):
					t.Errorf("%d tries in %s: %v", tr.tries, took, err)
				case tc.wait > 0 && (err != nil || took < tc.wait || took > tc.wait+min(tc.wait/4, 2*time.Second)):
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
}

// The error for a status without a problem of the service, as a proxy sends it,
// says what the status means and what to do.
func TestUnexplained(t *testing.T) {
	for status, want := range map[int][]string{
		301: {"status 301"},
		400: {"status 400", "check the address"},
		401: {"API key", "401"},
		403: {"proxy", "403"},
		404: {"no refersam service", "404"},
		405: {"no refersam service", "405"},
		413: {" bytes is larger than a proxy before the service accepts", "413", "smaller picture", "limit of the proxy"},
		414: {"longer than a proxy", "414"},
		429: {"proxy", "429"},
		431: {"headers", "431"},
		500: {"status 500", "any proxy before the service"},
		502: {"proxy gets no answer", "502"},
		503: {"not available", "503"},
		504: {"does not wait long enough", "504", "job"},
	} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent int64
				c, _ := through(t, func(_ int, r *http.Request) (*http.Response, error) {
					sent = r.ContentLength
					page := "<html><head><title>" + http.StatusText(status) + "</title></head>" + strings.Repeat("x", 1000)
					resp := reply(status, page, "Content-Type", "text/html", "Server", "nginx/1.27", "X-Request-Id", "r7")
					resp.Request = r
					return resp, nil
				})
				_, err := c.Segment(t.Context(), request())
				var e *refersam.Error
				if !errors.As(err, &e) || e.RequestID != "r7" {
					t.Fatalf("%v", err)
				}
				for _, text := range want {
					if !strings.Contains(e.Message, text) {
						t.Errorf("%q lacks %q", e.Message, text)
					}
				}
				if status == 413 && !strings.Contains(e.Message, fmt.Sprintf("request of %d bytes", sent)) {
					t.Errorf("%q does not say that %d bytes were sent", e.Message, sent)
				}
				for _, text := range []string{fmt.Sprint("status ", status), "nginx/1.27", "<title>" + http.StatusText(status)} {
					if !strings.Contains(err.Error(), text) || len(err.Error()) > 600 {
						t.Errorf("%q lacks %q", err, text)
					}
				}
			})
		})
	}
	// Without a body or a page the error quotes nothing.
	c, _ := through(t, func(_ int, r *http.Request) (*http.Response, error) {
		resp := reply(413, "")
		resp.Request = r
		return resp, nil
	})
	if _, err := c.Models(t.Context()); err == nil || !strings.Contains(err.Error(), "The request is larger") || !strings.HasSuffix(err.Error(), "status 413") {
		t.Errorf("%v", err)
	}
}

// The error after a connection that closed during a large request points at a
// proxy.
func TestConnectionClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := through(t, func(int, *http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
		})
		_, err := c.Segment(t.Context(), request())
		if refersam.ErrorCode(err) != refersam.CodeUnavailable || !regexp.MustCompile(`before the answer to the request of \d+ bytes arrived`).MatchString(err.Error()) {
			t.Errorf("%v", err)
		}
	})
}

// Without a deadline there are six tries.
func TestTries(t *testing.T) {
	cut := errors.New("the connection was cut")
	for name, tc := range map[string]struct {
		answer func() (*http.Response, error)
		code   refersam.Code
		tries  int
	}{
		"overloaded": {func() (*http.Response, error) { return overloaded(), nil }, refersam.CodeOverloaded, 6},
		"cut":        {func() (*http.Response, error) { return nil, cut }, refersam.CodeUnavailable, 6},
		"cut later": {func() (*http.Response, error) {
			r := overloaded()
			r.StatusCode, r.Body = 200, io.NopCloser(iotest.ErrReader(cut))
			return r, nil
		}, refersam.CodeUnavailable, 6},
		"under way":    {func() (*http.Response, error) { return reply(409, `{"code": "request_under_way"}`), nil }, refersam.CodeUnderWay, 6},
		"unfinished":   {func() (*http.Response, error) { return reply(409, `{"code": "job_unfinished"}`), nil }, refersam.CodeUnfinished, 1},
		"a wrong call": {func() (*http.Response, error) { return reply(422, `{"code": "invalid_request"}`), nil }, refersam.CodeInvalidRequest, 1},
		"a new code":   {func() (*http.Response, error) { return reply(429, `{"code": "too_loud"}`), nil }, "too_loud", 6},
		"proxy 401":    {func() (*http.Response, error) { return reply(401, "<html>"), nil }, refersam.CodeUnauthorized, 1},
		"proxy 403":    {func() (*http.Response, error) { return reply(403, ""), nil }, refersam.CodeForbidden, 1},
		"proxy 404":    {func() (*http.Response, error) { return reply(404, "{}"), nil }, refersam.CodeNotFound, 1},
		"proxy 413":    {func() (*http.Response, error) { return reply(413, "<html>"), nil }, refersam.CodeImageTooLarge, 1},
		"proxy 418":    {func() (*http.Response, error) { return reply(418, "<html>"), nil }, refersam.CodeUpstream, 1},
		"proxy 429":    {func() (*http.Response, error) { return reply(429, "<html>"), nil }, refersam.CodeQuotaExceeded, 6},
		"full":         {func() (*http.Response, error) { return reply(429, `{"code": "storage_full", "detail": "no"}`), nil }, refersam.CodeStorageFull, 1},
		"proxy 500":    {func() (*http.Response, error) { return reply(500, "<html>"), nil }, refersam.CodeUpstream, 1},
		"proxy 502":    {func() (*http.Response, error) { return reply(502, "<html>"), nil }, refersam.CodeUpstream, 6},
		"proxy 503":    {func() (*http.Response, error) { return reply(503, "<html>"), nil }, refersam.CodeUnavailable, 6},
		"proxy 504":    {func() (*http.Response, error) { return reply(504, "<html>"), nil }, refersam.CodeDeadlineExceeded, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, tr := through(t, func(int, *http.Request) (*http.Response, error) {
					resp, err := tc.answer()
					if err == nil {
						resp.Header.Set("X-Request-Id", "r7")
						resp.Header.Set("Retry-After", "2")
					}
					return resp, err
				})
				_, err := c.Models(t.Context())
				var e *refersam.Error
				if !errors.As(err, &e) || e.Code != tc.code || tr.tries != tc.tries {
					t.Fatalf("%d tries: %v", tr.tries, err)
				}
				if strings.HasPrefix(name, "cut") {
					if !errors.Is(err, cut) {
						t.Errorf("%v", err)
					}
				} else if want := map[string]string{"overloaded": "r1"}[name]; e.RequestID != cmp.Or(want, "r7") || e.RetryAfter != 2*time.Second {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

// A redirect is reported, not followed: a DELETE would become a GET, and the key
// could go elsewhere.
func TestRedirects(t *testing.T) {
	c, tr := through(t, func(int, *http.Request) (*http.Response, error) {
		return reply(http.StatusMovedPermanently, "", "Location", "https://masks.example.com/"), nil
	})
	err := c.DeleteImage(t.Context(), "img_x")
	if refersam.ErrorCode(err) != refersam.CodeUpstream || tr.tries != 1 || !strings.Contains(err.Error(), "https://masks.example.com/") {
		t.Errorf("%d tries: %v", tr.tries, err)
	}
}

// A certificate that is not trusted is not tried again.
func TestUntrusted(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	c, err := client.New(server.URL, client.WithHTTPClient(&http.Client{Transport: &http.Transport{}}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begun := time.Now()
	if _, err := c.Models(ctx); refersam.ErrorCode(err) != refersam.CodeUnavailable || time.Since(begun) > 10*time.Second {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
}

// Each try sends the time that is left, and a submission is the same at each try.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			told   []time.Duration
			bodies []string
			keys   []string
		)
		c, _ := through(t, func(try int, r *http.Request) (*http.Response, error) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			var b struct {
				DeadlineMS int64 `json:"deadline_ms"`
			}
			if err := json.Unmarshal(body, &b); err != nil {
				t.Error(err)
			}
			told = append(told, time.Duration(b.DeadlineMS)*time.Millisecond)
			bodies, keys = append(bodies, string(body)), append(keys, r.Header.Get("Idempotency-Key"))
			return overloaded("Retry-After", "10"), nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if _, err := c.Segment(ctx, request()); refersam.ErrorCode(err) != refersam.CodeOverloaded {
			t.Errorf("%v", err)
		}
		if len(told) != 3 || told[0] != 30*time.Second || told[1] > 20*time.Second || told[2] > 10*time.Second || told[2] == 0 || keys[0] != "" {
			t.Errorf("%v, %q", told, keys)
		}
		told, bodies, keys = nil, nil, nil
		ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := c.Submit(ctx, []client.Item{{Picture: client.Picture{ID: "img_1"}, Phrases: request().Phrases}}, client.JobOptions{Deadline: time.Hour})
		if refersam.ErrorCode(err) != refersam.CodeOverloaded {
			t.Errorf("%v", err)
		}
		if len(told) != 3 || told[0] != time.Hour || bodies[2] != bodies[0] || keys[0] == "" || keys[2] != keys[0] {
			t.Errorf("%v, %q, %q", told, bodies, keys)
		}
	})
}

// When the context ends, the error is one of the domain and of package context,
// with the last error that the service reported.
func TestContextEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		code refersam.Code
		is   error
	}{
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, refersam.CodeDeadlineExceeded, context.DeadlineExceeded},
		"cancel": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, refersam.CodeCancelled, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := through(t, func(try int, r *http.Request) (*http.Response, error) {
					if try == 1 {
						return overloaded(), nil
					}
					<-r.Context().Done()
					return nil, r.Context().Err()
				})
				ctx, cancel := tc.end(t.Context())
				defer cancel()
				_, err := c.Models(ctx)
				if refersam.ErrorCode(err) != tc.code || !errors.Is(err, tc.is) || !strings.Contains(err.Error(), "overloaded") {
					t.Errorf("%v", err)
				}
				if _, err := c.Models(ctx); refersam.ErrorCode(err) != tc.code || !errors.Is(err, tc.is) {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // during the pause before the next try
		c, _ := through(t, func(int, *http.Request) (*http.Response, error) { return overloaded("Retry-After", "30"), nil })
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begun := time.Now()
		if _, err := c.Models(ctx); refersam.ErrorCode(err) != refersam.CodeCancelled || !strings.Contains(err.Error(), "overloaded") || time.Since(begun) != time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
	})
}

// If a later try finds nothing to delete, an earlier try has deleted it; if the
// first try finds nothing, it is an error.
func TestDeleteRetried(t *testing.T) {
	s := start(t)
	c, ctx := s.client(t), t.Context()
	image, err := c.KeepImage(ctx, client.Picture{Data: pipelinetest.Squares()})
	if err != nil {
		t.Fatal(err)
	}
	cut := false
	s.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete || cut {
			return false
		}
		cut = true
		s.gateway.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
	if err := c.DeleteImage(ctx, image.ID); err != nil || !cut {
		t.Errorf("%v", err)
	}
	if err := c.DeleteImage(ctx, image.ID); refersam.ErrorCode(err) != refersam.CodeImageNotFound {
		t.Errorf("%v", err)
	}
	if err := c.DeleteJob(ctx, "job_1"); refersam.ErrorCode(err) != refersam.CodeJobNotFound {
		t.Errorf("%v", err)
	}
}

// All faults of a problem are reported, each once, with its place in the request.
func TestFaultsOfProblems(t *testing.T) {
	for name, tc := range map[string]struct{ problem, want string }{
		"first has a place": {`"field": "/a~1b/é", "errors": [{"detail": "1", "pointer": "#/a~1b/%C3%A9"}, {"detail": "2", "field": "phrase"}]`, "/a~1b/é: phrase 2"},
		"first has none":    {`"errors": [{"detail": "1", "pointer": "#/a"}, {"detail": "2", "pointer": "#/b"}]`, ": /a 1, /b 2"},
		"no errors":         {`"field": "/a"`, "/a: "},
	} {
		c, _ := through(t, func(int, *http.Request) (*http.Response, error) {
			return reply(422, `{"code": "invalid_request", "detail": "1", `+tc.problem+`}`), nil
		})
		_, err := c.Models(t.Context())
		var e *refersam.Error
		if !errors.As(err, &e) {
			t.Fatalf("%v", err)
		}
		var also []string
		for _, a := range e.Also {
			also = append(also, fmt.Sprint(a.At, " ", a.Message))
		}
		if got := e.At.String() + ": " + strings.Join(also, ", "); got != tc.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
