// Package openapi describes the HTTP API in OpenAPI 3.1, from the types of package
// api.
package openapi

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/yaml"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

const (
	// apiVersion is the version of the description. Its first number changes with
	// changes that can break a client, the second with additions, the last with
	// wording.
	apiVersion = "1.2.0"
)

// New makes the OpenAPI description of the service. The description does not
// validate requests, because a body is read within bounds and in one pass, and a
// validator before that would read it whole. The description stays true because its
// schemas are made of the types that are read and written, and because tests check
// every route, answer and problem against it.
func New() *huma.OpenAPI {
	s := newSchemas()
	o := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title:       "refersam",
			Version:     apiVersion,
			Description: introduction(),
			License:     &huma.License{Name: "Apache-2.0", URL: "https://www.apache.org/licenses/LICENSE-2.0"},
		},
		Servers: []*huma.Server{{URL: "/", Description: "This service"}},
		Tags: []*huma.Tag{
			{Name: "masks", Description: "Pictures and phrases in, masks out"},
			{Name: "images", Description: "Stored pictures, which are sent once and used often"},
			{Name: "jobs", Description: "Work that the service does after it has answered the request"},
			{Name: "service", Description: "The state of the service"},
			{Name: "pages", Description: "For browsers"},
		},
		Components: &huma.Components{
			Schemas: s.registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {Type: "http", Scheme: "bearer", Description: "An API key, `rsk_…`. A service that listens only on loopback requires none"},
				"apiKey": {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "The API key in another header"},
			},
		},
	}
	d := &description{s, o}
	d.describeMasks()
	d.describeImages()
	d.describeJobs()
	d.describeFeedback()
	d.describeService()
	d.describePages()
	for _, path := range []string{"/", api.RouteDocs, "/web/{file}", api.RouteLive, api.RouteReady, api.RouteSpec + ".json", api.RouteSpec + ".yaml"} {
		o.Paths[path].Head = head(o.Paths[path].Get)
	}
	s.finish()
	return o
}

// description is an unfinished description.
type description struct {
	*schemas
	document *huma.OpenAPI
}

// add describes an operation without authentication.
func (d *description) add(method, path, tag, id, summary string, op *huma.Operation, answers ...answered) {
	op.Method, op.Path, op.OperationID, op.Summary, op.Tags = method, path, id, summary, []string{tag}
	op.Responses = d.responses(append(answers, refuses(refersam.CodeInternal))...)
	for _, p := range op.Parameters {
		onlyDescribeExample(p)
	}
	if op.Security == nil {
		op.Security = []map[string][]string{}
	}
	d.document.AddOperation(op)
}

// onlyDescribeExample moves the example of an optional parameter into the
// parameter's description. Pages that send requests fill parameters with their
// examples: a made-up Prefer turns an answer into a job, and a made-up cursor is
// refused.
func onlyDescribeExample(p *huma.Param) {
	if p.Required || p.Example == nil {
		return
	}
	p.Description += fmt.Sprintf(", such as `%v`", p.Example)
	p.Example = nil
}

// addGuarded describes an operation that requires a key.
func (d *description) addGuarded(method, path, tag, id, summary string, op *huma.Operation, answers ...answered) {
	// Without any key if the service listens only on loopback.
	op.Security = []map[string][]string{{"bearer": {}}, {"apiKey": {}}, {}}
	answers = append(answers, refuses(refersam.CodeInvalidRequest, refersam.CodeMalformedRequest, // an unknown parameter, a malformed query
		refersam.CodeUnauthorized, refersam.CodeForbidden, refersam.CodeQuotaExceeded, refersam.CodeUnavailable, refersam.CodeDeadlineExceeded))
	d.add(method, path, tag, id, summary, op, answers...)
	for status, response := range op.Responses {
		if status == "401" || status == "403" {
			response.Headers["WWW-Authenticate"] = header("The missing part: a key, or the named scope of the key (RFC 6750)", huma.TypeString)
			continue // the key's quota is not known yet
		}
		response.Headers["RateLimit-Policy"] = header("The quota of the API key (draft-ietf-httpapi-ratelimit-headers-10); absent if it is not limited", huma.TypeString)
		response.Headers["RateLimit"] = header("The rest of the quota", huma.TypeString)
		if status[0] == '2' && slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == api.HeaderIdempotencyKey }) {
			response.Headers[api.HeaderReplayed] = header("`true` if this is the first answer to this Idempotency-Key, sent again", huma.TypeString)
		}
	}
}

// binaryMedia is a body of bytes.
func binaryMedia() *huma.MediaType {
	return &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
}

