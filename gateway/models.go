package gateway

import (
	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/pipeline"
)

// models answers GET /v1/models.
func (g *Gateway) models(c *gin.Context) error {
	if err := g.segmenter.Ready(); err != nil {
		return err
	}
	most := g.segmenter.Limits()
	list := api.Models{Formats: api.Formats, Limits: api.Limits{
		MaxImageBytes: most.MaxImageBytes, MaxImagePixels: most.MaxImagePixels, MaxImageSide: most.MaxImageSide, MaxImageFrames: most.MaxImageFrames,
		MaxPhrases: most.MaxPhrases, MaxPhraseBytes: most.MaxPhraseBytes, MaxMaskPixels: most.MaxMaskPixels,
		MaxBatchItems: api.MaxItems, MaxBatchBytes: api.MaxBatchBytes, RequestTimeoutMS: g.cfg.Answers.RequestTimeout.Milliseconds(),
	}}
	for _, v := range g.segmenter.Variants() {
		list.Models = append(list.Models, newModel(&v))
	}
	return writeJSON(c, list)
}

// model answers GET /v1/models/{name}.
func (g *Gateway) model(c *gin.Context) error {
	if err := g.segmenter.Ready(); err != nil {
		return err
	}
	for _, v := range g.segmenter.Variants() {
		if name := c.Param("name"); name == v.Model || name == v.Variant {
			return writeJSON(c, newModel(&v))
		}
	}
	return refersam.Errorf(refersam.CodeNotFound, "There is no such model; /v1/models lists all.")
}

func newModel(v *pipeline.Variant) api.Model {
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
