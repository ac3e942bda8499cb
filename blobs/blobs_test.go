package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// A folder and a bucket behave the same.
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
			// A cancelled write leaves nothing.
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

// Walk skips other data in the same folder or bucket, but finds the temporary
// file that a crash has left.
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

// Walk finds every object that stays while others are written and deleted.
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

// withoutSize removes the size from an answer.
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

// An object is read completely and within the bound, also if the server does not
// report its size.
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
	for address, want := range map[blobs.URL]string{ // part of the error; "" for none
		"": "", "s3://bucket?region=eu": "", "s3://bucket?endpoint=https://minio.example.com:9000": "",
		"s3://bucket/?region=eu&prefix=a/&use_path_style=true&profile=p&endpoint=http://10.0.0.1": "",
		"file:///tmp": "s3://bucket", "gs://bucket": "s3://bucket", "s3://": "s3://bucket", "bucket": "s3://bucket", "s3://:secret": "s3://bucket",
		"s3://id:secret@bucket": "AWS_ACCESS_KEY_ID", "s3://bucket?endpoint=https://id:secret@minio.example.com": "AWS_ACCESS_KEY_ID",
		"s3://bucket?endpoint=:secret": "endpoint", "s3://bucket?endpoint=minio.example.com": "endpoint", "s3://bucket?endpoint=https://h/path": "endpoint",
		"s3://bucket?use_path_style=yes": "use_path_style=yes, allowed: true or false", "s3://bucket?region=%zz": "options", "s3://bucket/pictures": "prefix=",
		"s3://bucket?region=eu&s3ForcePathStyle=true": `the option "s3ForcePathStyle", allowed: region`,
		"s3://bucket?dualstack=true":                  `the option "dualstack"`,
		"s3://bucket?role=arn":                        `the option "role"`,
	} {
		err := (&blobs.Config{URL: address}).Validate()
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", address, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), "REFERSAM_BLOBS_URL") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), ":secret")):
			t.Errorf("%s: %v, want %q in it", address, err, want)
		}
		if shown := address.String(); strings.Contains(shown, "secret") || want == "" && shown != string(address) {
			t.Errorf("%q is shown as %q", string(address), shown)
		}
	}
}

// A bucket that does not exist, or cannot be used, is an error at the start.
func TestOpenFails(t *testing.T) {
	address := blobstest.NewS3(t)
	fails := func(name, want string, address blobs.URL) {
		t.Helper()
		_, err := blobs.Open(t.Context(), blobs.Config{URL: address}, "")
		if err == nil || !strings.Contains(err.Error(), "REFERSAM_BLOBS_URL") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", name, err, want)
		}
	}
	fails("no bucket", `the bucket "masks" does not exist`, blobs.URL(strings.Replace(string(address), "s3://pictures", "s3://masks", 1)))
	fails("an unknown option", `"planet"`, address+"&planet=mars")
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} {
		t.Setenv(name, "")
	}
	fails("no region", "region=", "s3://pictures")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	fails("a wrong secret", "", address)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	fails("no credentials", "no credentials were found", address)
}

// Credentials are found in a profile of the AWS files too, and the server and
// its region in the AWS variables.
func TestAWSSettings(t *testing.T) {
	address, err := url.Parse(string(blobstest.NewS3(t)))
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".aws"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := fmt.Sprintf("[default]\naws_access_key_id = no\naws_secret_access_key = no\n[pictures]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
		os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"))
	if err := os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte(files), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("AWS_ACCESS_KEY_ID", "no")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "no")
	t.Setenv("AWS_REGION", address.Query().Get("region"))
	t.Setenv("AWS_ENDPOINT_URL_S3", address.Query().Get("endpoint"))
	b := open(t, blobs.Config{URL: "s3://pictures?use_path_style=true&profile=pictures"}, "")
	if err := b.Put(t.Context(), blobs.NewName(), []byte("a")); err != nil {
		t.Error(err)
	}
}

// A server that fails is asked three times. One that fails for good, or refuses
// damaged content, makes Put fail, and no object is left.
func TestS3Fails(t *testing.T) {
	var (
		tries   atomic.Int64
		failing atomic.Int64 // requests that fail
		damage  atomic.Bool
	)
	b := open(t, blobs.Config{URL: blobstest.NewS3Behind(t, func(s3 http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/a/") {
				if tries.Add(1) <= failing.Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				if damage.Load() {
					r.Body = io.NopCloser(io.MultiReader(strings.NewReader("x"), io.LimitReader(skip(r.Body, 1), r.ContentLength-1)))
				}
			}
			s3.ServeHTTP(w, r)
		})
	})}, "")
	for _, tc := range []struct {
		failing, tries int64
		damage, ok     bool
	}{
		{failing: 2, tries: 3, ok: true},
		{failing: 9, tries: 3},
		{tries: 1, damage: true},
	} {
		tries.Store(0)
		failing.Store(tc.failing)
		damage.Store(tc.damage)
		name := blobs.NewName()
		err := b.Put(t.Context(), name, []byte("a picture"))
		if (err == nil) != tc.ok || tries.Load() != tc.tries || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %d tries, %v", tc, tries.Load(), err)
		}
		if _, err := b.Size(t.Context(), name); (err == nil) != tc.ok || err != nil && !errors.Is(err, blobs.ErrNotFound) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

// skip returns r without its first n bytes.
func skip(r io.Reader, n int64) io.Reader {
	_, _ = io.CopyN(io.Discard, r, n)
	return r
}
