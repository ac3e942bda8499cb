package openapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

func (d *description) describeImages() {
	no := false
	form := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: false, Properties: pictureFields(false)}
	exactlyOne(form)
	d.addGuarded(http.MethodPost, "/v1/images", "images", "uploadImage", "Store a picture", &huma.Operation{
		Description: "The id contains the SHA-256 of the bytes, so the same picture has the same id. Sending it again extends its lifetime. " +
			"It belongs to the API key that sent it.",
		Parameters: []*huma.Param{requestIDParam(), idempotencyKeyParam()},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			api.MediaJSON:  d.request(api.Upload{}, map[string]any{"image": map[string]any{"data": examplePNG}}),
			api.MediaForm:  {Schema: form, Encoding: map[string]*huma.Encoding{api.FieldImageURL: {ContentType: api.MediaText, Explode: &no}}},
			"image/*":      binaryMedia(),
			api.MediaBytes: binaryMedia(),
		}},
	},
		d.json(api.Image{}, "The image was already stored for this key; its lifetime is extended", exampleImage()),
		answered{http.StatusCreated, "The image", map[string]*huma.MediaType{api.MediaJSON: d.media(api.Image{}, exampleImage())},
			map[string]*huma.Param{"Location": header("The path of the image", huma.TypeString)}},
		refusesPictures(),
		refusesAgain(),
		refuses(refersam.CodeStorageFull, refersam.CodeFetchRefused, refersam.CodeFetchFailed),
	)
	d.addGuarded(http.MethodGet, "/v1/images", "images", "listImages", "List the images of the API key", &huma.Operation{
		Description: "Newest first.",
		Parameters:  []*huma.Param{limitParam(), cursorParam(api.ListImages, exampleImage().CreatedAt, exampleImage().ID)},
	}, d.json(api.Images{}, "A page of images", api.Images{Images: []api.Image{exampleImage()}}))
	d.addGuarded(http.MethodGet, "/v1/images/{id}", "images", "getImage", "Describe an image", &huma.Operation{
		Description: "The id contains the SHA-256 of the bytes, so a client may ask first and send the picture only if it is not stored yet.",
		Parameters:  []*huma.Param{imageIDParam()},
	}, d.json(api.Image{}, "The image", exampleImage()), refuses(refersam.CodeImageNotFound))
	d.addGuarded(http.MethodGet, "/v1/images/{id}/content", "images", "getImageContent", "Get the bytes of an image, as they were sent", &huma.Operation{
		Parameters: []*huma.Param{imageIDParam(), ifNoneMatchParam()},
	},
		answered{http.StatusOK, "The bytes", map[string]*huma.MediaType{"*/*": binaryMedia()}, map[string]*huma.Param{"ETag": header("The SHA-256 of the bytes", huma.TypeString)}},
		answered{http.StatusNotModified, "The client has the image already, according to its If-None-Match", nil, nil},
		refuses(refersam.CodeImageNotFound, refersam.CodeImageTooLarge, refersam.CodeOverloaded),
	)
	d.addGuarded(http.MethodDelete, "/v1/images/{id}", "images", "deleteImage", "Delete an image", &huma.Operation{
		Parameters: []*huma.Param{imageIDParam()},
	}, answered{http.StatusNoContent, "The image is deleted", nil, nil}, refuses(refersam.CodeImageNotFound))
}

func exampleImage() api.Image {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	return api.Image{
		ID: "img_" + strings.Repeat("0123456789abcdef", 4), Width: 640, Height: 480, MediaType: api.MediaJPEG, Bytes: 81234,
		CreatedAt: at, ExpiresAt: at.Add(24 * time.Hour),
	}
}

func imageIDParam() *huma.Param {
	return &huma.Param{
		Name: "id", In: "path", Required: true, Description: "The id of the image",
		Schema: &huma.Schema{Type: huma.TypeString}, Example: exampleImage().ID,
	}
}

func idempotencyKeyParam() *huma.Param {
	return &huma.Param{
		Name: api.HeaderIdempotencyKey, In: "header", Example: "5f1c9e0a-7d0b-4c3e-9a51-2f4f0f6f8f11",
		Description: "A name for the request: for 24 hours, the same request with the same name gets the first answer again",
		Schema:      &huma.Schema{Type: huma.TypeString, Pattern: `^([\x21\x23-\x7e]{1,255}|"[\x21\x23-\x7e]{1,255}")$`}, // idempotencyForm, also in quotes
	}
}

func limitParam() *huma.Param {
	low, high := 1.0, float64(api.MaxPage)
	return &huma.Param{
		Name: "limit", In: "query", Description: "The maximum of entries; the default is 20", Example: api.DefaultPage,
		Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: &low, Maximum: &high},
	}
}

func cursorParam(list string, created time.Time, id string) *huma.Param {
	return queryParam("cursor", "The `next` of the previous page; without it the first page", api.Cursor(list, created, id))
}
