// Package blobs keeps pictures and answers outside the database: as files in a
// folder, or as objects in a bucket that speaks S3, which several gateways may
// share.
//
// Whatever Put has returned without an error is durable and whole. Every method
// may be called again after an error, and is safe for concurrent use.
package blobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob" // the scheme s3
	"gocloud.dev/gcerrors"
)

// ErrNotFound says that there is no such object.
var ErrNotFound = errors.New("no such object")

// Config says where objects are kept.
type Config struct {
	// URL is a bucket, as s3://name?region=eu-central-1, with endpoint=https://…
	// for what is not AWS and prefix=… for a part of it; credentials come from
	// the AWS variables and files. Default none: the folder blobs in
	// REFERSAM_DATA.
	URL string `env:"REFERSAM_BLOBS_URL"`
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	if c.URL == "" {
		return nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return errors.New("REFERSAM_BLOBS_URL is not of the form s3://bucket?region=…")
	}
	if u.User != nil {
		return errors.New("REFERSAM_BLOBS_URL must not hold credentials; give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	return nil
}

// Bucket is an open bucket. Make one with Open, end it with Close.
type Bucket struct {
	bucket *blob.Bucket
	folder string // "" for S3
}

// Open opens the bucket, or the folder blobs in data, which it makes if there is
// none.
func Open(ctx context.Context, cfg Config, data string) (*Bucket, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.URL != "" {
		bucket, err := blob.OpenBucket(ctx, cfg.URL)
		if err != nil {
			return nil, fmt.Errorf("REFERSAM_BLOBS_URL: %w", err)
		}
		return &Bucket{bucket: bucket}, nil
	}
	folder := filepath.Join(data, "blobs")
	bucket, err := fileblob.OpenBucket(folder, &fileblob.Options{
		CreateDir:   true,
		DirFileMode: 0o700,
		NoTempDir:   true, // a file is renamed to its name, which must not cross file systems
		Metadata:    fileblob.MetadataDontWrite,
	})
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_DATA, the folder where objects are kept: %w", err)
	}
	return &Bucket{bucket, folder}, nil
}

// Local reports whether only this machine sees what is kept.
func (b *Bucket) Local() bool { return b.folder != "" }

// Close closes the bucket.
func (b *Bucket) Close() error { return b.bucket.Close() }

// NewName returns a name that no object has or will have again. Files are
// spread over folders by its beginning.
func NewName() string {
	name := strings.ToLower(rand.Text())
	return name[:2] + "/" + name
}

// Put keeps content under a name.
func (b *Bucket) Put(ctx context.Context, name string, content []byte) error {
	err := b.bucket.WriteAll(ctx, name, content, &blob.WriterOptions{ContentType: "application/octet-stream"})
	if err != nil || b.folder == "" {
		return err
	}
	file := filepath.Join(b.folder, filepath.FromSlash(name))
	return errors.Join(syncPath(file), syncPath(filepath.Dir(file)), syncPath(b.folder))
}

// syncPath puts a file, or the names in a folder, on the disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get returns an object of at most the given number of bytes, or ErrNotFound.
func (b *Bucket) Get(ctx context.Context, name string, most int64) (content []byte, err error) {
	r, err := b.bucket.NewReader(ctx, name, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.Size() > most {
		return nil, fmt.Errorf("the object %s has %d bytes, more than %d", name, r.Size(), most)
	}
	content = make([]byte, r.Size())
	_, err = io.ReadFull(r, content)
	return content, err
}

// Delete deletes an object; that there is none is no error.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	err := b.bucket.Delete(ctx, name)
	if gcerrors.Code(err) == gcerrors.NotFound || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Walk calls f with each object, in any order, and ends with its first error.
// Objects that come or go meanwhile may be missed.
func (b *Bucket) Walk(ctx context.Context, f func(name string, modified time.Time) error) error {
	objects := b.bucket.List(nil)
	for {
		o, err := objects.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(o.Key, o.ModTime); err != nil {
			return err
		}
	}
}
