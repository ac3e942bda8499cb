package gateway_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/api"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// description is the API's own description. Here answers may have only the members
// that it names, although clients must expect more.
type description struct {
	document   map[string]any
	operations map[string]*operation // by method and path
	compiler   *jsonschema.Compiler
	mu         sync.Mutex // guards the compiler
}

type operation struct {
	pattern   *regexp.Regexp // matches the path
	pointer   string
	responses map[string]any
}

func readDescription(t testing.TB, text []byte) *description {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	d := &description{document: document.(map[string]any), operations: make(map[string]*operation), compiler: jsonschema.NewCompiler()}
	for _, schema := range at(d.document, "components", "schemas") {
		if schema := schema.(map[string]any); schema["additionalProperties"] == nil {
			schema["additionalProperties"] = false
		}
	}
	variable := regexp.MustCompile(`\\\{\w+\\\}`)
	for path, item := range at(d.document, "paths") {
		segment := "[^/]+"
		if strings.HasSuffix(path, "{file}") { // the file may contain slashes
			segment = ".+"
		}
		pattern := regexp.MustCompile("^" + variable.ReplaceAllString(regexp.QuoteMeta(path), segment) + "$")
		for method, op := range item.(map[string]any) {
			d.operations[strings.ToUpper(method)+" "+path] = &operation{
				pattern:   pattern,
				pointer:   "#/paths/" + escape(path) + "/" + method,
				responses: at(op.(map[string]any), "responses"),
			}
		}
	}
	if err := d.compiler.AddResource("openapi.json", d.document); err != nil {
		t.Fatal(err)
	}
	return d
}

// at returns the object below v that the names lead to.
func at(v map[string]any, names ...string) map[string]any {
	for _, name := range names {
		v, _ = v[name].(map[string]any)
	}
	return v
}

// escape writes a name as part of a JSON pointer.
func escape(name string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(name) }

// check checks a value against the schema at a pointer.
func (d *description) check(t testing.TB, pointer string, value []byte) {
	t.Helper()
	d.mu.Lock()
	schema, err := d.compiler.Compile("openapi.json" + pointer)
	d.mu.Unlock()
	if err != nil {
		t.Errorf("%s: %v", pointer, err)
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		t.Errorf("%s: %v\n%.300s", pointer, err, value)
	}
}

// checkAnswer checks an answer against the description of its route.
func (d *description) checkAnswer(t testing.TB, req *http.Request, w *httptest.ResponseRecorder) {
	t.Helper()
	mediaType, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	op := d.find(req.Method, req.URL.Path)
	if op == nil {
		if w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
			return // a test's own route
		}
		d.check(t, "#/components/schemas/Problem", w.Body.Bytes())
		return
	}
	status := strconv.Itoa(w.Code)
	response := at(op.responses, status)
	if response == nil {
		t.Errorf("%s %s has status %s, which is not described: %.300s", req.Method, req.URL.Path, status, w.Body)
		return
	}
	for name := range at(response, "headers") {
		if name == "Retry-After" && w.Header().Get(name) == "" && !strings.Contains(w.Body.String(), `"storage_full"`) {
			t.Errorf("%s %s has status %s and no %s", req.Method, req.URL.Path, status, name)
		}
	}
	content := at(response, "content")
	if w.Body.Len() == 0 || w.Header().Get("Content-Encoding") != "" || content["*/*"] != nil {
		return
	}
	media := at(content, mediaType)
	if media == nil {
		t.Errorf("%s %s has status %s and type %q, which is not described", req.Method, req.URL.Path, status, mediaType)
		return
	}
	if mediaType == "application/json" || mediaType == "application/problem+json" {
		d.check(t, op.pointer+"/responses/"+status+"/content/"+escape(mediaType)+"/schema", w.Body.Bytes())
	}
	if mediaType == "application/problem+json" {
		var p api.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Error(err)
		}
		if at(media, "examples")[string(p.Code)] == nil {
			t.Errorf("%s %s says %s, which is not described", req.Method, req.URL.Path, p.Code)
		}
	}
}

func (d *description) find(method, path string) *operation {
	if op := d.operations[method+" "+path]; op != nil {
		return op
	}
	for name, op := range d.operations {
		if strings.HasPrefix(name, method+" ") && op.pattern.MatchString(path) {
			return op
		}
	}
	return nil
}

var writeOpenAPI = flag.String("openapi", "", "write the description of the API to this file")

