package gateway

import (
	"bytes"
	stdjson "encoding/json"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/yaml"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/jobs"
)

// schemas makes JSON schemas of Go types. Types tell names and kinds; what they
// cannot tell is in words, and in finish.
type schemas struct {
	registry huma.Registry
	// fields are those of a form or a query, by name, and params those of the
	// query; finish fills them in.
	fields map[string]*huma.Schema
	params map[string]*huma.Param
}

func newSchemas() *schemas {
	s := &schemas{huma.NewMapRegistry("#/components/schemas/", schemaName), make(map[string]*huma.Schema), make(map[string]*huma.Param)}
	for _, name := range fieldNames {
		explode := name != "format"
		s.fields[name] = &huma.Schema{}
		s.params[name] = &huma.Param{Name: name, In: "query", Schema: s.fields[name], Explode: &explode}
	}
	return s
}

// schemaNames are those of types whose own names would tell a client less.
// Types without a name of their own come under huma's hint.
var schemaNames = map[string]string{
	"body":           "SegmentRequest",
	"pictureBody":    "Picture",
	"promptBody":     "Prompt",
	"uploadBody":     "Upload",
	"imageAnswer":    "Image",
	"jobAnswer":      "Job",
	"jobItem":        "JobItem",
	"jobList":        "Jobs",
	"jobProgress":    "JobProgress",
	"webhookAnswer":  "Webhook",
	"webhookTo":      "WebhookTarget",
	"secretAnswer":   "WebhookSecret",
	"webhookBody":    "WebhookMessage",
	"feedbackBody":   "FeedbackRequest",
	"feedbackAnswer": "Feedback",
	"feedbackList":   "FeedbackList",
	"correctedMask":  "CorrectedMask",
	"imageList":      "Images",
	"batchBody":      "BatchRequest",
	"itemBody":       "BatchItem",
	"modelList":      "Models",
	"usageAnswer":    "Usage",
}

func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	name := t.Name()
	if name == "" {
		name = hint
	}
	if given, ok := schemaNames[name]; ok {
		return given
	}
	return huma.DefaultSchemaNamer(t, hint)
}

// media is a body of v's type.
func (s *schemas) media(v, example any) *huma.MediaType {
	return &huma.MediaType{Schema: s.registry.Schema(reflect.TypeOf(v), true, ""), Example: example}
}

// requests are the schemas of what a client sends, with the members that it
// must send. The others may be left out or null.
var requests = map[string][]string{
	"SegmentRequest":  {"image", "prompts"},
	"Picture":         nil,
	"Prompt":          {"text"},
	"Upload":          {"image"},
	"WebhookTarget":   {"url"},
	"FeedbackRequest": {"request_id"},
	"CorrectedMask":   {"size", "counts"},
	"BatchRequest":    {"items"},
	"BatchItem":       {"image", "prompts"},
	"Output":          nil,
}

// finish completes the schemas that have been made.
func (s *schemas) finish() {
	all := s.registry.Map()
	for _, name := range []string{"Prompt", "Output"} {
		// huma leaves out what is embedded and not exported.
		maps.Copy(all[name].Properties, huma.SchemaFromType(s.registry, reflect.TypeFor[options]()).Properties)
	}
	for name, schema := range all {
		required, request := requests[name]
		if request {
			schema.Required = required
		} else {
			schema.AdditionalProperties = nil // answers may get more members
		}
		schema.Description = words[name]
		for member, property := range schema.Properties {
			property.Nullable = request && !slices.Contains(required, member) && property.Ref == ""
			complete(property, name, member)
		}
	}
	for _, member := range []string{"data", "id", "url"} {
		all["Picture"].Properties[member].Nullable = false
	}
	exactlyOne(all["Picture"])
	all["Output"].Nullable, all["WebhookTarget"].Nullable = true, true
	all["CorrectedMask"].Nullable = true
	for name, field := range s.fields {
		for _, from := range []string{"Output", "SegmentRequest"} {
			if property := all[from].Properties[fieldMember(name)]; property != nil {
				*field = *property
				field.Nullable = false
				complete(field, from, fieldMember(name))
			}
		}
	}
	*s.fields["webhook"] = huma.Schema{Type: huma.TypeString, Pattern: urlPattern, Description: words[anySchema+"webhook"]}
	phrase := &huma.Schema{Type: huma.TypeString}
	phraseText(phrase)
	one := 1
	s.fields["format"].MinItems = &one
	*s.fields["phrase"] = huma.Schema{Type: huma.TypeArray, Items: phrase, MinItems: &one, Description: words[anySchema+"prompts"]}
	for name, param := range s.params {
		param.Description = s.fields[name].Description + " (with a picture as the body)"
	}
}

