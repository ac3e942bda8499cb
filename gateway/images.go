package gateway

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
	"github.com/refersam/refersam/gateway/reply"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/store"
)

func newImage(i *store.Image) api.Image {
	return api.Image{ID: i.ID, Width: i.Width, Height: i.Height, MediaType: i.MediaType, Bytes: i.Bytes, CreatedAt: i.Created, ExpiresAt: i.Expires}
}

// imageRoutes are the routes for stored pictures.
type imageRoutes struct {
	images  *images.Keeper
	answers *answer.Service
	bodies  *bodies
	timeout time.Duration
}

// upload answers POST /v1/images: 201 with the image, or 200 if the key already has
// it. Then its lifetime is extended.
func (h *imageRoutes) upload(c *gin.Context) error {
	reading := beginSpan(c, "read")
	defer reading.End()
	lease, release, err := h.bodies.reserve(c, h.bodies.pictureLimit)
	if err != nil {
		return err
	}
	defer release()
	from, err := intake.ParseUpload(c.Writer, c.Request, h.bodies.maxImage)
	if err != nil {
		return err
	}
	reading.End()
	ctx, cancel := context.WithTimeout(c.Request.Context(), h.timeout)
	defer cancel()
	if from.Data == nil {
		dropBody(c, lease)
	}
	who := caller(c)
	image, created, err := h.answers.Keep(ctx, who, &from, lease)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
		c.Header("Location", "/v1/images/"+image.ID)
	}
	c.Header("Cache-Control", "no-store")
	return writeStatusJSON(c, status, newImage(image))
}

// list answers GET /v1/images with the images of the client's key, newest first.
func (h *imageRoutes) list(c *gin.Context) error {
	at, err := parsePage(c, api.ListImages)
	if err != nil {
		return err
	}
	var before *store.Image
	if at.id != "" {
		before = &store.Image{ID: at.id, Created: at.created}
	}
	listed, err := h.images.List(c.Request.Context(), account(c), before, at.limit+1)
	if err != nil {
		return err
	}
	list := api.Images{Images: []api.Image{}}
	for i, image := range listed {
		if i == at.limit {
			last := listed[i-1]
			list.Next = api.Cursor(api.ListImages, last.Created, last.ID)
			break
		}
		list.Images = append(list.Images, newImage(image))
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, list)
}

// get answers GET /v1/images/{id}.
func (h *imageRoutes) get(c *gin.Context) error {
	image, err := h.images.Find(c.Request.Context(), account(c), c.Param("id"))
	if err != nil {
		return err
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, newImage(image))
}

// content answers GET /v1/images/{id}/content with the bytes as they were
// sent.
func (h *imageRoutes) content(c *gin.Context) error {
	ctx := c.Request.Context()
	image, err := h.images.Find(ctx, account(c), c.Param("id"))
	if err != nil {
		return err
	}
	tag := `"` + strings.TrimPrefix(image.ID, "img_") + `"`
	c.Header("ETag", tag)
	c.Header("Cache-Control", "private, no-cache")
	if reply.HasStored(c.Request.Header, tag) {
		c.Status(http.StatusNotModified)
		return nil
	}
	lease := h.answers.Lease(fairnessKey(c))
	defer lease.Close()
	content, err := h.images.Content(ctx, image, lease.Take)
	if err != nil {
		return err
	}
	reply.WriteBody(c.Writer, image.MediaType, content)
	return nil
}

// delete answers DELETE /v1/images/{id}.
func (h *imageRoutes) delete(c *gin.Context) error {
	if err := h.images.Delete(c.Request.Context(), account(c), c.Param("id")); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}
