package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/store"
)

// Images keeps what is known of the pictures that clients have sent;
// *store.Store is one.
type Images interface {
	ReserveBlob(ctx context.Context, b store.Blob, quota int64, now time.Time) error
	ForgetBlob(ctx context.Context, name string) (forgotten bool, err error)
	Stored(ctx context.Context, apiKey string) (bytes int64, err error)
	AddImage(ctx context.Context, i store.Image, lost string) (*store.Image, error)
	RenewImage(ctx context.Context, apiKey, id string, expires, now time.Time) (*store.Image, error)
	Image(ctx context.Context, apiKey, id string, now time.Time) (*store.Image, error)
	Images(ctx context.Context, apiKey string, before *store.Image, limit int, now time.Time) ([]*store.Image, error)
	DeleteImage(ctx context.Context, apiKey, id string, now time.Time) error
}

// Blobs keeps bytes outside the database; *blobs.Bucket is one.
type Blobs interface {
	Put(ctx context.Context, name string, content []byte) error
	// Size and Get return blobs.ErrNotFound when there is no such object.
	Size(ctx context.Context, name string) (int64, error)
	Get(ctx context.Context, name string, most int64) ([]byte, error)
	Delete(ctx context.Context, name string) error
	Walk(ctx context.Context, f func(name string, modified time.Time) error) error
}

// imagePrefix comes before the SHA-256 of an image's bytes in its id.
const imagePrefix = "img_"

