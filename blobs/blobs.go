// Package blobs keeps pictures and answers outside the database: as files in a
// folder, or as objects in a bucket that speaks S3, which several gateways may
// share.
//
// Whatever Put has returned without an error is durable and whole. Every method
// may be called again after an error, and is safe for concurrent use.
package blobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
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
	URL URL `env:"REFERSAM_BLOBS_URL"`
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	if c.URL == "" {
		return nil
	}
	u, err := url.Parse(string(c.URL))
	if err != nil || u.Scheme != "s3" || u.Host == "" {
		return fmt.Errorf("REFERSAM_BLOBS_URL is %q, allowed: s3://bucket?region=…", c.URL.String())
	}
	endpoint, err := url.Parse(u.Query().Get("endpoint"))
	if err != nil {
		return fmt.Errorf("REFERSAM_BLOBS_URL is %q: its endpoint is not a URL, allowed: https://host", c.URL.String())
	}
	if u.User != nil || endpoint.User != nil {
		return errors.New("REFERSAM_BLOBS_URL must not hold credentials; give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	return nil
}

// URL is the address of a bucket.
type URL string

// String returns the address as it may be shown, also one that is refused
// because it holds credentials.
func (u URL) String() string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return "(not a URL)"
	}
	query := parsed.Query()
	if endpoint, err := url.Parse(query.Get("endpoint")); err != nil || endpoint.User != nil {
		query.Set("endpoint", "xxxxx")
		parsed.RawQuery = query.Encode()
	}
	if parsed.User != nil {
		parsed.User = url.User("xxxxx")
	}
	return parsed.String()
}

// Bucket is an open bucket. Make one with Open, end it with Close.
type Bucket struct {
	bucket *blob.Bucket
	folder string // "" for S3
}

// blobsFolder is where objects are in the folder of the state.
const blobsFolder = "blobs"

// openTimeout bounds the first look at a bucket.
const openTimeout = 10 * time.Second

// Open opens the bucket, which must be there, or the folder blobs in data, which
// it makes if there is none.
func Open(ctx context.Context, cfg Config, data string) (*Bucket, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.URL != "" {
		return openS3(ctx, string(cfg.URL))
	}
	folder := filepath.Join(data, blobsFolder)
	bucket, err := fileblob.OpenBucket(folder, &fileblob.Options{
		CreateDir:   true,
		DirFileMode: 0o700,
		NoTempDir:   true, // a file is renamed to its name, which must not cross file systems
		Metadata:    fileblob.MetadataDontWrite,
	})
	if err == nil {
		err = syncPath(data)
	}
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_DATA, the folder where objects are kept: %w", err)
	}
	return &Bucket{bucket, folder}, nil
}

// OpenExisting is Open for commands that work on the state of a service. A
// folder data without a folder blobs is an error and stays as it is, because its
// name may be mistyped.
func OpenExisting(ctx context.Context, cfg Config, data string) (*Bucket, error) {
	if cfg.URL != "" {
		return Open(ctx, cfg, data)
	}
	folder, err := filepath.Abs(filepath.Join(data, blobsFolder))
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("there is no folder %s, where pictures and answers are kept; name the folder that the gateways have"+
			" with --data or REFERSAM_DATA, or their bucket in REFERSAM_BLOBS_URL", folder)
	}
	return Open(ctx, cfg, data)
}

func openS3(ctx context.Context, address string) (*Bucket, error) {
	bucket, err := blob.OpenBucket(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_BLOBS_URL: %w", err)
	}
	// In a bucket that is not there, every object would be one that is gone.
	look, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	there, err := bucket.IsAccessible(look)
	if err == nil && !there {
		err = errors.New("there is no such bucket")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("REFERSAM_BLOBS_URL: %w", err), bucket.Close())
	}
	return &Bucket{bucket: bucket}, nil
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

// ownName matches what NewName returns, and the files that Put writes before
// they have their names.
var ownName = regexp.MustCompile(`^[a-z2-7]{2}/[a-z2-7]{26}(\.[0-9a-f]+\.tmp)?$`)

// Put keeps content under a name.
func (b *Bucket) Put(ctx context.Context, name string, content []byte) error {
	// WriteAll compares a sum at the end, so that what could not be written to
	// its end never gets its name.
	err := b.bucket.WriteAll(ctx, name, content, &blob.WriterOptions{
		ContentType:    "application/octet-stream",
		MaxConcurrency: 1, // each part of a large object is copied
	})
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

// Size returns how many bytes an object has, or ErrNotFound.
func (b *Bucket) Size(ctx context.Context, name string) (int64, error) {
	found, err := b.bucket.Attributes(ctx, name)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return 0, ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return found.Size, nil
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
	var read bytes.Buffer
	// The size is what a server says of it, and 0 if it says nothing.
	read.Grow(int(min(r.Size(), most)) + bytes.MinRead)
	if _, err := io.Copy(&read, io.LimitReader(r, most+1)); err != nil {
		return nil, fmt.Errorf("read the object %s: %w", name, err)
	}
	if int64(read.Len()) > most {
		return nil, fmt.Errorf("the object %s has more than %d bytes", name, most)
	}
	return read.Bytes(), nil
}

// Delete deletes an object; that there is none is no error.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	err := b.bucket.Delete(ctx, name)
	if gcerrors.Code(err) == gcerrors.NotFound || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Walk calls f with each object that Put has written or begun to write, in any
// order, and ends with its first error. Objects that come or go meanwhile may be
// missed, and what others keep in the same bucket is passed by.
func (b *Bucket) Walk(ctx context.Context, f func(name string, modified time.Time) error) error {
	if b.folder != "" {
		return b.walkFolder(ctx, f)
	}
	objects := b.bucket.List(nil)
	for {
		o, err := objects.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !ownName.MatchString(o.Key) {
			continue
		}
		if err := f(o.Key, o.ModTime); err != nil {
			return err
		}
	}
}

// walkFolder is Walk for a folder, of which fileblob makes a list by reading all
// of it for each page, and gives up when a file goes meanwhile.
func (b *Bucket) walkFolder(ctx context.Context, f func(name string, modified time.Time) error) error {
	return fs.WalkDir(os.DirFS(b.folder), ".", func(name string, entry fs.DirEntry, err error) error {
		if err := errors.Join(ctx.Err(), ignoreGone(err)); err != nil || entry == nil || !ownName.MatchString(name) {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreGone(err)
		}
		return f(name, info.ModTime())
	})
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
