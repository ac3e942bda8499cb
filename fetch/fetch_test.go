package fetch_test

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/fetch"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// In these tests 127.0.0.1 is the internet, and every other address of the machine
// is a place that only the service can reach.
const internet = "127.0.0.1/32"

// picture begins like a PNG.
const picture = "\x89PNG\r\n\x1a\n and more"

// world is a name server, servers on the internet, and a private server that must
// never be reached.
type world struct {
	*testing.T
	roots    *x509.CertPool
	resolver *net.Resolver
	cert     tls.Certificate
	port     string // of the servers
	reached  atomic.Int64
	asked    atomic.Int64 // queries for the name that changes its address
	headers  chan http.Header
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, roots: x509.NewCertPool(), headers: make(chan http.Header, 100)}
	w.cert = w.certificate("good.example", "*.good.example", "other.example", "rebind.example", "private.example", "mixed.example", "mapped.example",
		"nat64.example", "cname.example", "localhost", "127.0.0.1", "127.0.0.2", "::1", "xn--bcher-kva.example")
	secret := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { w.reached.Add(1) })
	public := w.serve("127.0.0.1:0", http.HandlerFunc(w.answer), false)
	_, w.port, _ = net.SplitHostPort(public)
	for _, address := range []string{"127.0.0.2", "127.0.0.53", "[::1]"} {
		w.serve(address+":"+w.port, secret, true)
	}
	w.resolver = w.names()
	return w
}

// certificate makes a certificate that the world trusts.
func (w *world) certificate(names ...string) tls.Certificate {
	return w.certificateUntil(time.Now().Add(time.Hour), names...)
}

func (w *world) certificateUntil(end time.Time, names ...string) tls.Certificate {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		w.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		w.Fatal(err)
	}
	w.roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// countingListener counts connections, because a connection alone already shows
// that the guard failed.
type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil && l.n != nil {
		l.n.Add(1)
	}
	return conn, err
}

func (w *world) serve(address string, h http.Handler, secret bool) string {
	w.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		w.Fatal(err)
	}
	listener := countingListener{Listener: ln}
	if secret {
		listener.n = &w.reached
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: h}, TLS: &tls.Config{Certificates: []tls.Certificate{w.cert}}}
	server.StartTLS()
	w.Cleanup(server.Close)
	return ln.Addr().String()
}

