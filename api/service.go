package api

// Models is the body of GET /v1/models.
type Models struct {
	_        struct{}        `doc:"The loaded variants."`
	Models   []Model         `json:"models" doc:"One entry per variant"`
	Unusable []UnusableModel `json:"unusable" doc:"The configured variants that cannot be used"`
	Formats  []string        `json:"formats" maxItems:"32" enum:"coco_rle,rle,polygon,png,png8,probability,overlay" doc:"The formats of masks that a request may ask for"`
	Limits   Limits          `json:"limits" doc:"The service's limits for all models"`
}

// Limits are the service's limits for all models.
type Limits struct {
	_                struct{} `doc:"The service's limits."`
	MaxImageBytes    int64    `json:"max_image_bytes" doc:"Bytes of an encoded picture"`
	MaxImagePixels   int      `json:"max_image_pixels" doc:"A picture's width times its height"`
	MaxImageSide     int      `json:"max_image_side" doc:"A picture's width, and its height, in pixels"`
	MaxImageFrames   int      `json:"max_image_frames" doc:"Pictures in one file; only the first is read"`
	MaxPhrases       int      `json:"max_phrases" doc:"Phrases per picture"`
	MaxPhraseBytes   int      `json:"max_phrase_bytes" doc:"Bytes of one phrase, in UTF-8"`
	MaxMaskPixels    int      `json:"max_mask_pixels" doc:"The pixels of a picture times its phrases"`
	MaxBatchItems    int      `json:"max_batch_items" doc:"Pictures of one batch"`
	MaxBatchBytes    int      `json:"max_batch_bytes" doc:"Bytes of the whole request of a batch"`
	RequestTimeoutMS int64    `json:"request_timeout_ms" doc:"How long a request may take, in milliseconds"`
}

// Model describes a variant, with the metadata of its ensemble.
type Model struct {
	_          struct{} `doc:"The description of a model."`
	Name       string   `json:"name" doc:"The name of the model"`
	Variant    string   `json:"variant" minLength:"1" doc:"The short name; a request may ask for it"`
	Version    string   `json:"version" doc:"The version of the model"`
	Label      string   `json:"label,omitempty" doc:"What the weights know: 'photo' for 80 kinds of things in photographs, 'demo' for drawn scenes of emoji; an export may give another"`
	Weight     float64  `json:"weight" minimum:"0" maximum:"1" doc:"The part of the units that gets this variant"`
	ImageSize  int      `json:"image_size" doc:"The side of the square that pictures are scaled to, in pixels"`
	Tokenizer  string   `json:"tokenizer" doc:"How phrases become tokens"`
	MaxTokens  int      `json:"max_tokens" doc:"How many tokens of a phrase the model reads"`
	Threshold  float64  `json:"threshold" exclusiveMinimum:"0" exclusiveMaximum:"1" doc:"A pixel is foreground if its probability is at least this"`
	Precision  string   `json:"precision" doc:"The precision of the model's arithmetic"`
	Checkpoint string   `json:"checkpoint" doc:"The SHA-256 of the model's weights"`
}

// UnusableModel describes a configured variant that cannot be used.
type UnusableModel struct {
	_       struct{} `doc:"A configured variant that cannot be used."`
	Name    string   `json:"name" doc:"The name of the model"`
	Variant string   `json:"variant" minLength:"1" doc:"The short name of the variant"`
	Weight  float64  `json:"weight" minimum:"0" maximum:"1" doc:"The part of the units that gets this variant, and so no answer"`
	Reason  string   `json:"reason" doc:"Which stage is broken, and why"`
}

// Usage is the body of GET /v1/usage.
type Usage struct {
	_     struct{}   `doc:"The usage of API keys."`
	From  string     `json:"from" doc:"The first day"`
	To    string     `json:"to" doc:"The last day"`
	Usage []UsageDay `json:"usage" doc:"One entry per day and key"`
}

// UsageDay is the usage of one key on one day.
type UsageDay struct {
	_        struct{} `doc:"The usage of a key on one day."`
	Day      string   `json:"day" doc:"The day, in UTC"`
	Key      string   `json:"key" doc:"The id of the key; 'anonymous' without authentication"`
	Requests int64    `json:"requests" doc:"Requests that were answered with masks or a job; a batch is one"`
	Pictures int64    `json:"pictures" doc:"Pictures that masks were made for"`
	GPUMS    float64  `json:"gpu_ms" doc:"How long model servers were busy with the pictures, in milliseconds"`
}

// Build is the body of GET /version.
type Build struct {
	_        struct{} `doc:"The build of the program."`
	Version  string   `json:"version" doc:"The version of the module"`
	Revision string   `json:"revision,omitempty" doc:"The commit, if known"`
	Modified bool     `json:"modified" doc:"Whether the checkout differed from the commit"`
	Go       string   `json:"go" doc:"The version of the compiler"`
}