// refusesPictures are the problems of requests with a picture.
func refusesPictures() answered {
	return refuses(refersam.CodeImageTooLarge, refersam.CodeBodyTooSlow, refersam.CodeUnsupportedMedia, refersam.CodeInvalidImage)
}

// refusesMasks are the additional problems of requests for masks.
func refusesMasks() answered {
	return refuses(refersam.CodeNotAcceptable, refersam.CodeImageNotFound, refersam.CodeFetchRefused, refersam.CodeFetchFailed, refersam.CodePhraseEmpty, refersam.CodePhraseTooLong, refersam.CodeUnknownVariant,
		refersam.CodeUpstream, refersam.CodeStorageFull, refersam.CodeOverloaded, refersam.CodeNotReady)
}

func (d *description) describeMasks() {
	d.addGuarded(http.MethodPost, "/v1/segment", "masks", "segment", "Find the pixels that phrases describe", &huma.Operation{
		Description: "Returns one mask per phrase for one picture. The request is a form, JSON, or the picture itself with the fields of the form " +
			"in the query; with a form or JSON, a query is not allowed. Unless the request creates a job, it changes nothing except usage, so it may be repeated.",
		Parameters:  append(d.fieldParams(), requestIDParam(), unitIDParam(), ifNoneMatchParam(), preferParam(), idempotencyKeyParam()),
		RequestBody: d.segmentBody(),
	},
		answered{http.StatusOK, "The masks, in the order of the phrases", map[string]*huma.MediaType{
			api.MediaJSON:  d.media(api.Answer{}, exampleAnswer()),
			api.MediaPNG:   binaryMedia(),
			api.MediaZip:   binaryMedia(),
			api.MediaMixed: binaryMedia(),
		}, maskHeaders()},
		answered{http.StatusNotModified, "The client has the answer already, according to its If-None-Match", nil, map[string]*huma.Param{"ETag": header("The ETag of the answer", huma.TypeString)}},
		d.accepted(),
		refusesPictures(),
		refusesMasks(),
		refusesAgain(),
	)
	d.addGuarded(http.MethodPost, "/v1/segment:batch", "masks", "segmentBatch", "Find the pixels that phrases describe in several pictures", &huma.Operation{
		Description: fmt.Sprintf("At most %d pictures, each with its own phrases, and with its own answer or problem. Settings for all pictures are next to `items`.", api.MaxItems),
		Parameters:  []*huma.Param{requestIDParam(), unitIDParam(), preferParam(), idempotencyKeyParam()},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{api.MediaJSON: d.request(api.BatchRequest{}, exampleBatch())}},
	}, d.json(api.BatchAnswer{}, "One result per picture, in the order of the request", exampleBatchAnswer()), d.accepted(), refusesPictures(), refusesMasks(), refusesAgain())
	d.addGuarded(http.MethodGet, "/v1/models", "masks", "listModels", "List the loaded variants", &huma.Operation{
		Description: "The description of each model, and how units are split between the models. A configured variant that cannot be used is in `unusable`, with the reason; requests for it get `not_ready`.",
	}, d.json(api.Models{}, "The variants", exampleModels()), refuses(refersam.CodeNotReady))
	d.addGuarded(http.MethodGet, "/v1/models/{name}", "masks", "getModel", "Describe a model", &huma.Operation{
		Parameters: []*huma.Param{{
			Name: "name", In: "path", Required: true, Description: "The name of the model, or of its variant", Schema: &huma.Schema{Type: huma.TypeString}, Example: "refersam_bert",
		}},
	}, d.json(api.Model{}, "The model", exampleModels().Models[0]), refuses(refersam.CodeNotReady, refersam.CodeNotFound))
}

