// Package blobstest gives tests S3 buckets of their own.
package blobstest

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/refersam/refersam/blobs"
)

const (
	accessKey = "id"
	secretKey = "secret"
	region    = "us-east-1"
	bucket    = "pictures"
	// buildTimeout bounds downloading and building the server, which takes a
	// minute on two cores.
	buildTimeout = 8 * time.Minute
)

// NewS3 starts an S3 server for the lifetime of a test, and returns the address
// of an empty bucket. It sets the credentials in the environment of the test.
// The server is Versity's S3 Gateway on a folder.
func NewS3(t *testing.T) blobs.URL {
	t.Helper()
	return NewS3Behind(t, func(s3 http.Handler) http.Handler { return s3 })
}

// NewS3Behind is NewS3 with a handler in front of the server.
func NewS3Behind(t *testing.T, before func(s3 http.Handler) http.Handler) blobs.URL {
	t.Helper()
	server := httptest.NewServer(before(start(t)))
	t.Cleanup(server.Close)
	client, err := minio.New(server.Listener.Addr().String(), &minio.Options{
		Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{Region: region}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	return blobs.URL("s3://" + bucket + "?region=" + region + "&use_path_style=true&prefix=a/&endpoint=" + server.URL)
}

// start starts the server on a socket in a folder, where no other process can
// take its address, and returns a proxy to it.
func start(t *testing.T) http.Handler {
	t.Helper()
	// t.TempDir may be too long for the name of a socket.
	folder, err := os.MkdirTemp("", "s3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	data, sidecar := filepath.Join(folder, "data"), filepath.Join(folder, "sidecar")
	for _, name := range []string{data, sidecar} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(folder, "socket")
	var log bytes.Buffer
	// The sidecar holds what the server would store as extended attributes,
	// because not every file system has them.
	server := exec.Command(program(t), "--port", socket, "--access", accessKey, "--secret", secretKey, "--region", region, "--quiet",
		"posix", "--sidecar", sidecar, data)
	server.Stdout, server.Stderr, server.Dir = &log, &log, folder
	server.Env = []string{"HOME=" + folder, "TMPDIR=" + folder}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = server.Wait() // the log says more
		close(ended)
	}()
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Errorf("the S3 server does not stop:\n%s", log.String())
			_ = server.Process.Kill()
			<-ended
		}
	})

	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			break
		}
		select {
		case <-ended:
			t.Fatalf("the S3 server ended: %v\n%s", server.ProcessState, log.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the S3 server does not answer: %v", err)
		}
	}
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "s3"})
			r.Out.Host = r.In.Host // it is signed
		},
	}
}

// program returns the path of the server's executable. The go command downloads
// and builds it the first time, and keeps it in its cache.
func program(t *testing.T) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	module := filepath.Join(filepath.Dir(file), "versitygw")
	// One process builds, the others wait for it. The go command itself locks
	// go.mod and go.sum, so the lock is on this file.
	lock, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "tool", "-n", "versitygw")
	build.Dir, build.Stderr = module, &errs
	build.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0") // the same executable for every caller
	out, err := build.Output()
	if err != nil {
		t.Fatalf("build the S3 server: %v\n%s", err, errs.String())
	}
	return strings.TrimSpace(string(out))
}
