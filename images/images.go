// Package images stores pictures that clients send once and ask about often,
// and other objects that count against a key's storage. A row in the database
// comes before its object in the object store and goes after it, so a crash
// leaves garbage that Purge and Sweep find, but never a row without its bytes.
package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
)

// State holds the rows of images and objects; *store.Store is one.
type State interface {
	Retention
	ReserveBlob(ctx context.Context, b store.Blob, quota int64, now time.Time) error
	ForgetBlob(ctx context.Context, name string) (forgotten bool, err error)
	Stored(ctx context.Context, apiKey string) (bytes int64, err error)
	AddImage(ctx context.Context, i store.Image, lost string) (*store.Image, error)
	RenewImage(ctx context.Context, apiKey, id string, expires, now time.Time) (*store.Image, error)
	Image(ctx context.Context, apiKey, id string, now time.Time) (*store.Image, error)
	Images(ctx context.Context, apiKey string, before *store.Image, limit int, now time.Time) ([]*store.Image, error)
	DeleteImage(ctx context.Context, apiKey, id string, now time.Time) error
}

// Bucket holds the bytes; *blobs.Bucket is one.
type Bucket interface {
	Put(ctx context.Context, name string, content []byte) error
	// Size and Get return blobs.ErrNotFound when there is no such object.
	Size(ctx context.Context, name string) (int64, error)
	Get(ctx context.Context, name string, most int64) ([]byte, error)
	Delete(ctx context.Context, name string) error
	Walk(ctx context.Context, f func(name string, modified time.Time) error) error
}