func (d *description) describeService() {
	d.addGuarded(http.MethodGet, "/v1/usage", "service", "usage", "Get the usage of API keys", &huma.Operation{
		Description: "Days are in UTC. Every key may see its own usage; a key with the scope `admin` may see the usage of all keys.",
		Parameters: []*huma.Param{
			dayParam("from", "The first day; the default is 29 days before `to`", "2026-10-24"),
			dayParam("to", "The last day; the default is today", "2026-11-22"),
			narrowed(queryParam("key", "The id of one key", "k7m2q4xw5z3a6bcd"), func(s *huma.Schema) { s.MinLength = new(1) }),
		},
	}, d.json(api.Usage{}, "The usage", api.Usage{
		From: "2026-10-24", To: "2026-11-22",
		Usage: []api.UsageDay{{Day: "2026-11-22", Key: "k7m2q4xw5z3a6bcd", Requests: 120, Pictures: 120, GPUMS: 3184.25}},
	}))

	ok := answered{http.StatusOK, "Yes", map[string]*huma.MediaType{api.MediaText: {Schema: &huma.Schema{Type: huma.TypeString}, Example: "ok\n"}}, nil}
	d.add(http.MethodGet, api.RouteLive, "service", "isAlive", "Check that the process answers", &huma.Operation{}, ok)
	d.add(http.MethodGet, api.RouteReady, "service", "isReady", "Check that the service is ready for requests", &huma.Operation{
		Description: "A service is ready once at least one variant has passed a real inference, until it is asked to stop. A line follows for each variant that cannot be used.",
	}, ok, refuses(refersam.CodeNotReady, refersam.CodeUnavailable))
	d.add(http.MethodGet, "/version", "service", "version", "Get the version of the program", &huma.Operation{},
		d.json(api.Build{}, "The build", api.Build{Version: "v1.0.0", Revision: "9bf976c2d3a1", Go: "go1.26.0"}))
	d.add(http.MethodGet, "/problems/{code}", "service", "problem", "Describe a problem's code", &huma.Operation{
		Parameters: []*huma.Param{{Name: "code", In: "path", Required: true, Description: "The code of the problem", Schema: &huma.Schema{Type: huma.TypeString, Enum: codes()}}},
	}, d.json(api.ProblemDescription{}, "The problem", describe(refersam.CodePhraseEmpty)), refuses(refersam.CodeNotFound))
	object := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeObject}}
	d.add(http.MethodGet, api.RouteSpec+".json", "service", "openapiJSON", "Get the description of the API, as JSON", &huma.Operation{}, fixed("The description", api.MediaJSON, object)...)
	d.add(http.MethodGet, api.RouteSpec+".yaml", "service", "openapiYAML", "Get the description of the API, as YAML", &huma.Operation{}, fixed("The description", api.MediaYAML, object)...)

}

func (d *description) describePages() {
	page := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	d.add(http.MethodGet, "/", "pages", "page", "The web page", &huma.Operation{}, fixed("The page", api.MediaHTML, page)...)
	d.add(http.MethodGet, api.RouteDocs, "pages", "docs", "The description of the API, for people", &huma.Operation{}, fixed("The page", api.MediaHTML, page)...)
	d.add(http.MethodGet, "/web/{file}", "pages", "pageFile", "Get a file of the pages", &huma.Operation{
		Parameters: []*huma.Param{{Name: "file", In: "path", Required: true, Description: "The file's path; it may contain slashes", Schema: &huma.Schema{Type: huma.TypeString}, Example: "shared/icon.svg"}},
	}, append(fixed("The file", "*/*", binaryMedia()), refuses(refersam.CodeNotFound))...)

}

// answered is one possible answer of an operation: a status, or problems.
type answered struct {
	status      int
	description string
	content     map[string]*huma.MediaType
	headers     map[string]*huma.Param
}

// refuses is an answer with one of the problems. Status 0 marks it; content holds
// the codes.
func refuses(codes ...refersam.Code) answered {
	content := make(map[string]*huma.MediaType)
	for _, code := range codes {
		content[string(code)] = nil
	}
	return answered{content: content}
}

// fixed is an answer with a file that does not change while the service runs.
func fixed(description, mediaType string, media *huma.MediaType) []answered {
	return []answered{
		{http.StatusOK, description, map[string]*huma.MediaType{mediaType: media}, map[string]*huma.Param{"ETag": header("Changes with the file", huma.TypeString)}},
		{http.StatusNotModified, "The client has the file already, according to its If-None-Match", nil, nil},
	}
}

func (s *schemas) json(v any, description string, example any) answered {
	return answered{http.StatusOK, description, map[string]*huma.MediaType{api.MediaJSON: s.media(v, example)}, nil}
}

func (s *schemas) responses(answers ...answered) map[string]*huma.Response {
	responses := make(map[string]*huma.Response)
	byStatus := make(map[int][]refersam.Code)
	for _, a := range answers {
		if a.status != 0 {
			responses[strconv.Itoa(a.status)] = &huma.Response{Description: a.description, Content: a.content, Headers: identified(a.headers)}
			continue
		}
		for code := range a.content {
			code := refersam.Code(code)
			if d, _ := api.DescribeProblem(code); !slices.Contains(byStatus[d.Status], code) {
				byStatus[d.Status] = append(byStatus[d.Status], code)
			}
		}
	}
	for status, codes := range byStatus {
		responses[strconv.Itoa(status)] = s.refusal(status, codes)
	}
	return responses
}

