// Package blobs stores pictures and results outside the database: as files in a
// folder, or as objects in a bucket that speaks S3, which several gateways may
// share.
//
// An object that Put returned without an error is durable and complete. Every
// method may be called again after an error, and is safe for concurrent use.
package blobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// ErrNotFound means that there is no such object.
var ErrNotFound = errors.New("no such object")

// Bucket is an open bucket or folder. Open returns one; the caller must call
// Close.
type Bucket struct {
	backend backend
	local   bool
}

// backend is a folder or a bucket. Both pass one suite of tests.
type backend interface {
	// put stores content under a name that no object has. After an error or a
	// crash there is no object of that name, or a complete one.
	put(ctx context.Context, name string, content []byte) error
	// get returns a reader of an object and the object's size, negative if it is
	// unknown. Without such an object it is ErrNotFound.
	get(ctx context.Context, name string) (content io.ReadCloser, size int64, err error)
	// size returns the size of an object, or ErrNotFound.
	size(ctx context.Context, name string) (int64, error)
	// remove removes an object. Without such an object it does nothing.
	remove(ctx context.Context, name string) error
	// walk calls f with the name and age of all objects and with temporary files
	// of put, in any order. It ends with f's first error.
	walk(ctx context.Context, f func(name string, modified time.Time) error) error
	close() error
}

// Open opens the bucket, which must exist, or the folder blobs in data, which it
// creates if it does not exist.
func Open(ctx context.Context, cfg Config, data string) (*Bucket, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.URL == "" {
		folder, err := openFolder(data)
		if err != nil {
			return nil, fmt.Errorf("REFERSAM_DATA, the folder of stored objects: %w", err)
		}
		return &Bucket{folder, true}, nil
	}
	bucket, err := openS3(ctx, cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_BLOBS_URL: %w", err)
	}
	return &Bucket{bucket, false}, nil
}

// OpenExisting is Open for commands that work on the state of a service. A
// folder data without a folder blobs is an error and stays as it is, because its
// name may be mistyped.
func OpenExisting(ctx context.Context, cfg Config, data string) (*Bucket, error) {
	if cfg.URL != "" {
		return Open(ctx, cfg, data)
	}
	name, err := filepath.Abs(filepath.Join(data, blobsFolder))
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(name); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("there is no folder %s with stored pictures and results; name the folder that the gateways use"+
			" with --data or REFERSAM_DATA, or their bucket in REFERSAM_BLOBS_URL", name)
	}
	return Open(ctx, cfg, data)
}

// Local reports whether only this machine can read the objects.
func (b *Bucket) Local() bool { return b.local }

// Close closes the bucket.
func (b *Bucket) Close() error { return b.backend.close() }

// NewName returns a name that no object has or will have again. The part before
// the slash spreads files over 1024 folders.
func NewName() string {
	name := strings.ToLower(rand.Text())
	return name[:2] + "/" + name
}

// ownName matches the names of NewName, and the temporary files that Put writes.
var ownName = regexp.MustCompile(`^[a-z2-7]{2}/[a-z2-7]{26}(\.[0-9a-f]+\.tmp)?$`)

// Put stores content under a name.
func (b *Bucket) Put(ctx context.Context, name string, content []byte) error {
	if err := b.backend.put(ctx, name, content); err != nil {
		return fmt.Errorf("write the object %s: %w", name, err)
	}
	return nil
}

// Size returns the size of an object in bytes, or ErrNotFound.
func (b *Bucket) Size(ctx context.Context, name string) (int64, error) {
	return b.backend.size(ctx, name)
}

// Get returns an object, or ErrNotFound. An object of more than most bytes is an
// error.
func (b *Bucket) Get(ctx context.Context, name string, most int64) (content []byte, err error) {
	r, size, err := b.backend.get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var read bytes.Buffer
	// size is only a claim of the server, so it bounds the first allocation and
	// nothing else.
	read.Grow(int(max(0, min(size, most))) + bytes.MinRead)
	if _, err := io.Copy(&read, io.LimitReader(r, most+1)); err != nil {
		return nil, fmt.Errorf("read the object %s: %w", name, err)
	}
	if int64(read.Len()) > most {
		return nil, fmt.Errorf("the object %s has more than %d bytes", name, most)
	}
	return read.Bytes(), nil
}

// Delete deletes an object. Without such an object it does nothing.
func (b *Bucket) Delete(ctx context.Context, name string) error { return b.backend.remove(ctx, name) }

// Walk calls f with each object that Put has written or begun to write, in any
// order, and ends with f's first error. It may miss objects that are written or
// deleted meanwhile. It skips files and objects with names of another form,
// because the bucket may hold other data too.
func (b *Bucket) Walk(ctx context.Context, f func(name string, modified time.Time) error) error {
	return b.backend.walk(ctx, func(name string, modified time.Time) error {
		if !ownName.MatchString(name) {
			return nil
		}
		return f(name, modified)
	})
}
