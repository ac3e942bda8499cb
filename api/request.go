package api

// Int is a whole number that a client sends. The service also takes it written
// as 64.0, as some languages do and JSON Schema allows.
type Int int64

// SegmentRequest is the JSON body of POST /v1/segment.
type SegmentRequest struct {
	_        struct{}       `doc:"A picture, phrases, and what to answer."`
	Image    *Picture       `json:"image" required:"true" doc:"The picture"`
	Prompts  []Prompt       `json:"prompts" required:"true" minItems:"1" doc:"The phrases, at most 32 unless the service is set otherwise"`
	Output   Output         `json:"output,omitzero" doc:"What to answer"`
	Variant  *string        `json:"variant,omitempty" minLength:"1" doc:"Which variant answers, as '/v1/models' names it; without it the split decides"`
	Deadline *Int           `json:"deadline_ms,omitempty" minimum:"1" maximum:"86400000" doc:"How long the client waits, in milliseconds from the request's arrival; the service's own limit (30 s by default) holds as well"`
	Priority *string        `json:"priority,omitempty" enum:"interactive,batch" doc:"'batch' is for what may wait: it is done when nothing interactive waits"`
	Webhook  *WebhookTarget `json:"webhook,omitempty" doc:"Where the end of the job is told, with 'Prefer: respond-async'"`
}

// WebhookTarget is where the end of a job is sent.
type WebhookTarget struct {
	_   struct{} `doc:"Where the end of a job is told."`
	URL string   `json:"url" required:"true" pattern:"^https://" doc:"An https address"`
}

// Picture is a picture, or where it is. Exactly one member is set.
type Picture struct {
	_    struct{} `doc:"An encoded picture: the bytes, or where it is. Exactly one of them."`
	Data []byte   `json:"data,omitempty" doc:"A JPEG, PNG, WebP, GIF, BMP or TIFF, at most 20 MB unless the service is set otherwise. Its EXIF orientation is applied before anything else"`
	ID   *string  `json:"id,omitempty" pattern:"^img_[0-9a-f]{64}$" doc:"That of a picture that was sent to '/v1/images'"`
	URL  *string  `json:"url,omitempty" pattern:"^https://" doc:"Where to fetch it, if the service is set to"`
}

// Prompt is a phrase and the options of its mask.
type Prompt struct {
	_    struct{} `doc:"A phrase."`
	ID   string   `json:"id,omitempty" maxLength:"128" pattern:"^[^\\x00]*$" doc:"Echoed in the result"`
	Text string   `json:"text" required:"true" pattern:"\\S" doc:"What to find, in English; at most 1,000 bytes of UTF-8 unless the service is set otherwise"`
	Options
}

// Options say how one mask is made and written. A nil or empty member leaves the
// choice to the request's Output, or else to the service.
type Options struct {
	Formats   []string `json:"formats,omitempty" maxItems:"32" enum:"coco_rle,rle,polygon,png,png8,probability,overlay" doc:"The formats of the masks; 'coco_rle' if there are none"`
	Threshold *float64 `json:"threshold,omitempty" exclusiveMinimum:"0" exclusiveMaximum:"1" doc:"Foreground is where the probability is at least this; without it the model's own"`
	MinArea   *Int     `json:"min_area,omitempty" minimum:"0" maximum:"268435456" doc:"Components of less than so many pixels are left out; holes are filled before"`
	FillHoles *Int     `json:"fill_holes,omitempty" minimum:"0" maximum:"268435456" doc:"Holes of up to so many pixels are filled"`
	Keep      *string  `json:"keep,omitempty" enum:"all,largest" doc:"'largest' for the largest component alone; 'all' without it"`
	Tolerance *float64 `json:"tolerance,omitempty" minimum:"0" maximum:"1000" doc:"How many pixels polygons may be off the mask; 0, as without it, follows the edges of pixels. Parts and holes that it flattens to a line are left out"`
}

// Output is what holds for a whole request: defaults of the prompts' options, and
// the options that all masks share.
type Output struct {
	_ struct{} `doc:"What to answer."`
	Options
	Size    *string `json:"size,omitempty" enum:"original,model" doc:"'model' for masks as large as what the model answers; 'original' without it. Areas and boxes are in pixels of the mask"`
	Overlay *string `json:"overlay,omitempty" enum:"png,jpeg" doc:"What overlays are; 'png' without it"`
	Quality *bool   `json:"quality,omitempty" doc:"Whether results tell how far they are to be trusted"`
}

// BatchRequest is the JSON body of POST /v1/segment:batch.
type BatchRequest struct {
	_        struct{}       `doc:"Pictures with phrases, and what to answer."`
	Items    []BatchItem    `json:"items" required:"true" minItems:"1" maxItems:"64" doc:"The pictures"`
	Output   Output         `json:"output,omitzero" doc:"What to answer, where an item's own 'output' says nothing"`
	Variant  *string        `json:"variant,omitempty" minLength:"1" doc:"Which variant answers, as '/v1/models' names it; without it the split decides"`
	Deadline *Int           `json:"deadline_ms,omitempty" minimum:"1" maximum:"86400000" doc:"How long the client waits, in milliseconds from the request's arrival; the service's own limit (30 s by default) holds as well"`
	Priority *string        `json:"priority,omitempty" enum:"interactive,batch" doc:"'batch' is for what may wait: it is done when nothing interactive waits"`
	Webhook  *WebhookTarget `json:"webhook,omitempty" doc:"Where the end of the job is told, with 'Prefer: respond-async'"`
}

// BatchItem is one picture of a batch.
type BatchItem struct {
	_       struct{} `doc:"A picture with phrases."`
	ID      string   `json:"id,omitempty" maxLength:"128" pattern:"^[^\\x00]*$" doc:"Echoed in the result"`
	Image   *Picture `json:"image" required:"true" doc:"The picture"`
	Prompts []Prompt `json:"prompts" required:"true" minItems:"1" doc:"The phrases, at most 32 unless the service is set otherwise"`
	Output  Output   `json:"output,omitzero" doc:"What to answer"`
}

// Upload is the JSON body of POST /v1/images.
type Upload struct {
	_     struct{} `doc:"A picture that is to be kept."`
	Image *Picture `json:"image" required:"true" doc:"The picture; not by id"`
}