// names serves DNS and returns a resolver that uses it.
func (w *world) names() *net.Resolver {
	w.Helper()
	mux := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		name := strings.TrimSuffix(strings.ToLower(q.Question[0].Name), ".")
		add := func(format string, args ...any) {
			rr, err := dns.NewRR(fmt.Sprintf(format, args...))
			if err != nil {
				w.Error(err)
				return
			}
			if rr.Header().Rrtype == q.Question[0].Qtype || rr.Header().Rrtype == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		switch name {
		case "rebind.example":
			if q.Question[0].Qtype == dns.TypeA {
				if w.asked.Add(1) > 1 {
					add("%s. 0 IN A 127.0.0.2", name)
				} else {
					add("%s. 0 IN A 127.0.0.1", name)
				}
			}
		case "private.example":
			add("%s. 0 IN A 127.0.0.2", name)
		case "mixed.example":
			add("%s. 0 IN A 127.0.0.2", name)
			add("%s. 0 IN AAAA ::1", name)
		case "mapped.example":
			add("%s. 0 IN AAAA ::ffff:127.0.0.2", name)
		case "nat64.example":
			add("%s. 0 IN AAAA 64:ff9b::7f00:2", name)
		case "cname.example":
			add("%s. 0 IN CNAME private.example.", name)
			add("private.example. 0 IN A 127.0.0.2")
		case "metadata.example":
			add("%s. 0 IN A 169.254.169.254", name)
		case "nowhere.example":
			m.Rcode = dns.RcodeNameError
		default:
			add("%s. 0 IN A 127.0.0.1", name)
		}
		if err := rw.WriteMsg(m); err != nil {
			w.Log(err)
		}
	})
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: mux}
	done := make(chan error, 1)
	go func() { done <- server.ActivateAndServe() }()
	w.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			w.Error(err)
		}
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// answer is the handler of the servers on the internet.
func (w *world) answer(rw http.ResponseWriter, r *http.Request) {
	w.headers <- r.Header
	_, _ = io.Copy(io.Discard, r.Body) // the server notices a closed connection only after the body is read
	to := func(format string, args ...any) {
		http.Redirect(rw, r, fmt.Sprintf(format, args...), http.StatusFound)
	}
	switch path := r.URL.Path; path {
	case "/picture.png":
		fmt.Fprint(rw, picture)
	case "/unannounced":
		rw.(http.Flusher).Flush()
		fmt.Fprint(rw, picture)
	case "/to-picture":
		to("https://good.example:%s/picture.png", w.port)
	case "/to-other":
		to("https://other.example:%s/picture.png", w.port)
	case "/to-private":
		to("https://127.0.0.2:%s/", w.port)
	case "/to-private-name":
		to("https://private.good.example:%s/", w.port)
	case "/to-metadata":
		to("http://169.254.169.254/latest/meta-data/")
	case "/to-rebind":
		to("https://rebind.example:%s/picture.png", w.port)
	case "/to-http":
		to("http://good.example:%s/picture.png", w.port)
	case "/to-file":
		to("file:///etc/passwd")
	case "/to-user":
		to("https://user:pass@good.example:%s/picture.png", w.port)
	case "/loop":
		to("/loop")
	case "/hop1":
		to("/hop2")
	case "/hop2":
		to("/hop3")
	case "/hop3":
		to("/picture.png")
	case "/endless":
		fmt.Fprint(rw, picture)
		for range 1 << 20 {
			if _, err := rw.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	case "/long":
		rw.Header().Set("Content-Length", "100000000")
		fmt.Fprint(rw, picture)
	case "/slow":
		fmt.Fprint(rw, picture)
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	case "/silent":
		<-r.Context().Done()
	case "/bomb":
		rw.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(rw)
		_, _ = z.Write(make([]byte, 1<<20))
		_ = z.Close()
	case "/headers":
		rw.Header().Set("X-Long", strings.Repeat("a", 1<<20))
		fmt.Fprint(rw, picture)
	case "/page":
		fmt.Fprint(rw, "<!DOCTYPE html><title>internal</title>")
	case "/text":
		fmt.Fprint(rw, "root:x:0:0")
	case "/empty":
	case "/gone":
		rw.WriteHeader(http.StatusNotFound)
	case "/204":
		rw.WriteHeader(http.StatusNoContent)
	default:
		rw.WriteHeader(http.StatusTeapot)
	}
}

func (w *world) client(change func(*fetch.Config)) *fetch.Client {
	w.Helper()
	cfg := fetch.DefaultConfig()
	cfg.Timeout = time.Second
	cfg.Networks = []string{internet}
	for _, name := range []string{"good.example", "*.good.example", "rebind.example", "private.example", "mixed.example", "mapped.example", "nat64.example",
		"cname.example", "metadata.example", "nowhere.example", "bücher.example", "127.0.0.2", "localhost"} {
		cfg.Hosts = append(cfg.Hosts, name+":"+w.port)
	}
	cfg.Hosts = append(cfg.Hosts, "[::1]:"+w.port, "[::ffff:127.0.0.2]:"+w.port)
	if change != nil {
		change(&cfg)
	}
	c, err := fetch.NewWith(cfg, w.resolver, w.roots)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(c.Close)
	return c
}

// Whatever address a client writes, the service reaches only public addresses and
// fetches pictures only from hosts on the list.
func TestPicture(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil)
	const (
		refused     = refersam.CodeFetchRefused
		failed      = refersam.CodeFetchFailed
		unsupported = refersam.CodeUnsupportedMedia
		tooLarge    = refersam.CodeImageTooLarge
	)
	good := "https://good.example:" + w.port
	for _, tc := range []struct {
		name, url string
		code      refersam.Code // "" for a picture
	}{
		{"a picture", good + "/picture.png", ""},
		{"a name in capitals", "https://GOOD.Example:" + w.port + "/picture.png", ""},
		{"a dot at the end", "https://good.example.:" + w.port + "/picture.png", ""},
		{"a name below", "https://cdn.good.example:" + w.port + "/picture.png", ""},
		{"a name in Unicode", "https://bücher.example:" + w.port + "/picture.png", ""},
		{"a redirect on the list", good + "/to-picture", ""},
		{"three redirects", good + "/hop1", ""},
		{"a fragment", good + "/picture.png#a", ""},

		// Addresses that are refused because of their text.
		{"http", "http://good.example:" + w.port + "/picture.png", refused},
		{"file", "file:///etc/passwd", refused},
		{"gopher", "gopher://good.example:" + w.port + "/_x", refused},
		{"data", "data:image/png;base64,iVBORw0KGgo=", refused},
		{"no scheme", "//good.example/picture.png", refused},
		{"nothing", "", refused},
		{"a user", "https://user@good.example:" + w.port + "/picture.png", refused},
		{"a host for a user", "https://good.example:" + w.port + "@127.0.0.2:" + w.port + "/", refused},
		{"a host for a password", "https://good.example:443@127.0.0.2:" + w.port + "/", refused},
		{"a backslash", "https://good.example:" + w.port + `\@127.0.0.2/`, refused},
		{"another backslash", `https://127.0.0.2:` + w.port + `\.good.example/`, refused},
		{"a tab", "https://good.example:" + w.port + "/a\tb", refused},
		{"a line break", "https://good.example:" + w.port + "/a\r\nHost: private.example", refused},
		{"an escaped host", "https://good%2eexample%40127.0.0.2:" + w.port + "/", refused},
		{"another host", "https://other.example:" + w.port + "/picture.png", refused},
		{"a host that ends alike", "https://evilgood.example:" + w.port + "/picture.png", refused},
		{"a host that begins alike", "https://good.example.evil.example:" + w.port + "/picture.png", refused},
		{"another port", "https://good.example:22/", refused},
		{"the usual port", "https://good.example/picture.png", refused},
		{"a port that is none", "https://good.example:99999/", refused},
		{"a look-alike", "https://gооd.example:" + w.port + "/picture.png", refused}, // with Cyrillic letters
		{"a decimal address", "https://2130706434:" + w.port + "/", refused},
		{"a hexadecimal address", "https://0x7f000002:" + w.port + "/", refused},
		{"an octal address", "https://0177.0.0.02:" + w.port + "/", refused},
		{"a short address", "https://127.2:" + w.port + "/", refused},
		{"a zone", "https://[fe80::1%25lo]:" + w.port + "/", refused},
		{"3,000 bytes", good + "/" + strings.Repeat("a", 3000), refused},

		// Addresses that are refused when they are dialled.
		{"a private address on the list", "https://127.0.0.2:" + w.port + "/", refused},
		{"a private address of IPv6", "https://[::1]:" + w.port + "/", refused},
		{"a mapped address", "https://[::ffff:127.0.0.2]:" + w.port + "/", refused},
		{"a mapped address in hexadecimal", "https://[::ffff:7f00:2]:" + w.port + "/", refused},
		{"a name of a private address", "https://private.example:" + w.port + "/", refused},
		{"a name of two private addresses", "https://mixed.example:" + w.port + "/", refused},
		{"a name of a mapped address", "https://mapped.example:" + w.port + "/", refused},
		{"a name of a NAT64 address", "https://nat64.example:" + w.port + "/", refused},
		{"an alias", "https://cname.example:" + w.port + "/", refused},
		{"metadata of a cloud", "https://metadata.example:" + w.port + "/latest/meta-data/", refused},

		// Redirects.
		{"a redirect to another host", good + "/to-other", refused},
		{"a redirect to a private address", good + "/to-private", refused},
		{"a redirect to metadata", good + "/to-metadata", refused},
		{"a redirect to http", good + "/to-http", refused},
		{"a redirect to a file", good + "/to-file", refused},
		{"a redirect with a user", good + "/to-user", refused},
		{"a redirect for ever", good + "/loop", failed},

		// Answers.
		{"a body without end", good + "/endless", tooLarge},
		{"a long body", good + "/long", tooLarge},
		{"a slow body", good + "/slow", failed},
		{"no answer", good + "/silent", failed},
		{"a bomb", good + "/bomb", failed},
		{"long headers", good + "/headers", failed},
		{"a page", good + "/page", failed},
		{"text", good + "/text", failed},
		{"nothing", good + "/empty", failed},
		{"404", good + "/gone", failed},
		{"204", good + "/204", failed},
		{"a name of nothing", "https://nowhere.example:" + w.port + "/", failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			content, err := c.Picture(t.Context(), tc.url, 1<<20, noLimit)
			if got := refersam.ErrorCode(err); got != tc.code {
				t.Errorf("%q, want %q: %v", got, tc.code, err)
			}
			if tc.code == "" && string(content) != picture {
				t.Errorf("%q", content)
			}
			if n := w.reached.Load(); n != 0 {
				t.Fatalf("a private server was reached %d times", n)
			}
			var shown *refersam.Error
			if errors.As(err, &shown) && (strings.Contains(shown.Message, "127.0.0.2") || strings.Contains(shown.Message, "169.254")) {
				t.Errorf("an address is told: %s", shown.Message)
			}
		})
	}
}

