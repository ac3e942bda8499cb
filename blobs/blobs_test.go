package blobs_test

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/refersam/refersam/blobs"
)

// s3 is the address of a bucket in a server of its own.
func s3(t *testing.T) string {
	backend := s3mem.New()
	if err := backend.CreateBucket("pictures"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	return "s3://pictures?region=us-east-1&use_path_style=true&prefix=a/&endpoint=" + server.URL
}

// Folder and bucket do the same.
func TestBucket(t *testing.T) {
	for name, address := range map[string]func(*testing.T) string{
		"folder": func(*testing.T) string { return "" },
		"S3":     s3,
	} {
		t.Run(name, func(t *testing.T) {
			b, err := blobs.Open(t.Context(), blobs.Config{URL: address(t)}, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}()
			if b.Local() != (name == "folder") {
				t.Errorf("local: %t", b.Local())
			}
			contents := map[string][]byte{blobs.NewName(): []byte("a picture"), blobs.NewName(): {}, blobs.NewName(): bytes.Repeat([]byte("x"), 6<<20)}
			var group sync.WaitGroup
			for name, content := range contents {
				group.Go(func() {
					if err := b.Put(t.Context(), name, content); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			seen := 0
			err = b.Walk(t.Context(), func(name string, modified time.Time) error {
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
				for range 2 {
					if err := b.Delete(t.Context(), name); err != nil {
						t.Error(err)
					}
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
	b, err := blobs.Open(t.Context(), blobs.Config{}, data)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
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

func TestConfig(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "s3://bucket?region=eu": true, "file:///tmp": false, "gs://bucket": false, "s3://": false, "bucket": false, "s3://id:secret@bucket": false,
	} {
		err := (&blobs.Config{URL: address}).Validate()
		if (err == nil) != ok || err != nil && (!strings.Contains(err.Error(), "REFERSAM_BLOBS_URL") || strings.Contains(err.Error(), ":secret")) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
