package gateway

import (
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/experiment"
)

// modelRoutes are the routes for the variants.
type modelRoutes struct {
	segmenter Segmenter
	timeout   time.Duration
}

// list answers GET /v1/models.
func (h *modelRoutes) list(c *gin.Context) error {
	if err := h.segmenter.Ready(); err != nil {
		return err
	}
	most := h.segmenter.Limits()
	list := api.Models{Unusable: []api.UnusableModel{}, Formats: api.Formats, Limits: api.Limits{
		MaxImageBytes: most.MaxImageBytes, MaxImagePixels: most.MaxImagePixels, MaxImageSide: most.MaxImageSide, MaxImageFrames: most.MaxImageFrames,
		MaxPhrases: most.MaxPhrases, MaxPhraseBytes: most.MaxPhraseBytes, MaxMaskPixels: most.MaxMaskPixels,
		MaxBatchItems: api.MaxItems, MaxBatchBytes: api.MaxBatchBytes, RequestTimeoutMS: h.timeout.Milliseconds(),
	}}
	for _, v := range h.segmenter.Variants() {
		list.Models = append(list.Models, newModel(&v))
	}
	for _, v := range h.segmenter.Unusable() {
		list.Unusable = append(list.Unusable, api.UnusableModel{Name: v.Model, Variant: v.Variant, Weight: v.Share, Reason: api.Showable(v.Reason)})
	}
	return writeJSON(c, list)
}

// get answers GET /v1/models/{name}.
func (h *modelRoutes) get(c *gin.Context) error {
	if err := h.segmenter.Ready(); err != nil {
		return err
	}
	for _, v := range h.segmenter.Variants() {
		if name := c.Param("name"); name == v.Model || name == v.Variant {
			return writeJSON(c, newModel(&v))
		}
	}
	for _, v := range h.segmenter.Unusable() {
		if name := c.Param("name"); name == v.Model || name == v.Variant {
			return refersam.Errorf(refersam.CodeNotReady, "The variant %q cannot be used at the moment: %s.", v.Variant, v.Reason)
		}
	}
	return refersam.Errorf(refersam.CodeNotFound, "The model does not exist; /v1/models lists all models.")
}

func newModel(v *experiment.Variant) api.Model {
	return api.Model{
		Name:       v.Model,
		Variant:    v.Variant,
		Version:    v.Version,
		Label:      v.Label,
		Weight:     v.Share,
		ImageSize:  v.ImageSize,
		Tokenizer:  v.Tokenizer,
		MaxTokens:  v.MaxTokens,
		Threshold:  v.Threshold,
		Precision:  v.Precision,
		Checkpoint: v.Checkpoint,
	}
}