// A name that resolves to another address at the second query is not reached.
func TestRebinding(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil)
	address := "https://rebind.example:" + w.port + "/picture.png"
	if _, err := c.Picture(t.Context(), address, 1<<20, noLimit); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{address, "https://good.example:" + w.port + "/to-rebind"} {
		c.Close() // a connection that passed the check may be reused
		if _, err := c.Picture(t.Context(), address, 1<<20, noLimit); refersam.ErrorCode(err) != refersam.CodeFetchRefused {
			t.Errorf("%s: %v", address, err)
		}
	}
	if n := w.reached.Load(); n != 0 {
		t.Errorf("a private server was reached %d times", n)
	}
}

func noLimit(context.Context, int64) error { return nil }

// reserve gets the announced size, or the maximum if no size is announced. If
// reserve fails, nothing is read.
func TestReserve(t *testing.T) {
	w := newWorld(t)
	c := w.client(nil)
	for path, want := range map[string]int64{"/picture.png": int64(len(picture)), "/unannounced": 1 << 20} {
		var reserved int64
		content, err := c.Picture(t.Context(), "https://good.example:"+w.port+path, 1<<20, func(_ context.Context, n int64) error { reserved = n; return nil })
		if err != nil || string(content) != picture || reserved != want {
			t.Errorf("%s: %d bytes, %d reserved, want %d: %v", path, len(content), reserved, want, err)
		}
	}
	full := refersam.Errorf(refersam.CodeOverloaded, "full")
	if _, err := c.Picture(t.Context(), "https://good.example:"+w.port+"/picture.png", 1<<20, func(context.Context, int64) error { return full }); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	// Waiting for memory does not count as the other side's fault, however long it
	// takes.
	_, err := c.Picture(t.Context(), "https://good.example:"+w.port+"/picture.png", 1<<20, func(ctx context.Context, _ int64) error {
		<-ctx.Done()
		return refersam.Errorf(refersam.CodeOverloaded, "full")
	})
	if refersam.ErrorCode(err) != refersam.CodeOverloaded {
		t.Errorf("%v", err)
	}
}

