package api

// Int is a whole number that a client sends. The service also accepts it written as
// 64.0, as some languages do and JSON Schema allows.
type Int int64

// SegmentRequest is the JSON body of POST /v1/segment.
type SegmentRequest struct {
	_       struct{} `doc:"A picture, phrases, and the form of the answer."`
	Image   *Picture `json:"image" required:"true" doc:"The picture"`
	Prompts []Prompt `json:"prompts" required:"true" minItems:"1" doc:"The phrases, at most 32 unless the service is configured otherwise"`
	Output  Output   `json:"output,omitzero" doc:"The form of the answer"`
	Common
}

// Common is what a request for masks says once, however many pictures it has.
type Common struct {
	_        struct{}       `doc:"The members that requests for one picture and for several pictures share."`
	Variant  *string        `json:"variant,omitempty" minLength:"1" doc:"The variant that answers, by its name in '/v1/models'; the default is what the split decides"`
	Deadline *Int           `json:"deadline_ms,omitempty" minimum:"1" maximum:"86400000" doc:"How long the client waits, in milliseconds from the request's arrival; the service's own limit (30 s by default) also applies"`
	Priority *string        `json:"priority,omitempty" enum:"interactive,batch" doc:"'batch' is for work that may wait: it is done when no interactive work waits; the default is 'interactive', for jobs 'batch'"`
	Webhook  *WebhookTarget `json:"webhook,omitempty" doc:"The webhook that receives the end of the job; only with 'Prefer: respond-async'"`
}

// WebhookTarget is where the end of a job is sent.
type WebhookTarget struct {
	_   struct{} `doc:"The webhook that receives the end of a job."`
	URL string   `json:"url" required:"true" pattern:"^https://" doc:"An https address"`
}

// Picture is a picture's bytes or where to find them. Exactly one member must be
// set.
type Picture struct {
	_    struct{} `doc:"An encoded picture: its bytes, the id of a stored picture, or an address. Exactly one member must be set."`
	Data []byte   `json:"data,omitempty" doc:"A JPEG, PNG, WebP, GIF, BMP or TIFF, at most 20 MB unless the service is configured otherwise. Its EXIF orientation is applied before anything else"`
	ID   *string  `json:"id,omitempty" pattern:"^img_[0-9a-f]{64}$" doc:"The id of a picture that was sent to '/v1/images'"`
	URL  *string  `json:"url,omitempty" pattern:"^https://" doc:"The address of the picture, if the service may fetch from there"`
}

// Prompt is a phrase and the options of its mask.
type Prompt struct {
	_    struct{} `doc:"A phrase."`
	ID   string   `json:"id,omitempty" maxLength:"128" pattern:"^[^\\x00]*$" doc:"Echoed in the result"`
	Text string   `json:"text" required:"true" pattern:"\\S" doc:"What to find, in English; at most 1,000 bytes of UTF-8 unless the service is configured otherwise"`
	Options
}

// Options say how one mask is made and written. For a nil or empty member, the
// value in the request's Output or the service's default applies.
type Options struct {
	_         struct{} `doc:"How one mask is made and written."`
	Formats   []string `json:"formats,omitempty" maxItems:"32" enum:"coco_rle,rle,polygon,png,png8,probability,overlay" doc:"The formats of the masks; the default is 'coco_rle'"`
	Threshold *float64 `json:"threshold,omitempty" exclusiveMinimum:"0" exclusiveMaximum:"1" doc:"A pixel is in the mask if its foreground probability is at least this; the default is the model's"`
	MinArea   *Int     `json:"min_area,omitempty" minimum:"0" maximum:"268435456" doc:"Components of fewer pixels are left out, after holes are filled; the default is 0"`
	FillHoles *Int     `json:"fill_holes,omitempty" minimum:"0" maximum:"268435456" doc:"Holes of up to this number of pixels are filled; the default is 0"`
	Keep      *string  `json:"keep,omitempty" enum:"all,largest" doc:"'largest' keeps only the largest component; the default is 'all'"`
	Tolerance *float64 `json:"tolerance,omitempty" minimum:"0" maximum:"1000" doc:"How many pixels polygons may deviate from the mask; the default is 0, which follows the edges of pixels. Parts and holes that it flattens to a line are left out"`
}

// Output holds settings for a whole request: defaults of the prompts' options, and
// the options that all masks share.
type Output struct {
	_ struct{} `doc:"The form of the answer."`
	Options
	Size    *string `json:"size,omitempty" enum:"original,model" doc:"'model' for masks of the model's output size; the default is 'original'. Areas and boxes are in pixels of the mask"`
	Overlay *string `json:"overlay,omitempty" enum:"png,jpeg" doc:"The file type of overlays; the default is 'png'"`
	Quality *bool   `json:"quality,omitempty" doc:"Whether results say how reliable the masks are; the default is 'false'"`
}

// BatchRequest is the JSON body of POST /v1/segment:batch.
type BatchRequest struct {
	_      struct{}    `doc:"Pictures with phrases, and the form of the answers."`
	Items  []BatchItem `json:"items" required:"true" minItems:"1" maxItems:"64" doc:"The pictures"`
	Output Output      `json:"output,omitzero" doc:"The form of the answers; an item's own 'output' takes precedence"`
	Common
}

// BatchItem is one picture of a batch.
type BatchItem struct {
	_       struct{} `doc:"A picture with phrases."`
	ID      string   `json:"id,omitempty" maxLength:"128" pattern:"^[^\\x00]*$" doc:"Echoed in the result"`
	Image   *Picture `json:"image" required:"true" doc:"The picture"`
	Prompts []Prompt `json:"prompts" required:"true" minItems:"1" doc:"The phrases, at most 32 unless the service is configured otherwise"`
	Output  Output   `json:"output,omitzero" doc:"The form of the answer"`
}

// Upload is the JSON body of POST /v1/images.
type Upload struct {
	_     struct{} `doc:"A picture to store."`
	Image *Picture `json:"image" required:"true" doc:"The picture; not by id"`
}