// refusal describes a status with its problems, with an example of each problem.
func (s *schemas) refusal(status int, codes []refersam.Code) *huma.Response {
	slices.Sort(codes)
	media := s.media(api.Problem{}, nil)
	media.Examples = make(map[string]*huma.Example)
	var words []string
	for _, code := range codes {
		d, _ := api.DescribeProblem(code)
		words = append(words, fmt.Sprintf("`%s`: %s.", code, d.Title))
		media.Examples[string(code)] = &huma.Example{Summary: d.Title, Value: exampleProblem(code)}
	}
	r := &huma.Response{
		Description: strings.Join(words, " "),
		Content:     map[string]*huma.MediaType{api.MediaProblem: media},
		Headers:     identified(nil),
	}
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests || status == http.StatusConflict {
		r.Headers["Retry-After"] = header("The number of seconds after which to try again; absent with `storage_full`", huma.TypeInteger)
	}
	return r
}

func exampleProblem(code refersam.Code) api.Problem {
	d, _ := api.DescribeProblem(code)
	return api.Problem{Type: api.ProblemType(code), Title: d.Title, Status: d.Status, Detail: d.Cure, Code: code, RequestID: exampleID}
}

func header(description, kind string) *huma.Param {
	return &huma.Param{Description: description, Schema: &huma.Schema{Type: kind}}
}

func identified(headers map[string]*huma.Param) map[string]*huma.Param {
	all := map[string]*huma.Param{api.HeaderRequestID: header("The id of the request, as in the log", huma.TypeString)}
	maps.Copy(all, headers)
	return all
}

// maskHeaders are the headers of a mask as PNG.
func maskHeaders() map[string]*huma.Param {
	origin := header("Where the model's answer came from (PNG only)", huma.TypeString)
	origin.Schema.Enum = origins()
	return map[string]*huma.Param{
		"ETag":                  header("Changes with everything that the masks depend on, but not with the request's id and timings", huma.TypeString),
		"Server-Timing":         header("How long each step took, in milliseconds", huma.TypeString),
		"X-Refersam-Model":      header("The model that answered (PNG only)", huma.TypeString),
		"X-Refersam-Variant":    header("The variant of the model (PNG only)", huma.TypeString),
		"X-Refersam-Status":     header("`ok` or `empty` (PNG only)", huma.TypeString),
		"X-Refersam-Score":      header("The mean foreground probability over the mask, with 4 digits (PNG only)", huma.TypeNumber),
		"X-Refersam-Origin":     origin,
		"X-Refersam-Area":       header("Foreground pixels (PNG only)", huma.TypeInteger),
		"X-Refersam-Bbox":       header("Left, top, width and height in pixels, separated by commas (PNG only)", huma.TypeString),
		"X-Refersam-Components": header("The number of connected parts of the mask, if the request asked for `quality` (PNG only)", huma.TypeInteger),
		"X-Refersam-Stability":  header("How little the mask depends on its threshold, 0 to 1, if the request asked for `quality` (PNG only)", huma.TypeNumber),
		"X-Refersam-Warning":    header("`phrase_truncated; tokens=27; limit=20`: the end of the phrase was not read (PNG only)", huma.TypeString),
	}
}

func requestIDParam() *huma.Param {
	return &huma.Param{
		Name: api.HeaderRequestID, In: "header", Example: exampleID,
		Description: fmt.Sprintf("An id for the request; an id that is not of the form `%s` is replaced", api.RequestIDPattern),
		Schema:      &huma.Schema{Type: huma.TypeString},
	}
}

func idSchema() *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	s.MaxLength, s.Pattern = new(api.MaxID), `^[^\x00]*$`
	return s
}

func unitIDParam() *huma.Param {
	return &huma.Param{
		Name: api.HeaderUnitID, In: "header", Example: "user-17",
		Description: "The user, session or other entity that always gets the same variant; the default is the client's address",
		Schema:      idSchema(),
	}
}

func ifNoneMatchParam() *huma.Param {
	return &huma.Param{
		Name: "If-None-Match", In: "header", Example: `W/"3f0c2a9d8b7e6f5a4c3b2a1908f7e6d5"`,
		Description: "The ETag of an answer that the client has already",
		Schema:      &huma.Schema{Type: huma.TypeString},
	}
}

func queryParam(name, description, example string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: huma.TypeString}, Example: example}
}

func narrowed(p *huma.Param, bound func(*huma.Schema)) *huma.Param {
	bound(p.Schema)
	return p
}

func dayParam(name, description, example string) *huma.Param {
	p := queryParam(name, description, example)
	p.Schema.Format = "date"
	return p
}

