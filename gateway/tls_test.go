package gateway_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/gateway/gatewaytest"
)

// pair is a certificate for a name, and its key, as PEM.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes})
}

// listen serves on a port of loopback until the test ends.
func listen(t *testing.T, s *service) (address string) {
	t.Helper()
	address, stop := listenUntil(t, s)
	t.Cleanup(stop)
	return address
}

// listenUntil serves on a port of loopback until stop is called. stop waits for the
// end.
func listenUntil(t *testing.T, s *service) (address string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, ln) }()
	return ln.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// The certificate is read again when its files change. While certificate and key do
// not match, the previous certificate stays in use.
func TestTLS(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	certFile, keyFile := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := pair(t, "first.example")
	write(certFile, cert)
	write(keyFile, key)
	s := start(t, func(c *gateway.Config) { c.TLSCert, c.TLSKey = certFile, keyFile })
	address := listen(t, s)

	// served returns the name in the certificate of a request's connection.
	served := func(name string) {
		t.Helper()
		roots := x509.NewCertPool()
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("https://" + address + "/livez")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.TLS.PeerCertificates[0].Subject.CommonName; got != name || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Errorf("%s with status %d over %s, want %s", got, resp.StatusCode, resp.Proto, name)
		}
	}
	served("first.example")

	cert, key = pair(t, "second.example")
	write(certFile, cert)
	pass := func() { time.Sleep(1100 * time.Millisecond) } // the gateway looks at the files once a second
	pass()
	served("first.example") // the new certificate has another key
	write(keyFile, key)
	pass()
	served("second.example")
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	pass()
	served("second.example")

	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}
	if conn, err := (&tls.Dialer{Config: old}).DialContext(t.Context(), "tcp", address); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

func TestTLS_Config(t *testing.T) {
	s := start(t)
	cert, key := pair(t, "first.example")
	_, other := pair(t, "second.example")
	folder := t.TempDir()
	name := func(file string, data []byte) string {
		path := filepath.Join(folder, file)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certFile, keyFile, otherFile := name("cert", cert), name("key", key), name("other", other)
	for _, tc := range []struct {
		name, cert, key string
		ok              bool
	}{
		{"both", certFile, keyFile, true},
		{"no key", certFile, "", false},
		{"no certificate", "", keyFile, false},
		{"another key", certFile, otherFile, false},
		{"no file", certFile, keyFile + ".gone", false},
	} {
		cfg := gateway.DefaultConfig()
		cfg.TLSCert, cfg.TLSKey = tc.cert, tc.key
		other, err := gatewaytest.New(cfg, gatewaytest.Parts{Model: s.segmenter, MaxImage: maxImage, State: s.state, Blobs: openBlobs(t), Metrics: s.metrics, Log: discard})
		if err == nil {
			_ = other.Access.Close()
		}
		if tc.ok && err != nil || !tc.ok && (err == nil || !strings.Contains(err.Error(), "REFERSAM_TLS_")) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// A client that sends its headers slowly, or too many headers, is disconnected.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *gateway.Config) { c.ReadHeaderTimeout = 200 * time.Millisecond })
	address := listen(t, s)
	dial := func() net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	t.Run("slow", func(t *testing.T) {
		conn := dial()
		defer conn.Close()
		begun := time.Now()
		go func() {
			fmt.Fprint(conn, "GET /livez HTTP/1.1\r\nHost: a\r\n")
			for i := 0; time.Since(begun) < 5*time.Second; i++ {
				if _, err := fmt.Fprintf(conn, "X-%d: b\r\n", i); err != nil {
					return
				}
				time.Sleep(20 * time.Millisecond) // the pace of a slow client
			}
		}()
		_, err := io.Copy(io.Discard, conn)
		if took := time.Since(begun); took < 150*time.Millisecond || took > 3*time.Second {
			t.Errorf("cut off after %v, want 200 ms: %v", took, err)
		}
	})
	t.Run("large", func(t *testing.T) {
		conn := dial()
		defer conn.Close()
		go fmt.Fprintf(conn, "GET /livez HTTP/1.1\r\nHost: a\r\nX-Large: %s\r\n\r\n", strings.Repeat("a", 80<<10))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}