// TestOpenAPI_Write writes the description for make openapi-lint.
func TestOpenAPI_Write(t *testing.T) {
	if *writeOpenAPI == "" {
		t.Skip("no -openapi")
	}
	if err := os.WriteFile(*writeOpenAPI, start(t).get("/openapi.json").Body.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every route is described, and every described route exists.
func TestOpenAPI_Routes(t *testing.T) {
	s := start(t)
	var served []string
	for _, route := range s.Routes() {
		served = append(served, route.Method+" "+regexp.MustCompile(`/[:*](\w+)`).ReplaceAllString(route.Path, "/{$1}"))
	}
	slices.Sort(served)
	described := slices.Sorted(maps.Keys(s.description.operations))
	if diff := cmp.Diff(served, described); diff != "" {
		t.Errorf("what is served and what is described differ (-served +described):\n%s", diff)
	}
}

func TestOpenAPI_YAML(t *testing.T) {
	s := start(t)
	var fromYAML, fromJSON any
	if err := yaml.Unmarshal(s.get("/openapi.yaml").Body.Bytes(), &fromYAML); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	var fromAgain any
	for text, v := range map[string]*any{string(again): &fromAgain, s.get("/openapi.json").Body.String(): &fromJSON} {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(fromJSON, fromAgain); diff != "" {
		t.Errorf("JSON and YAML differ:\n%s", diff)
	}
}

// Every schema and every member of a schema has a description.
func TestOpenAPI_Words(t *testing.T) {
	for name, schema := range at(start(t).description.document, "components", "schemas") {
		schema := schema.(map[string]any)
		if schema["description"] == nil {
			t.Errorf("%s has no description", name)
		}
		for member, property := range at(schema, "properties") {
			if property.(map[string]any)["description"] == nil {
				t.Errorf("%s.%s has no description", name, member)
			}
		}
	}
}

// Examples satisfy their schemas.
func TestOpenAPI_Examples(t *testing.T) {
	d := start(t).description
	checked := 0
	var walk func(v any, pointer string)
	walk = func(v any, pointer string) {
		object, ok := v.(map[string]any)
		if !ok {
			return
		}
		for name, below := range object {
			walk(below, pointer+"/"+escape(name))
		}
		if object["schema"] == nil {
			return
		}
		examples := map[string]any{}
		if object["example"] != nil {
			examples["example"] = map[string]any{"value": object["example"]}
		}
		maps.Copy(examples, at(object, "examples"))
		for _, example := range examples {
			text, err := json.Marshal(example.(map[string]any)["value"])
			if err != nil {
				t.Fatal(err)
			}
			d.check(t, pointer+"/schema", text)
			checked++
		}
	}
	walk(d.document, "#")
	if checked < 20 {
		t.Errorf("%d examples, want at least 20", checked)
	}
}

// Every code of the domain is listed with its status and a remedy.
func TestOpenAPI_Codes(t *testing.T) {
	s := start(t)
	source, err := os.ReadFile("../error.go")
	if err != nil {
		t.Fatal(err)
	}
	introduction := at(s.description.document, "info")["description"].(string)
	for _, match := range regexp.MustCompile(`Code = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		var problem api.ProblemDescription
		if err := json.Unmarshal(s.get("/problems/"+match[1]).Body.Bytes(), &problem); err != nil {
			t.Fatal(err)
		}
		row := regexp.MustCompile("(?m)^\\| `" + match[1] + "` \\| " + strconv.Itoa(problem.Status) + " \\| .+ \\| .+ \\|$")
		if problem.Status == 0 || problem.Cure == "" || !row.MatchString(introduction) {
			t.Errorf("%s is not listed with its status and what to do", match[1])
		}
	}
}

// A form's fields are exactly the described ones.
func TestOpenAPI_FormFields(t *testing.T) {
	s := start(t)
	properties := at(s.description.document, "paths", "/v1/segment", "post", "requestBody", "content", "multipart/form-data", "schema", "properties")
	w := s.do(form(part{"colour", "red"}))
	_, list, _ := strings.Cut(w.Body.String(), "the fields are ")
	list, _, _ = strings.Cut(list, ".")
	known := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(known)
	if diff := cmp.Diff(known, slices.Sorted(maps.Keys(properties))); diff != "" {
		t.Errorf("fields that are taken and described differ (-taken +described):\n%s", diff)
	}
}

// Generated clients use the operations' names, so the names must not change.
func TestOpenAPI_OperationIDs(t *testing.T) {
	var ids []string
	for _, path := range at(start(t).description.document, "paths") {
		for method, op := range path.(map[string]any) {
			if method != "head" {
				ids = append(ids, op.(map[string]any)["operationId"].(string))
			}
		}
	}
	slices.Sort(ids)
	want := strings.Fields(`addFeedback cancelJob deleteImage deleteJob docs followJob getImage getImageContent getJob getJobResult getModel getWebhookSecret
		isAlive isReady listFeedback listImages listJobs listModels openapiJSON openapiYAML page pageFile problem redeliverWebhook rotateWebhookSecret
		segment segmentBatch uploadImage usage version`)
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
}