// head derives the description of HEAD from the description of GET.
func head(get *huma.Operation) *huma.Operation {
	op := *get
	op.Method = http.MethodHead
	op.OperationID += "Head"
	op.Summary += " (headers only)"
	op.Responses = make(map[string]*huma.Response)
	for status, response := range get.Responses {
		r := *response
		r.Content = nil
		op.Responses[status] = &r
	}
	return &op
}

// introduction describes the rules of the whole API, with a table of all problems.
func introduction() string {
	var b strings.Builder
	b.WriteString(`Which pixels does a phrase mean? A picture and phrases go in, masks come out.

Unknown members and fields are refused, never ignored. Every error is an ` + "`application/problem+json`" + ` (RFC 9457): programs read ` +
		"`code`, people at `detail`; `field`" + ` names the part of the request at fault.

## Problems

| code | status | what it means | what to do |
|---|---|---|---|
`)
	for _, code := range api.Codes() {
		d, _ := api.DescribeProblem(code)
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s |\n", code, d.Status, d.Title, d.Cure)
	}
	return b.String()
}

// examplePNG is a picture of 4 × 2 pixels in base64.
const examplePNG = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAACCAIAAADwyuo0AAAAEElEQVR42mP476AARwzIHACVqgr5fE1q6QAAAABJRU5ErkJggg=="

const exampleID = "PZ4K2C6JXQ7M3VHT5WYNB6ADEF"

func exampleAnswer() *api.Answer {
	return &api.Answer{
		RequestID: exampleID,
		Image:     api.AnswerImage{Width: 4, Height: 2}, Mask: api.AnswerImage{Width: 4, Height: 2},
		Model: api.AnswerModel{Name: "refersam_bert", Variant: "bert", Version: "1"},
		Results: []api.AnswerResult{{
			PromptID: "a", Phrase: "the duck on the left", Status: "ok", Score: 0.97, Origin: string(refersam.OriginModel), Area: 4, BBox: [4]int{1, 0, 2, 2},
			Masks: api.AnswerMasks{RLE: &api.RLE{Size: [2]int{2, 4}, Counts: "242"}},
		}},
		Warnings: []api.Warning{{Code: api.WarningTruncated, Tokens: 27, Limit: 20}},
	}
}

func exampleSegment() stdjson.RawMessage {
	return stdjson.RawMessage(`{"image": {"data": "` + examplePNG + `"}, "prompts": [{"id": "a", "text": "the duck on the left"}],` +
		` "output": {"formats": ["coco_rle", "png"]}}`)
}

func exampleBatch() stdjson.RawMessage {
	return stdjson.RawMessage(`{"items": [{"id": "first", "image": {"data": "` + examplePNG + `"}, "prompts": [{"text": "the duck on the left"}]},` +
		` {"image": {"data": "` + examplePNG + `"}, "prompts": [{"text": "all the apples"}], "output": {"formats": ["png"]}}], "output": {"formats": ["coco_rle"]}}`)
}

func exampleBatchAnswer() api.BatchAnswer {
	refused := exampleProblem(refersam.CodeInvalidImage)
	return api.BatchAnswer{RequestID: exampleID, Results: []api.BatchResult{{ID: "first", Answer: exampleAnswer()}, {Problem: &refused}}}
}

func exampleModels() api.Models {
	most := api.Limits{
		MaxImageBytes: 20 << 20, MaxImagePixels: 50_000_000, MaxImageSide: 16384, MaxImageFrames: 1000, MaxPhrases: 32, MaxPhraseBytes: 1000,
		MaxMaskPixels: 256 << 20, MaxBatchItems: api.MaxItems, MaxBatchBytes: api.MaxBatchBytes, RequestTimeoutMS: 30_000,
	}
	return api.Models{Formats: api.Formats, Limits: most, Unusable: []api.UnusableModel{{
		Name: "refersam_clip", Variant: "clip", Reason: "its stage refersam_clip_decoder is not loaded: Internal: model.onnx does not exist",
	}}, Models: []api.Model{{
		Name: "refersam_bert", Variant: "bert", Version: "1", Label: "demo", Weight: 0.5, ImageSize: 512,
		Tokenizer: "bert-base-uncased", MaxTokens: 20, Threshold: 0.5, Precision: "fp32",
		Checkpoint: strings.Repeat("0", 64),
	}}}
}

// Write returns the description as JSON and as YAML.
func Write() (asJSON, asYAML []byte, err error) {
	compact, err := stdjson.Marshal(New())
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

func describe(code refersam.Code) api.ProblemDescription {
	d, _ := api.DescribeProblem(code)
	return d
}
