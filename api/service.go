package api

// Models is the body of GET /v1/models.
type Models struct {
	_        struct{}        `doc:"The variants that are loaded."`
	Models   []Model         `json:"models" doc:"One a variant"`
	Unusable []UnusableModel `json:"unusable" doc:"The variants that should be loaded and cannot be used"`
	Formats  []string        `json:"formats" maxItems:"32" enum:"coco_rle,rle,polygon,png,png8,probability,overlay" doc:"The formats of masks that may be asked for"`
	Limits   Limits          `json:"limits" doc:"What the service takes, whichever model answers"`
}

// Limits bound what the service takes, whichever model answers.
type Limits struct {
	_                struct{} `doc:"What the service takes."`
	MaxImageBytes    int64    `json:"max_image_bytes" doc:"Of an encoded picture"`
	MaxImagePixels   int      `json:"max_image_pixels" doc:"Of a picture's width times its height"`
	MaxImageSide     int      `json:"max_image_side" doc:"Of a picture's width and height, in pixels"`
	MaxImageFrames   int      `json:"max_image_frames" doc:"Pictures in one file, of which the first is read"`
	MaxPhrases       int      `json:"max_phrases" doc:"For one picture"`
	MaxPhraseBytes   int      `json:"max_phrase_bytes" doc:"Of one phrase, in UTF-8"`
	MaxMaskPixels    int      `json:"max_mask_pixels" doc:"Of the pixels of a picture times its phrases"`
	MaxBatchItems    int      `json:"max_batch_items" doc:"Pictures of one batch"`
	MaxBatchBytes    int      `json:"max_batch_bytes" doc:"Of the whole request of a batch"`
	RequestTimeoutMS int64    `json:"request_timeout_ms" doc:"How long a request may take, in milliseconds"`
}

// Model describes a variant as its ensemble describes itself.
type Model struct {
	_          struct{} `doc:"What a model says of itself."`
	Name       string   `json:"name" doc:"Its name"`
	Variant    string   `json:"variant" minLength:"1" doc:"Its short name, which a request may ask for"`
	Version    string   `json:"version" doc:"Its version"`
	Label      string   `json:"label,omitempty" doc:"'demo' for weights that are not meant for photographs"`
	Weight     float64  `json:"weight" minimum:"0" maximum:"1" doc:"The part of the units that gets this variant"`
	ImageSize  int      `json:"image_size" doc:"The side of the square that pictures are scaled to, in pixels"`
	Tokenizer  string   `json:"tokenizer" doc:"How phrases become tokens"`
	MaxTokens  int      `json:"max_tokens" doc:"How many tokens of a phrase are read"`
	Threshold  float64  `json:"threshold" exclusiveMinimum:"0" exclusiveMaximum:"1" doc:"The probability from which a pixel is foreground"`
	Precision  string   `json:"precision" doc:"That of its arithmetic"`
	Checkpoint string   `json:"checkpoint" doc:"The SHA-256 of its weights"`
}

// UnusableModel describes a variant that should be loaded and cannot be used.
type UnusableModel struct {
	_       struct{} `doc:"A variant that should be loaded and cannot be used."`
	Name    string   `json:"name" doc:"Its name"`
	Variant string   `json:"variant" minLength:"1" doc:"Its short name"`
	Weight  float64  `json:"weight" minimum:"0" maximum:"1" doc:"The part of the units that gets this variant, and no answer"`
	Reason  string   `json:"reason" doc:"Which stage is broken, and why"`
}

// Usage is the body of GET /v1/usage.
type Usage struct {
	_     struct{}   `doc:"What keys have used."`
	From  string     `json:"from" doc:"The first day"`
	To    string     `json:"to" doc:"The last day"`
	Usage []UsageDay `json:"usage" doc:"One entry a day and key"`
}

// UsageDay is what one key used on one day.
type UsageDay struct {
	_        struct{} `doc:"What a key has used on a day."`
	Day      string   `json:"day" doc:"The day, in UTC"`
	Key      string   `json:"key" doc:"The id of the key; 'anonymous' without authentication"`
	Requests int64    `json:"requests" doc:"Requests that were answered with masks or a job; a batch is one"`
	Pictures int64    `json:"pictures" doc:"Pictures that masks were made for"`
	GPUMS    float64  `json:"gpu_ms" doc:"For how long model servers were busy with them, in milliseconds"`
}

// Build is the body of GET /version.
type Build struct {
	_        struct{} `doc:"What the program was built from."`
	Version  string   `json:"version" doc:"The version of the module"`
	Revision string   `json:"revision,omitempty" doc:"The commit, if known"`
	Modified bool     `json:"modified" doc:"Whether the checkout differed from the commit"`
	Go       string   `json:"go" doc:"The version of the compiler"`
}