// Config sets how long images are kept and how much a key may store.
type Config struct {
	// TTL is how long a picture that was sent to /v1/images is kept after
	// it was last sent. Default 24h.
	TTL time.Duration `env:"REFERSAM_IMAGE_TTL"`
	// StoragePerKey is how many bytes of pictures and answers are kept for one
	// API key, or for all clients together without authentication. Default
	// 2147483648 (2 GiB).
	StoragePerKey int64 `env:"REFERSAM_STORAGE_PER_KEY_BYTES"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{TTL: 24 * time.Hour, StoragePerKey: 2 << 30} }

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	if c.TTL <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_IMAGE_TTL is %v, allowed: more than 0s", c.TTL))
	}
	if c.StoragePerKey < 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_STORAGE_PER_KEY_BYTES is %d, allowed: 0 or more", c.StoragePerKey))
	}
	return errors.Join(errs...)
}

// dropTimeout bounds deleting the objects of a request that failed. The request
// may be over by then.
const dropTimeout = 5 * time.Second

// Keeper stores images and objects for API keys. All methods are safe for
// concurrent use and return a *refersam.Error.
type Keeper struct {
	cfg       Config
	maxImage  int64
	state     State
	bucket    Bucket
	inspector Inspector
	log       *slog.Logger
}

// New makes a Keeper of pictures of at most maxImage bytes.
func New(cfg Config, maxImage int64, state State, bucket Bucket, inspector Inspector, log *slog.Logger) *Keeper {
	return &Keeper{cfg, maxImage, state, bucket, inspector, log}
}

// idPrefix comes before the SHA-256 of an image's bytes in its id.
const idPrefix = "img_"

// Digest returns the SHA-256 in the id of an image, and whether the id has the
// right form.
func Digest(id string) (digest [sha256.Size]byte, ok bool) {
	text, ok := strings.CutPrefix(id, idPrefix)
	if !ok || text != strings.ToLower(text) {
		return digest, false
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(digest) {
		return digest, false
	}
	return [sha256.Size]byte(raw), true
}

// Picture is an encoded picture: its bytes and their SHA-256.
type Picture struct {
	Content []byte
	Digest  [sha256.Size]byte
}

// Inspector reads the headers of encoded pictures; *preprocess.Decoder is one. Its
// errors are a *refersam.Error.
type Inspector interface {
	Header(content []byte) (preprocess.Header, error)
}

// Keep stores a picture for a key, and reports whether the key had none with
// the same bytes. If it had one, the image is kept for another TTL from now.
func (k *Keeper) Keep(ctx context.Context, key string, p Picture) (image *store.Image, created bool, err error) {
	now := time.Now()
	id := idPrefix + hex.EncodeToString(p.Digest[:])
	var lost string
	image, err = k.state.RenewImage(ctx, key, id, now.Add(k.cfg.TTL), now)
	switch {
	case err == nil:
		size, err := k.bucket.Size(ctx, image.Blob)
		if err != nil && !errors.Is(err, blobs.ErrNotFound) {
			return nil, false, blobs.Unavailable(err)
		}
		if err == nil && size == image.Bytes {
			return image, false, nil
		}
		lost = image.Blob
	case !errors.Is(err, store.ErrNotFound):
		return nil, false, store.Unavailable(err)
	}
	header, err := k.inspector.Header(p.Content)
	if err != nil {
		return nil, false, err
	}
	blob, err := k.PutObject(ctx, key, p.Content)
	if err != nil {
		return nil, false, err
	}
	image, err = k.state.AddImage(ctx, store.Image{
		APIKey: key, ID: id, Blob: blob, Width: header.Width, Height: header.Height, MediaType: header.MediaType,
		Bytes: int64(len(p.Content)), Created: now, Expires: now.Add(k.cfg.TTL),
	}, lost)
	if err != nil {
		return nil, false, store.Unavailable(err) // Purge deletes the object in an hour
	}
	return image, image.Blob == blob && lost == "", nil // else another request stored the same bytes just now
}

// Find returns an image of a key, or the error refersam.CodeImageNotFound.
func (k *Keeper) Find(ctx context.Context, key, id string) (*store.Image, error) {
	if _, ok := Digest(id); !ok {
		return nil, notFound(nil)
	}
	image, err := k.state.Image(ctx, key, id, time.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound(nil)
	}
	if err != nil {
		return nil, store.Unavailable(err)
	}
	return image, nil
}

// List returns at most limit images of a key that are older than before, or the
// newest if before is nil.
func (k *Keeper) List(ctx context.Context, key string, before *store.Image, limit int) ([]*store.Image, error) {
	list, err := k.state.Images(ctx, key, before, limit, time.Now())
	if err != nil {
		return nil, store.Unavailable(err)
	}
	return list, nil
}

// Delete deletes an image of a key. Its bytes count against the key's storage
// until the next purge.
func (k *Keeper) Delete(ctx context.Context, key, id string) error {
	if _, ok := Digest(id); !ok {
		return notFound(nil)
	}
	err := k.state.DeleteImage(ctx, key, id, time.Now())
	if errors.Is(err, store.ErrNotFound) {
		return notFound(nil)
	}
	if err != nil {
		return store.Unavailable(err)
	}
	return nil
}

// Content returns the bytes of an image. It calls reserve with their number
// before it reads them, and returns its error.
func (k *Keeper) Content(ctx context.Context, image *store.Image, reserve func(ctx context.Context, bytes int64) error) ([]byte, error) {
	if image.Bytes > k.maxImage { // kept while the service took larger pictures
		return nil, refersam.Errorf(refersam.CodeImageTooLarge, "The picture is larger than %d bytes.", k.maxImage)
	}
	if err := reserve(ctx, image.Bytes); err != nil {
		return nil, err
	}
	content, err := k.bucket.Get(ctx, image.Blob, image.Bytes)
	if err == nil && int64(len(content)) < image.Bytes { // the id promises the bytes
		err = fmt.Errorf("it has %d bytes of %d: %w", len(content), image.Bytes, blobs.ErrNotFound)
	}
	if errors.Is(err, blobs.ErrNotFound) {
		// As after a database was restored without its objects.
		k.log.Warn("the object of an image is missing", "image", image.ID, "object", image.Blob, "cause", err)
		return nil, notFound(err)
	}
	if err != nil {
		return nil, blobs.Unavailable(err)
	}
	return content, nil
}

// PutObject stores bytes that count against the storage of a key, and returns
// the name of the object. The error is refersam.CodeStorageFull when the key has
// no room for it.
func (k *Keeper) PutObject(ctx context.Context, key string, content []byte) (name string, err error) {
	name = blobs.NewName()
	err = k.state.ReserveBlob(ctx, store.Blob{Name: name, APIKey: key, Bytes: int64(len(content))}, k.cfg.StoragePerKey, time.Now())
	if errors.Is(err, store.ErrQuota) {
		return "", k.full(ctx, key, err)
	}
	if err != nil {
		return "", store.Unavailable(err)
	}
	if err := k.bucket.Put(ctx, name, content); err != nil {
		k.DropObjects(ctx, []string{name}) // the object may exist all the same
		return "", blobs.Unavailable(err)
	}
	return name, nil
}

// Object returns the content of an object of at most most bytes. The error is
// blobs.ErrNotFound or a *refersam.Error.
func (k *Keeper) Object(ctx context.Context, name string, most int64) ([]byte, error) {
	content, err := k.bucket.Get(ctx, name, most)
	if err != nil && !errors.Is(err, blobs.ErrNotFound) {
		err = blobs.Unavailable(err)
	}
	return content, err
}

// DropObjects deletes objects unless a row has begun to refer to them. It runs
// to its end even if ctx is done. When it fails, Purge or Sweep deletes the rest.
func (k *Keeper) DropObjects(ctx context.Context, names []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
	defer cancel()
	for _, name := range names {
		forgotten, err := k.state.ForgetBlob(ctx, name)
		if forgotten {
			err = k.bucket.Delete(ctx, name)
		}
		if err != nil {
			k.log.Warn("could not delete an object that nothing refers to; a purge will", "object", name, "cause", err)
		}
	}
}

func (k *Keeper) full(ctx context.Context, key string, cause error) error {
	stored, err := k.state.Stored(ctx, key)
	if err != nil {
		return store.Unavailable(err)
	}
	return &refersam.Error{
		Code: refersam.CodeStorageFull,
		Message: fmt.Sprintf("The API key stores %d bytes of pictures and answers and may store %d; delete some, or wait until some expire. Deleted bytes count until the next purge.",
			stored, k.cfg.StoragePerKey),
		Err: cause,
	}
}

func notFound(cause error) error {
	return &refersam.Error{
		Code:    refersam.CodeImageNotFound,
		Message: "There is no image with this id, or it has expired; send it to /v1/images again.",
		Err:     cause,
	}
}
