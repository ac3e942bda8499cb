package gateway

import (
	"github.com/gin-gonic/gin"
)

type modelList struct {
	Models  []model  `json:"models"`
	Formats []string `json:"formats"`
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
	list := modelList{Formats: Formats}
	for _, v := range g.segmenter.Variants() {
		list.Models = append(list.Models, model{
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
		})
	}
	return writeJSON(c, list)
}
