package gateway

import (
	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/pipeline"
)

type modelList struct {
	Models  []model  `json:"models"`
	Formats []string `json:"formats"`
	Limits  limits   `json:"limits"`
}

// limits are what the service takes, whichever model answers.
type limits struct {
	MaxImageBytes    int64 `json:"max_image_bytes"`
	MaxImagePixels   int   `json:"max_image_pixels"`
	MaxImageSide     int   `json:"max_image_side"`
	MaxImageFrames   int   `json:"max_image_frames"`
	MaxPhrases       int   `json:"max_phrases"`
	MaxPhraseBytes   int   `json:"max_phrase_bytes"`
	MaxMaskPixels    int   `json:"max_mask_pixels"`
	MaxBatchItems    int   `json:"max_batch_items"`
	MaxBatchBytes    int   `json:"max_batch_bytes"`
	RequestTimeoutMS int64 `json:"request_timeout_ms"`
}

// model describes a variant as its ensemble describes itself.
type model struct {
	Name    string `json:"name"`
	Variant string `json:"variant"`
	Version string `json:"version"`
	// Label is "demo" for weights that are not meant for photographs.
	Label string `json:"label,omitempty"`
	// Weight is the part of the units that gets this variant, in [0, 1].
	Weight     float64 `json:"weight"`
	ImageSize  int     `json:"image_size"`
	Tokenizer  string  `json:"tokenizer"`
	MaxTokens  int     `json:"max_tokens"`
	Threshold  float64 `json:"threshold"`
	Precision  string  `json:"precision"`
	Checkpoint string  `json:"checkpoint"`
}

// models answers GET /v1/models.
func (g *Gateway) models(c *gin.Context) error {
	if err := g.segmenter.Ready(); err != nil {
		return err
	}
	most := g.segmenter.Limits()
	list := modelList{Formats: api.Formats, Limits: limits{
		most.MaxImageBytes, most.MaxImagePixels, most.MaxImageSide, most.MaxImageFrames, most.MaxPhrases, most.MaxPhraseBytes, most.MaxMaskPixels, maxItems, maxBatchBody, g.cfg.Answers.RequestTimeout.Milliseconds(),
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

func newModel(v *pipeline.Variant) model {
	return model{
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