// Networks that are not public may be reached for hosts that the list names, not
// for hosts that * matches.
func TestNetworks_NamedHosts(t *testing.T) {
	for list, want := range map[string]string{"*": "not on a public network", "127.0.0.1": "connection failed"} {
		c, err := fetch.New(fetch.Config{Hosts: []string{list}, WebhookHosts: []string{list}, Networks: []string{internet}, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const address = "https://127.0.0.1/" // no server here has a certificate
		_, pictureErr := c.Picture(t.Context(), address, 1<<20, noLimit)
		_, _, postErr := c.Post(t.Context(), address, http.Header{}, nil)
		for _, err := range []error{pictureErr, postErr} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", list, err, want)
			}
		}
	}
}

// A request for a picture reveals nothing about the service or other requests.
func TestPictureRequest(t *testing.T) {
	w := newWorld(t)
	t.Setenv("HTTPS_PROXY", "http://127.0.0.2:"+w.port) // a proxy would do the dialling
	if _, err := w.client(nil).Picture(t.Context(), "https://good.example:"+w.port+"/to-picture", 1<<20, noLimit); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h := <-w.headers
		for name := range h {
			if name != "User-Agent" && name != "Accept" {
				t.Errorf("%s: %v", name, h[name])
			}
		}
	}
	if w.reached.Load() != 0 {
		t.Error("the proxy was asked")
	}
}

func TestCertificate(t *testing.T) {
	w := newWorld(t)
	other := w.client(func(cfg *fetch.Config) { cfg.Hosts = []string{"*.other.example:" + w.port} })
	if _, err := other.Picture(t.Context(), "https://a.other.example:"+w.port+"/picture.png", 1<<20, noLimit); refersam.ErrorCode(err) != refersam.CodeFetchFailed {
		t.Errorf("a certificate for another host: %v", err)
	}
	w.cert = w.certificateUntil(time.Now().Add(-time.Second), "good.example")
	_, port, _ := net.SplitHostPort(w.serve("127.0.0.1:0", http.HandlerFunc(w.answer), false))
	expired := w.client(func(cfg *fetch.Config) { cfg.Hosts = []string{"good.example:" + port} })
	_, err := expired.Picture(t.Context(), "https://good.example:"+port+"/picture.png", 1<<20, noLimit)
	if refersam.ErrorCode(err) != refersam.CodeFetchFailed || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that has expired: %v", err)
	}
	w.roots = x509.NewCertPool()
	_, err = w.client(nil).Picture(t.Context(), "https://good.example:"+w.port+"/picture.png", 1<<20, noLimit)
	if refersam.ErrorCode(err) != refersam.CodeFetchFailed || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
}

func TestDeadline(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := w.client(nil).Picture(ctx, "https://good.example:"+w.port+"/silent", 1<<20, noLimit); refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded {
		t.Errorf("%v", err)
	}
}

