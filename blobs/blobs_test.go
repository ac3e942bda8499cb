package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/blobs/blobstest"
)

func open(t *testing.T, cfg blobs.Config, data string) *blobs.Bucket {
	t.Helper()
	b, err := blobs.Open(t.Context(), cfg, data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// names lists what Walk finds.
func names(t *testing.T, b *blobs.Bucket) (names []string) {
	t.Helper()
	if err := b.Walk(t.Context(), func(name string, _ time.Time) error { names = append(names, name); return nil }); err != nil {
		t.Error(err)
	}
	return names
}

// Folder and bucket do the same.
func TestBucket(t *testing.T) {
	for name, address := range map[string]func(*testing.T) blobs.URL{
		"folder": func(*testing.T) blobs.URL { return "" },
		"S3":     blobstest.NewS3,
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, blobs.Config{URL: address(t)}, t.TempDir())
			if b.Local() != (name == "folder") {
				t.Errorf("local: %t", b.Local())
			}
			contents := map[string][]byte{blobs.NewName(): []byte("a picture"), blobs.NewName(): {}, blobs.NewName(): bytes.Repeat([]byte("x"), 20<<20)}
			var group sync.WaitGroup
			for name, content := range contents {
				group.Go(func() {
					if err := b.Put(t.Context(), name, content); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			// A write that is given up leaves nothing.
			cancelled, cancel := context.WithCancel(t.Context())
			cancel()
			if err := b.Put(cancelled, blobs.NewName(), []byte("a")); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			seen := 0
			err := b.Walk(t.Context(), func(name string, modified time.Time) error {
				seen++
				if _, known := contents[name]; !known || time.Since(modified) > time.Minute {
					t.Errorf("there is %s of %s", name, modified)
				}
				return nil
			})
			if err != nil || seen != len(contents) {
				t.Errorf("%d objects: %v", seen, err)
			}
			for name, content := range contents {
				got, err := b.Get(t.Context(), name, int64(len(content)))
				if err != nil || !bytes.Equal(got, content) {
					t.Errorf("%d bytes, want %d: %v", len(got), len(content), err)
				}
				if len(content) > 0 {
					if _, err := b.Get(t.Context(), name, int64(len(content)-1)); err == nil {
						t.Error("more was read than allowed")
					}
				}
				if size, err := b.Size(t.Context(), name); err != nil || size != int64(len(content)) {
					t.Errorf("%d bytes, want %d: %v", size, len(content), err)
				}
				for range 2 {
					if err := b.Delete(t.Context(), name); err != nil {
						t.Error(err)
					}
				}
				if _, err := b.Size(t.Context(), name); !errors.Is(err, blobs.ErrNotFound) {
					t.Errorf("%v", err)
				}
				if _, err := b.Get(t.Context(), name, 1); !errors.Is(err, blobs.ErrNotFound) {
					t.Errorf("%v", err)
				}
			}
		})
	}
}

// Files are for their owner alone.
func TestFolder(t *testing.T) {
	data := t.TempDir()
	b := open(t, blobs.Config{}, data)
	name := blobs.NewName()
	if err := b.Put(t.Context(), name, []byte("a")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(data, "blobs"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v: %v", info.Mode(), err)
	}
	if _, err := blobs.Open(t.Context(), blobs.Config{}, filepath.Join(data, "blobs", name)); err == nil || !strings.Contains(err.Error(), "REFERSAM_DATA") {
		t.Errorf("a file for a folder: %v", err)
	}
}

// What others keep beside objects is none of ours; what a crash has left of one
// is.
func TestWalk(t *testing.T) {
	data := t.TempDir()
	b := open(t, blobs.Config{}, data)
	name := blobs.NewName()
	if err := b.Put(t.Context(), name, []byte("a")); err != nil {
		t.Fatal(err)
	}
	left := name + ".18b7c0ffee.tmp"
	for _, other := range []string{left, "readme.txt", name[:2] + "/notes", name + ".bak"} {
		if err := os.WriteFile(filepath.Join(data, "blobs", other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := names(t, b)
	slices.Sort(got)
	if want := []string{name, left}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}

	address := blobstest.NewS3(t)
	s3 := open(t, blobs.Config{URL: address}, "")
	whole := open(t, blobs.Config{URL: blobs.URL(strings.Replace(string(address), "&prefix=a/", "", 1))}, "")
	for _, other := range []string{"a/readme.txt", "backup/" + name, name} {
		if err := whole.Put(t.Context(), other, []byte("a")); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, s3); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if got := names(t, whole); !slices.Equal(got, []string{name}) {
		t.Errorf("%q", got)
	}
}

// A walk goes on while objects come and go.
func TestWalkWhileWriting(t *testing.T) {
	b := open(t, blobs.Config{}, t.TempDir())
	stays := blobs.NewName()
	if err := b.Put(t.Context(), stays, []byte("a")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for ctx.Err() == nil {
				name := blobs.NewName()
				if err := errors.Join(b.Put(context.Background(), name, []byte("a")), b.Delete(context.Background(), name)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		if !slices.Contains(names(t, b), stays) {
			t.Error("an object was missed")
		}
	}
	stop()
	writers.Wait()
}

// withoutSize is a server that says nothing of the size of an answer.
type withoutSize struct{ http.ResponseWriter }

func (w withoutSize) WriteHeader(status int) {
	w.Header().Del("Content-Length")
	w.ResponseWriter.WriteHeader(status)
	w.ResponseWriter.(http.Flusher).Flush()
}

func (w withoutSize) Write(p []byte) (int, error) {
	w.Header().Del("Content-Length")
	w.ResponseWriter.(http.Flusher).Flush()
	return w.ResponseWriter.Write(p)
}

// What is read is whole and bounded, whatever the server says of it.
func TestSizeUnknown(t *testing.T) {
	b := open(t, blobs.Config{URL: blobstest.NewS3Behind(t, func(s3 http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				w = withoutSize{w}
			}
			s3.ServeHTTP(w, r)
		})
	})}, "")
	name := blobs.NewName()
	if err := b.Put(t.Context(), name, []byte("a picture")); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(t.Context(), name, 9); err != nil || string(got) != "a picture" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := b.Get(t.Context(), name, 8); err == nil {
		t.Errorf("%q", got)
	}
}

func TestConfig(t *testing.T) {
	for address, ok := range map[blobs.URL]bool{
		"": true, "s3://bucket?region=eu": true, "s3://bucket?endpoint=https://minio.example.com:9000": true,
		"file:///tmp": false, "gs://bucket": false, "s3://": false, "bucket": false,
		"s3://id:secret@bucket": false, "s3://bucket?endpoint=https://id:secret@minio.example.com": false, "s3://bucket?endpoint=:secret": false, "s3://:secret": false,
	} {
		err := (&blobs.Config{URL: address}).Validate()
		if (err == nil) != ok || err != nil && (!strings.Contains(err.Error(), "REFERSAM_BLOBS_URL") || strings.Contains(err.Error(), ":secret")) {
			t.Errorf("%s: %v", address, err)
		}
		if shown := address.String(); strings.Contains(shown, "secret") || ok && shown != string(address) {
			t.Errorf("%q is shown as %q", string(address), shown)
		}
	}
}

// A bucket that is not there is found out at the start.
func TestNoBucket(t *testing.T) {
	address := strings.Replace(string(blobstest.NewS3(t)), "s3://pictures", "s3://masks", 1)
	if _, err := blobs.Open(t.Context(), blobs.Config{URL: blobs.URL(address)}, ""); err == nil || !strings.Contains(err.Error(), "REFERSAM_BLOBS_URL: there is no such bucket") {
		t.Errorf("%v", err)
	}
	if _, err := blobs.Open(t.Context(), blobs.Config{URL: "s3://pictures?region=us-east-1&planet=mars"}, ""); err == nil || !strings.Contains(err.Error(), "REFERSAM_BLOBS_URL") {
		t.Errorf("%v", err)
	}
}