// digestOf returns the digest that is in an image's id, and whether it is one.
func digestOf(id string) (digest [sha256.Size]byte, ok bool) {
	text, ok := strings.CutPrefix(id, imagePrefix)
	if !ok || text != strings.ToLower(text) {
		return digest, false
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(digest) {
		return digest, false
	}
	return [sha256.Size]byte(raw), true
}

// imageAnswer describes an image that was sent.
type imageAnswer struct {
	ID        string    `json:"id"`
	Width     int       `json:"width"`
	Height    int       `json:"height"`
	MediaType string    `json:"media_type"`
	Bytes     int64     `json:"bytes"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

func newImageAnswer(i *store.Image) imageAnswer {
	return imageAnswer{i.ID, i.Width, i.Height, i.MediaType, i.Bytes, i.Created, i.Expires}
}

type imageList struct {
	Images []imageAnswer `json:"images"`
	// Next is the cursor of the next page; empty on the last one.
	Next string `json:"next,omitempty"`
}

// uploadBody is the JSON form of a picture that is sent to be kept.
type uploadBody struct {
	Image *pictureBody `json:"image"`
}

// uploadImage answers POST /v1/images: 201 with the image, or 200 if the key
// has it already, which makes it last longer.
func (g *Gateway) uploadImage(c *gin.Context) error {
	held, release, err := g.reserveBody(c, g.pictureLimit)
	if err != nil {
		return err
	}
	defer release()
	from, err := parseUpload(c.Writer, c.Request, g.maxImage)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), g.cfg.RequestTimeout)
	defer cancel()
	if from.data == nil {
		g.dropBody(c, held)
	}
	pic, err := g.picture(ctx, g.asker(c), &from, held)
	if err != nil {
		return err
	}
	image, created, err := g.keepImage(ctx, consumer(c), &from, pic)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		c.Header("Location", "/v1/images/"+image.ID)
	}
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, status, newImageAnswer(image))
}

// keepImage keeps a picture for a key, and reports whether the key had none
// like it.
func (g *Gateway) keepImage(ctx context.Context, key string, from *source, pic *picture) (image *store.Image, created bool, err error) {
	now := time.Now()
	id := imagePrefix + hex.EncodeToString(pic.digest[:])
	var lost string
	image, err = g.state.RenewImage(ctx, key, id, now.Add(g.cfg.ImageTTL), now)
	switch {
	case err == nil:
		size, err := g.blobs.Size(ctx, image.Blob)
		if err != nil && !errors.Is(err, blobs.ErrNotFound) {
			return nil, false, storageAway(err)
		}
		if err == nil && size == image.Bytes {
			return image, false, nil
		}
		lost = image.Blob
	case !errors.Is(err, store.ErrNotFound):
		return nil, false, store.Unavailable(err)
	}
	header, err := g.segmenter.Inspect(ctx, pic.content)
	if err != nil {
		return nil, false, translate(err, func(string) string { return from.field })
	}
	blob, err := g.keepBlob(ctx, key, pic.content, now)
	if err != nil {
		return nil, false, err
	}
	image, err = g.state.AddImage(ctx, store.Image{
		APIKey: key, ID: id, Blob: blob, Width: header.Width, Height: header.Height, MediaType: header.MediaType,
		Bytes: int64(len(pic.content)), Created: now, Expires: now.Add(g.cfg.ImageTTL),
	}, lost)
	if err != nil {
		return nil, false, store.Unavailable(err) // what was written is garbage in an hour
	}
	return image, image.Blob == blob && lost == "", nil // else somebody has sent the same at this moment
}

// keepBlob writes an object that takes the storage of a key.
func (g *Gateway) keepBlob(ctx context.Context, key string, content []byte, now time.Time) (name string, err error) {
	name = blobs.NewName()
	err = g.state.ReserveBlob(ctx, store.Blob{Name: name, APIKey: key, Bytes: int64(len(content))}, g.cfg.StoragePerKey, now)
	if errors.Is(err, store.ErrQuota) {
		return "", g.storageFull(ctx, key, err)
	}
	if err != nil {
		return "", store.Unavailable(err)
	}
	if err := g.blobs.Put(ctx, name, content); err != nil {
		g.dropBlobs(ctx, []string{name}) // it may have been written all the same
		return "", storageAway(err)
	}
	return name, nil
}

// dropBlobs deletes objects unless something has begun to refer to them. Where
// that fails, a row that is left is garbage in an hour, and an object without a
// row a stray.
func (g *Gateway) dropBlobs(ctx context.Context, names []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	for _, name := range names {
		forgotten, err := g.state.ForgetBlob(ctx, name)
		if forgotten {
			err = g.blobs.Delete(ctx, name)
		}
		if err != nil {
			g.log.Warn("an object that nobody needs was not deleted yet", "object", name, "cause", err)
		}
	}
}

func (g *Gateway) storageFull(ctx context.Context, key string, cause error) error {
	stored, err := g.state.Stored(ctx, key)
	if err != nil {
		return store.Unavailable(err)
	}
	return &refersam.Error{
		Code: refersam.CodeStorageFull,
		Message: fmt.Sprintf("The API key keeps pictures and answers of %d bytes and may keep %d; delete some, or wait until some have expired. What was deleted counts until it is purged.",
			stored, g.cfg.StoragePerKey),
		RetryAfter: time.Minute,
		Err:        cause,
	}
}

func storageAway(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return store.Unavailable(err)
	}
	return &refersam.Error{Code: refersam.CodeUnavailable, Message: "The storage of the service is not available at the moment; try again soon.", Err: err}
}

// parseUpload reads a picture that is to be kept: from a form, from JSON, or
// the body as it is.
func parseUpload(w http.ResponseWriter, r *http.Request, maxImage int64) (source, error) {
	if err := identityEncoded(r); err != nil {
		return source{}, err
	}
	if r.URL.RawQuery != "" {
		return source{}, refersam.Errorf(refersam.CodeInvalidRequest, "There is no query here.")
	}
	kind := mediaType(r)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody(kind, maxImage))
	var (
		from source
		err  error
	)
	switch {
	case isPicture(kind):
		from.field = fieldImage
		from.data, err = readImage(r.Body, maxImage)
	case kind == mediaForm:
		from, err = parseUploadForm(r, maxImage)
	case kind == mediaJSON:
		var b uploadBody
		if err = readJSON(r.Body, &b); err == nil {
			from, err = b.Image.source("/image", maxImage)
		}
	default:
		err = refersam.Errorf(refersam.CodeUnsupportedMedia, "Send multipart/form-data, application/json, or a picture as image/*.")
	}
	if err != nil {
		return source{}, bodyError(err)
	}
	if from.id != "" {
		return source{}, invalid(from.field, "An image that has an id is kept already.")
	}
	return from, nil
}

func parseUploadForm(r *http.Request, maxImage int64) (from source, err error) {
	parts, err := r.MultipartReader()
	if err != nil {
		return from, err
	}
	f := newFields(fieldImage, fieldImageURL)
	if err := readParts(parts, func(part *multipart.Part) error {
		if name := part.FormName(); !slices.Contains(f.pictures, name) {
			f.wrong.Add(invalid(name, "There is no field %q; there are %s.", name, strings.Join(f.pictures, ", ")))
			return nil
		}
		return f.read(part, maxImage)
	}); err != nil {
		return from, err
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return from, err
	}
	if f.req.source.field == "" {
		f.wrong.Add(invalid(fieldImage, "The picture is missing: send it as the file %q, or say where it is in %q.", fieldImage, fieldImageURL))
	}
	return f.req.source, f.wrong.Err()
}

// images answers GET /v1/images: those of the client's key, the newest first.
func (g *Gateway) images(c *gin.Context) error {
	at, err := listOfImages.page(c)
	if err != nil {
		return err
	}
	var before *store.Image
	if at.id != "" {
		before = &store.Image{ID: at.id, Created: at.created}
	}
	found, err := g.state.Images(c.Request.Context(), consumer(c), before, at.limit+1, time.Now())
	if err != nil {
		return store.Unavailable(err)
	}
	list := imageList{Images: []imageAnswer{}}
	for i, image := range found {
		if i == at.limit {
			last := found[i-1]
			list.Next = listOfImages.cursor(last.Created, last.ID)
			break
		}
		list.Images = append(list.Images, newImageAnswer(image))
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, list)
}

// image answers GET /v1/images/{id}.
func (g *Gateway) image(c *gin.Context) error {
	image, err := g.findImage(c.Request.Context(), consumer(c), c.Param("id"))
	if err != nil {
		return err
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, newImageAnswer(image))
}

// imageContent answers GET /v1/images/{id}/content with the bytes as they were
// sent.
func (g *Gateway) imageContent(c *gin.Context) error {
	ctx := c.Request.Context()
	image, err := g.findImage(ctx, consumer(c), c.Param("id"))
	if err != nil {
		return err
	}
	tag := `"` + strings.TrimPrefix(image.ID, imagePrefix) + `"`
	c.Header("ETag", tag)
	c.Header("Cache-Control", "private, no-cache")
	if hasStored(c.Request.Header, tag) {
		c.Status(http.StatusNotModified)
		return nil
	}
	held, release := g.newHold(sharer(c))
	defer release()
	content, err := g.imageBytes(ctx, image, held)
	if err != nil {
		return err
	}
	writeBody(c.Writer, image.MediaType, content)
	return nil
}

// deleteImage answers DELETE /v1/images/{id}.
func (g *Gateway) deleteImage(c *gin.Context) error {
	if _, ok := digestOf(c.Param("id")); !ok {
		return imageNotFound(nil)
	}
	err := g.state.DeleteImage(c.Request.Context(), consumer(c), c.Param("id"), time.Now())
	if errors.Is(err, store.ErrNotFound) {
		return imageNotFound(nil)
	}
	if err != nil {
		return store.Unavailable(err)
	}
	c.Status(http.StatusNoContent)
	return nil
}

// findImage returns an image of a key.
func (g *Gateway) findImage(ctx context.Context, key, id string) (*store.Image, error) {
	if _, ok := digestOf(id); !ok {
		return nil, imageNotFound(nil)
	}
	image, err := g.state.Image(ctx, key, id, time.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, imageNotFound(nil)
	}
	if err != nil {
		return nil, store.Unavailable(err)
	}
	return image, nil
}

// imageBytes returns the bytes of an image, which it counts to held.
func (g *Gateway) imageBytes(ctx context.Context, image *store.Image, held *hold) ([]byte, error) {
	if image.Bytes > g.maxImage { // the bound was higher once
		return nil, tooLarge("", g.maxImage)
	}
	if err := held.take(ctx, min(image.Bytes, g.cfg.BodyMemory)); err != nil {
		return nil, err
	}
	content, err := g.blobs.Get(ctx, image.Blob, image.Bytes)
	if err == nil && int64(len(content)) < image.Bytes { // the id promises the bytes
		err = fmt.Errorf("it has %d bytes of %d: %w", len(content), image.Bytes, blobs.ErrNotFound)
	}
	if errors.Is(err, blobs.ErrNotFound) {
		// A database that was restored without its objects.
		g.log.Warn("the object of an image is gone", "image", image.ID, "object", image.Blob, "cause", err)
		return nil, imageNotFound(err)
	}
	if err != nil {
		return nil, storageAway(err)
	}
	return content, nil
}

func imageNotFound(cause error) error {
	return &refersam.Error{
		Code:    refersam.CodeImageNotFound,
		Message: "There is no image with this id, or it has expired; send it to /v1/images again.",
		Err:     cause,
	}
}