// Without a list no picture is fetched and no webhook is sent.
func TestOff(t *testing.T) {
	c, err := fetch.New(fetch.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, pictureErr := c.Picture(t.Context(), "https://example.com/a.png", 1<<20, noLimit)
	for _, err := range []error{pictureErr, c.CheckWebhook("https://example.com/")} {
		if refersam.ErrorCode(err) != refersam.CodeFetchRefused {
			t.Errorf("%v", err)
		}
	}
	if _, _, err := c.Post(t.Context(), "https://example.com/", http.Header{}, nil); err == nil {
		t.Error("a webhook was told")
	}
}

// Webhooks pass the same guard.
func TestPost(t *testing.T) {
	w := newWorld(t)
	c := w.client(func(cfg *fetch.Config) { cfg.WebhookHosts = append([]string{"*"}, cfg.Hosts...) })
	good := "https://good.example:" + w.port
	for _, tc := range []struct {
		name, url string
		status    int // 0 for an error
	}{
		{"an answer", good + "/204", 204},
		{"another answer", good + "/gone", 404},
		{"a redirect, which is not followed", good + "/to-private", 302},
		{"no answer", good + "/silent", 0},
		{"a private address", "https://127.0.0.2:" + w.port + "/", 0},
		{"a private name", "https://private.example:" + w.port + "/", 0},
		{"any host on the usual port, which is private", "https://127.0.0.2/", 0},
		{"a port that is not on the list", "https://other.example:22/", 0},
		{"http", "http://good.example:" + w.port + "/204", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			status, _, err := c.Post(ctx, tc.url, http.Header{"Webhook-Id": {"msg_1"}}, []byte("{}"))
			if status != tc.status || (err == nil) != (tc.status != 0) {
				t.Errorf("%d, %v", status, err)
			}
			if w.reached.Load() != 0 {
				t.Error("a private server was reached")
			}
			if err != nil && strings.Contains(err.Error(), "127.0.0.2") {
				t.Errorf("an address is told: %v", err)
			}
		})
	}
}

// Which addresses are public.
func TestAllows(t *testing.T) {
	for text, want := range map[string]bool{
		"93.184.216.34": true, "8.8.8.8": true, "2606:2800:220:1::1": true, "2a00:1450:4001::200e": true,
		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "100.64.0.1": false, "100.100.100.200": false, "127.0.0.1": false, "127.255.255.254": false,
		"169.254.169.254": false, "169.254.170.2": false, "172.16.0.1": false, "172.31.255.255": false, "172.32.0.1": true, "192.0.0.192": false, "192.0.2.1": false,
		"192.88.99.1": false, "192.168.1.1": false, "198.18.0.1": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false, "240.0.0.1": false,
		"255.255.255.255": false, "168.63.129.16": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:8.8.8.8": true, "::127.0.0.1": false, "64:ff9b::a9fe:a9fe": false, "64:ff9b:1::1": false,
		"100::1": false, "2001::1": false, "2001:db8::1": false, "2001:20::1": false, "2002:7f00:1::": false, "3fff::1": false, "fc00::1": false, "fd00:ec2::254": false,
		"fe80::1": false, "fec0::1": false, "ff02::1": false, "5f00::1": false,
	} {
		if got := fetch.Allows(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
	if fetch.Allows(netip.MustParseAddr("2606:2800:220:1::1%eth0")) {
		t.Error("an address with a zone")
	}
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		change func(*fetch.Config)
		want   string // in the error; "" for none
	}{
		{func(*fetch.Config) {}, ""},
		{func(c *fetch.Config) {
			c.Hosts = []string{"a.example", "*.b.example", "c.example:8443", "[2606:2800::1]:8443"}
		}, ""},
		{func(c *fetch.Config) { c.Hosts = []string{"https://a.example/"} }, "REFERSAM_FETCH_HOSTS"},
		{func(c *fetch.Config) { c.Hosts = []string{"a b"} }, "REFERSAM_FETCH_HOSTS"},
		{func(c *fetch.Config) { c.WebhookHosts = []string{"a.*.example"} }, "REFERSAM_WEBHOOK_HOSTS"},
		{func(c *fetch.Config) { c.Networks = []string{"10.0.0.1"} }, "REFERSAM_FETCH_NETWORKS"},
		{func(c *fetch.Config) { c.Networks = []string{"::ffff:10.0.0.0/104"} }, "REFERSAM_FETCH_NETWORKS"},
		{func(c *fetch.Config) { c.Timeout = 0 }, "REFERSAM_FETCH_TIMEOUT"},
	} {
		cfg := fetch.DefaultConfig()
		tc.change(&cfg)
		err := cfg.Validate()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