// fieldMember is the member of JSON that a field of a form stands for.
func fieldMember(field string) string {
	if field == "format" {
		return "formats"
	}
	return field
}

// complete tells of a member what its type does not.
func complete(s *huma.Schema, name, member string) {
	for items := s.Items; items != nil; items = items.Items {
		items.Nullable, items.Format = false, ""
	}
	if s.Format == "double" || s.Format == "int64" {
		s.Format = ""
	}
	for _, name := range []string{anySchema + member, name + "." + member} {
		if text, ok := words[name]; ok {
			s.Description = text
		}
		if change := bounds[name]; change != nil {
			change(s)
		}
	}
}

// segmentBody is what POST /v1/segment reads.
func (s *schemas) segmentBody() *huma.RequestBody {
	example := stdjson.RawMessage(`{"image": {"data": "` + examplePNG + `"}, "prompts": [{"id": "a", "text": "the duck on the left"}],` +
		` "output": {"formats": ["coco_rle", "png"]}}`)
	no := false
	return &huma.RequestBody{
		Required: true,
		Content: map[string]*huma.MediaType{
			api.MediaJSON: s.media(body{}, example),
			api.MediaForm: {
				Schema: s.formSchema(),
				Encoding: map[string]*huma.Encoding{
					"image":  {ContentType: "image/jpeg, image/png, image/webp, image/gif, image/bmp, image/tiff"},
					"phrase": {ContentType: api.MediaText},
					"format": {ContentType: api.MediaText, Style: "form", Explode: &no},
				},
			},
			"image/*":      {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
			api.MediaBytes: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		},
	}
}

// exactlyOne says that one of the members is there. Generators of clients
// understand that; of oneOf with nothing but required they make nothing.
func exactlyOne(s *huma.Schema) {
	one := 1
	s.MinProperties, s.MaxProperties = &one, &one
}

// formSchema describes what parseForm reads: of the fields that bring a
// picture, exactly one is there.
func (s *schemas) formSchema() *huma.Schema {
	f := &huma.Schema{
		Type:                 huma.TypeObject,
		AdditionalProperties: false,
		Required:             []string{"phrase"},
		Properties:           pictureFields(true),
	}
	for name, field := range s.fields {
		f.Properties[name] = field
	}
	return f
}

// pictureFields are the fields of a form that bring a picture.
func pictureFields(byID bool) map[string]*huma.Schema {
	fields := map[string]*huma.Schema{
		fieldImage:    {Type: huma.TypeString, Format: "binary", Description: words["Picture.data"]},
		fieldImageURL: {Type: huma.TypeString, Pattern: urlPattern, Description: words["Picture.url"]},
	}
	if byID {
		fields[fieldImageID] = &huma.Schema{Type: huma.TypeString, Pattern: imageIDPattern, Description: words["Picture.id"]}
	}
	return fields
}

const (
	imageIDPattern = `^img_[0-9a-f]{64}$`
	urlPattern     = `^https://`
)

// fieldParams are the fields as parameters of a query.
func (s *schemas) fieldParams() []*huma.Param {
	var params []*huma.Param
	for _, name := range fieldNames {
		params = append(params, s.params[name])
	}
	return params
}

// anySchema stands for every schema that has a member of the name: those of
// options are members of several.
const anySchema = "*."

// bounds narrow members to the values that are taken, or given.
var bounds = map[string]func(*huma.Schema){
	"Prompt.text":                phraseText,
	"Prompt.id":                  clientID,
	"BatchItem.id":               clientID,
	"Picture.id":                 pattern(imageIDPattern),
	"FeedbackRequest.request_id": pattern(saneID.String()),
	"FeedbackRequest.item":       within(0, maxItems-1, false),
	"FeedbackRequest.result":     within(0, maxParts-1, false),
	"FeedbackRequest.verdict":    oneOfWords(verdictGood, verdictBad),
	"FeedbackRequest.rating":     within(1, maxRating, false),
	"FeedbackRequest.comment":    pattern(`^[^\x00]+$`),
	"WebhookTarget.url":          pattern(urlPattern),
	"Job.kind":                   oneOfWords(kindSegment, kindBatch),
	"Job.status":                 func(s *huma.Schema) { s.Enum = statuses() },
	"JobItem.status":             func(s *huma.Schema) { s.Enum = statuses() },
	"WebhookMessage.type":        oneOfWords(jobFinished),
	"*.variant":                  atLeastOne,
	"Webhook.status":             oneOfWords(string(jobs.Pending), string(jobs.Delivered), string(jobs.GivenUp)),
	"Picture.url":                pattern(urlPattern),
	"*.threshold":                within(0, 1, true),
	"*.tolerance":                within(0, maxTolerance, false),
	"*.min_area":                 within(0, maxArea, false),
	"*.fill_holes":               within(0, maxArea, false),
	"*.keep":                     oneOfWords(keepAll, keepLargest),
	"*.formats":                  func(s *huma.Schema) { most := maxFormats; s.MaxItems = &most; oneOfWords(api.Formats...)(s.Items) },
	"Output.size":                oneOfWords(string(refersam.SizeOriginal), string(refersam.SizeModel)),
	"Output.overlay":             oneOfWords(api.OverlayPNG, api.OverlayJPEG),
	"*.prompts":                  func(s *huma.Schema) { one := 1; s.MinItems = &one },
	"BatchRequest.items":         func(s *huma.Schema) { one, most := 1, maxItems; s.MinItems, s.MaxItems = &one, &most },
	"*.deadline_ms":              within(1, float64((24 * time.Hour).Milliseconds()), false),
	"*.priority":                 oneOfWords(string(refersam.PriorityInteractive), string(refersam.PriorityBatch)),
	"AnswerResult.status":        oneOfWords("ok", "empty"),
	"AnswerResult.origin":        func(s *huma.Schema) { s.Enum = origins() },
	"AnswerResult.score":         within(0, 1, false),
	"AnswerQuality.stability":    within(0, 1, false),
	"Geometry.type":              oneOfWords("MultiPolygon"),
	"Warning.code":               oneOfWords(api.WarningTruncated),
	"Model.weight":               within(0, 1, false),
	"Problem.code":               func(s *huma.Schema) { s.Enum = codes() },
	"ProblemDescription.code":    func(s *huma.Schema) { s.Enum = codes() },
}

func within(low, high float64, exclusive bool) func(*huma.Schema) {
	return func(s *huma.Schema) {
		if exclusive {
			s.ExclusiveMinimum, s.ExclusiveMaximum = &low, &high
		} else {
			s.Minimum, s.Maximum = &low, &high
		}
	}
}

// atLeastOne refuses text of no characters.
func atLeastOne(s *huma.Schema) {
	one := 1
	s.MinLength = &one
}

func oneOfWords(allowed ...string) func(*huma.Schema) {
	return func(s *huma.Schema) {
		s.Enum = nil
		for _, word := range allowed {
			s.Enum = append(s.Enum, word)
		}
		if s.Nullable {
			s.Enum = append(s.Enum, nil)
		}
	}
}

// clientID describes what checkID takes.
func clientID(s *huma.Schema) {
	most := maxID
	s.MaxLength, s.Pattern = &most, `^[^\x00]*$`
}

func pattern(p string) func(*huma.Schema) { return func(s *huma.Schema) { s.Pattern = p } }

// phraseText leaves out what is surely refused: a phrase of nothing but blanks.
func phraseText(s *huma.Schema) { s.Pattern = `\S` }

// words say what schemas and their members mean.
var words = map[string]string{
	"SegmentRequest":                 "A picture, phrases, and what to answer.",
	"SegmentRequest.image":           "The picture",
	"*.prompts":                      "The phrases, at most 32 unless the service is set otherwise",
	"*.output":                       "What to answer",
	"BatchRequest":                   "Pictures with phrases, and what to answer.",
	"BatchRequest.items":             "The pictures",
	"BatchRequest.output":            "What to answer, where an item's own `output` says nothing",
	"BatchItem":                      "A picture with phrases.",
	"BatchItem.id":                   "Echoed in the result",
	"BatchItem.image":                "The picture",
	"BatchAnswer":                    "The masks of several pictures.",
	"BatchAnswer.request_id":         "The id of the request, as in the log",
	"BatchAnswer.results":            "One result a picture, in their order",
	"BatchResult":                    "What came of one picture: an answer or a problem.",
	"BatchResult.id":                 "The `id` of the item, if it had one",
	"BatchResult.answer":             "The masks",
	"BatchResult.problem":            "Why there are none",
	"*.variant":                      "Which variant answers, as `/v1/models` names it; without it the split decides",
	"*.deadline_ms":                  "How long the client waits, in milliseconds from the request's arrival; the service's own limit (30 s by default) holds as well",
	"*.priority":                     "`batch` is for what may wait: it is done when nothing interactive waits",
	"Upload":                         "A picture that is to be kept.",
	"Upload.image":                   "The picture; not by id",
	"WebhookTarget":                  "Where the end of a job is told.",
	"WebhookTarget.url":              "An https address",
	"*.webhook":                      "Where the end of the job is told, with `Prefer: respond-async`",
	"Job":                            "Work that is done after its request has been answered.",
	"Job.id":                         "Its id",
	"Job.kind":                       "`segment` from `/v1/segment`, `batch` from `/v1/segment:batch`, whatever the number of items",
	"Job.status":                     "`failed` if an item has failed, `succeeded` if all have succeeded",
	"Job.request_id":                 "That of the request that made it, which its answers and problems have too",
	"Job.created_at":                 "When it was submitted",
	"Job.started_at":                 "When the first item was begun",
	"Job.finished_at":                "When the last item ended",
	"Job.expires_at":                 "When it is forgotten, with its results, but not before its end has been told; known once it has ended",
	"Job.progress":                   "How many items have ended in which way",
	"Job.items":                      "The items; not in lists",
	"Job.webhook":                    "What came of telling its end; not in lists",
	"JobProgress":                    "How many items have ended in which way.",
	"JobProgress.total":              "All items",
	"JobProgress.succeeded":          "Items with an answer",
	"JobProgress.failed":             "Items with a problem",
	"JobProgress.cancelled":          "Items that were cancelled before they ended",
	"JobItem":                        "One picture of a job.",
	"JobItem.index":                  "Its place in the request, from 0",
	"JobItem.id":                     "The `id` of the item, if it had one",
	"JobItem.status":                 "How far it is",
	"JobItem.result":                 "Where its answer is",
	"JobItem.problem":                "Why it has failed",
	"Jobs":                           "A page of jobs, the newest first.",
	"Jobs.jobs":                      "The jobs",
	"Jobs.next":                      "What to give as `cursor` for the next page; absent on the last one",
	"Webhook":                        "The telling of a job's end.",
	"Webhook.url":                    "Where it is told",
	"Webhook.status":                 "`failed` when it was given up",
	"Webhook.attempts":               "How often it was tried; counted anew from when a client has it told again",
	"Webhook.last_attempt_at":        "When it was last tried",
	"Webhook.last_error":             "Why that did not succeed",
	"WebhookMessage":                 "What a webhook tells.",
	"WebhookMessage.type":            "What has happened",
	"WebhookMessage.timestamp":       "When it has happened",
	"WebhookMessage.data":            "The job, with its items and without its webhook",
	"WebhookSecret":                  "What webhooks of an API key are signed with.",
	"WebhookSecret.secret":           "For a verifier of Standard Webhooks",
	"WebhookSecret.previous_until":   "Until when they are signed with the secret before the rotation, too",
	"FeedbackRequest":                "What a client says about a mask.",
	"*.request_id":                   "That of the answer that the mask was in",
	"FeedbackRequest.item":           "The index of the picture in a batch or job; 0 without it",
	"FeedbackRequest.result":         "The index of the result; 0 without it",
	"FeedbackRequest.verdict":        "In a word",
	"FeedbackRequest.rating":         "From 1, of no use, to 5, as it should be",
	"FeedbackRequest.corrected_mask": "The mask as it should be",
	"FeedbackRequest.comment":        "In words, at most 2,000 bytes",
	"CorrectedMask":                  "A mask as pycocotools writes it.",
	"CorrectedMask.size":             "Height and width in pixels",
	"CorrectedMask.counts":           "The runs",
	"Feedback":                       "What a client has said about a mask.",
	"Feedback.id":                    "Its id",
	"Feedback.key":                   "The id of the API key; `anonymous` without authentication",
	"Feedback.item":                  "The index of the picture in a batch or job",
	"Feedback.result":                "The index of the result",
	"Feedback.verdict":               "In a word",
	"Feedback.rating":                "From 1, of no use, to 5, as it should be",
	"Feedback.corrected_mask":        "The mask as it should be",
	"Feedback.comment":               "In words",
	"Feedback.created_at":            "When it was said",
	"FeedbackList":                   "A page of feedback, the newest first.",
	"FeedbackList.feedback":          "The feedback",
	"FeedbackList.next":              "What to give as `cursor` for the next page; absent on the last one",
	"Image":                          "A picture that is kept.",
	"Image.id":                       "`img_` and the SHA-256 of its bytes",
	"Image.width":                    "Of the upright picture, in pixels",
	"Image.height":                   "Of the upright picture, in pixels",
	"Image.media_type":               "What it is",
	"Image.bytes":                    "How large it is",
	"Image.created_at":               "When it was first sent",
	"Image.expires_at":               "Until when it is kept",
	"Images":                         "A page of images, the newest first.",
	"Images.images":                  "The images",
	"Images.next":                    "What to give as `cursor` for the next page; absent on the last one",
	"Picture":                        "An encoded picture: the bytes, or where it is. Exactly one of them.",
	"Picture.data":                   "A JPEG, PNG, WebP, GIF, BMP or TIFF, at most 20 MB unless the service is set otherwise. Its EXIF orientation is applied before anything else",
	"Picture.id":                     "That of a picture that was sent to `/v1/images`",
	"Picture.url":                    "Where to fetch it, if the service is set to",
	"Prompt":                         "A phrase.",
	"Prompt.id":                      "Echoed in the result",
	"Prompt.text":                    "What to find, in English; at most 1,000 bytes of UTF-8 unless the service is set otherwise",
	"Output":                         "What to answer.",
	"*.formats":                      "The formats of the masks; `coco_rle` if there are none",
	"*.threshold":                    "Foreground is where the probability is at least this; without it the model's own",
	"*.fill_holes":                   "Holes of up to so many pixels are filled",
	"*.min_area":                     "Components of less than so many pixels are left out; holes are filled before",
	"*.keep":                         "`largest` for the largest component alone; `all` without it",
	"*.tolerance":                    "How many pixels polygons may be off the mask; 0, as without it, follows the edges of pixels. Parts and holes that it flattens to a line are left out",
	"Model.threshold":                "The probability from which a pixel is foreground",
	"Models.limits":                  "What the service takes, whichever model answers",
	"Limits":                         "What the service takes.",
	"Limits.max_image_bytes":         "Of an encoded picture",
	"Limits.max_image_pixels":        "Of a picture's width times its height",
	"Limits.max_image_side":          "Of a picture's width and height, in pixels",
	"Limits.max_image_frames":        "Pictures in one file, of which the first is read",
	"Limits.max_phrases":             "For one picture",
	"Limits.max_phrase_bytes":        "Of one phrase, in UTF-8",
	"Limits.max_mask_pixels":         "Of the pixels of a picture times its phrases",
	"Limits.max_batch_items":         "Pictures of one batch",
	"Limits.max_batch_bytes":         "Of the whole request of a batch",
	"Limits.request_timeout_ms":      "How long a request may take, in milliseconds",
	"Models.formats":                 "The formats of masks that may be asked for",
	"Output.size":                    "`model` for masks as large as what the model answers; `original` without it. Areas and boxes are in pixels of the mask",
	"Output.overlay":                 "What overlays are; `png` without it",
	"Output.quality":                 "Whether results tell how far they are to be trusted",
	"Answer.mask":                    "The size of the masks, in whose pixels areas and boxes are",
	"Answer.timings":                 "Where the time went",
	"AnswerTimings":                  "Where the time went, in milliseconds.",
	"AnswerTimings.read":             "Until the request was read",
	"AnswerTimings.fetch":            "For bringing a picture that was not in the request",
	"AnswerTimings.decode":           "For the picture; 0 when the answer was there already",
	"AnswerTimings.model":            "For the model and the wait for it",
	"AnswerTimings.mask":             "For what was left of the masks' making when the model was done",
	"AnswerTimings.total":            "Until the answer began",
	"AnswerResult.quality":           "How far the mask is to be trusted; there when asked for",
	"AnswerResult.files":             "The names of the mask's files by format, in `application/zip` and `multipart/mixed`",
	"AnswerQuality":                  "How far a mask is to be trusted.",
	"AnswerQuality.components":       "The parts of the mask that hang together",
	"AnswerQuality.stability":        "How little the mask depends on its threshold",
	"AnswerMasks.rle":                "The lengths of runs",
	"AnswerMasks.polygon":            "A GeoJSON MultiPolygon",
	"AnswerMasks.png8":               "A PNG of 8 bits a pixel, 255 on 0",
	"AnswerMasks.probability":        "A PNG of 16 bits a pixel, the foreground probability times 65535",
	"AnswerMasks.overlay":            "The picture with the mask in red over it",
	"Counts":                         "A mask as the lengths of runs down the columns.",
	"Counts.size":                    "Height and width in pixels",
	"Counts.counts":                  "The lengths of runs, background first",
	"Geometry":                       "A GeoJSON MultiPolygon in pixels, y down.",
	"Geometry.type":                  "Always the same",
	"Geometry.coordinates":           "Of each polygon the outline first, clockwise as one sees it, then its holes the other way; rings are closed",
	"Usage":                          "What keys have used.",
	"Usage.from":                     "The first day",
	"Usage.to":                       "The last day",
	"Usage.usage":                    "One entry a day and key",
	"UsageDay":                       "What a key has used on a day.",
	"UsageDay.day":                   "The day, in UTC",
	"UsageDay.key":                   "The id of the key; `anonymous` without authentication",
	"UsageDay.requests":              "Requests that were answered with masks or a job; a batch is one",
	"UsageDay.pictures":              "Pictures that masks were made for",
	"UsageDay.gpu_ms":                "For how long model servers were busy with them, in milliseconds",
	"Answer":                         "The masks of one picture.",
	"Answer.request_id":              "The id of the request, as in the log",
	"Answer.image":                   "The upright picture",
	"Answer.model":                   "What answered",
	"Answer.results":                 "One result a phrase, in their order",
	"Answer.warnings":                "What should be known about results",
	"AnswerImage":                    "The size of the upright picture, or of its masks.",
	"AnswerImage.width":              "In pixels",
	"AnswerImage.height":             "In pixels",
	"AnswerModel":                    "What answered.",
	"AnswerModel.name":               "The name of the model",
	"AnswerModel.variant":            "Its short name",
	"AnswerModel.version":            "Its version",
	"AnswerResult":                   "What one phrase means.",
	"AnswerResult.prompt_id":         "The `id` of the prompt, if it had one",
	"AnswerResult.phrase":            "The phrase that the result answers, as the request has it",
	"AnswerResult.status":            "`empty` when nothing in the picture is meant, which is no error",
	"AnswerResult.score":             "The mean foreground probability over the mask, not calibrated; 0 for an empty mask",
	"AnswerResult.empty":             "Whether nothing in the picture is meant",
	"AnswerResult.origin":            "`shared` or `cache` when the model's answer was made for an equal request at the same time, or before",
	"AnswerResult.area":              "Foreground pixels",
	"AnswerResult.bbox":              "Left, top, width and height in pixels",
	"AnswerResult.masks":             "The mask in the formats asked for",
	"AnswerMasks":                    "A mask in the formats asked for.",
	"AnswerMasks.coco_rle":           "As pycocotools reads it",
	"AnswerMasks.png":                "A PNG of one bit a pixel, white on black",
	"RLE":                            "The compressed run-length encoding of pycocotools.",
	"RLE.size":                       "Height and width in pixels",
	"RLE.counts":                     "The runs",
	"Warning":                        "Something that should be known about a result.",
	"Warning.code":                   "`phrase_truncated`: the end of the phrase was not read",
	"Warning.result":                 "The index of the result",
	"Warning.tokens":                 "How many tokens the phrase has",
	"Warning.limit":                  "How many of them are read",
	"Models":                         "The variants that are loaded.",
	"Models.models":                  "One a variant",
	"Model":                          "What a model says of itself.",
	"Model.name":                     "Its name",
	"Model.variant":                  "Its short name, which a request may ask for",
	"Model.version":                  "Its version",
	"Model.label":                    "`demo` for weights that are not meant for photographs",
	"Model.weight":                   "The part of the units that gets this variant",
	"Model.image_size":               "The side of the square that pictures are scaled to, in pixels",
	"Model.tokenizer":                "How phrases become tokens",
	"Model.max_tokens":               "How many tokens of a phrase are read",
	"Model.precision":                "That of its arithmetic",
	"Model.checkpoint":               "The SHA-256 of its weights",
	"Build":                          "What the program was built from.",
	"Build.version":                  "The version of the module",
	"Build.revision":                 "The commit, if known",
	"Build.modified":                 "Whether the checkout differed from the commit",
	"Build.go":                       "The version of the compiler",
	"Problem":                        "Why there is no success (RFC 9457).",
	"Problem.type":                   "An address that tells about the code",
	"Problem.title":                  "The code in words",
	"Problem.status":                 "The HTTP status",
	"Problem.detail":                 "What is wrong and what to do, for people; may change",
	"Problem.code":                   "For programs; stable",
	"Problem.field":                  "The part of the request at fault: a JSON pointer, or the name of a form field",
	"Problem.request_id":             "The id of the request, as in the log",
	"Problem.errors":                 "All faults that were found, of which `detail` and `field` tell the first",
	"ProblemError":                   "One fault of a request.",
	"ProblemError.detail":            "What is wrong and what to do, for people; may change",
	"ProblemError.pointer":           "The place in JSON, as a pointer in a URI fragment",
	"ProblemError.field":             "The field of a form, or the parameter of a query",
	"ProblemDescription":             "What all problems of a code have in common.",
	"ProblemDescription.code":        "The code",
	"ProblemDescription.status":      "The HTTP status",
	"ProblemDescription.title":       "The code in words",
	"ProblemDescription.cure":        "What to do",
}

// writeSpec writes the description of the API.
func writeSpec() (asJSON, asYAML []byte, err error) {
	compact, err := stdjson.Marshal(newDescription())
	if err != nil {
		return nil, nil, err
	}
	var indented bytes.Buffer
	if err := stdjson.Indent(&indented, compact, "", "  "); err != nil {
		return nil, nil, err
	}
	indented.WriteByte('\n')
	var text bytes.Buffer
	if err := yaml.Convert(&text, bytes.NewReader(compact)); err != nil {
		return nil, nil, err
	}
	return indented.Bytes(), text.Bytes(), nil
}
