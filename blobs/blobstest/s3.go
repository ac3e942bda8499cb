// Package blobstest gives tests buckets of their own.
package blobstest

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/refersam/refersam/blobs"
)

// NewS3 starts a server that speaks S3, as long as a test lives, and returns the
// address of its bucket. The test's environment has the credentials; they and
// the address are all that a program needs.
func NewS3(t *testing.T) blobs.URL {
	return NewS3Behind(t, func(s3 http.Handler) http.Handler { return s3 })
}

// NewS3Behind is NewS3 with a handler before the server.
func NewS3Behind(t *testing.T, before func(s3 http.Handler) http.Handler) blobs.URL {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("pictures"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(before(gofakes3.New(backend).Server()))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	return blobs.URL("s3://pictures?region=us-east-1&use_path_style=true&prefix=a/&endpoint=" + server.URL)
}
