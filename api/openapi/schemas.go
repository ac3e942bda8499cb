package openapi

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// schemas makes JSON schemas of the types of package api. The tags of a type
// contain everything that the schema says, except for the additions of finish.
type schemas struct {
	registry huma.Registry
	// requests are the types that clients send, by the name of their schema.
	requests map[string]bool
	// fields are the fields of a form or a query, by name, and params the
	// parameters of the query; finish fills them in.
	fields map[string]*huma.Schema
	params map[string]*huma.Param
}

func newSchemas() *schemas {
	s := &schemas{
		registry: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
		requests: make(map[string]bool), fields: make(map[string]*huma.Schema), params: make(map[string]*huma.Param),
	}
	for _, name := range api.FieldNames {
		explode := name != "format"
		s.fields[name] = &huma.Schema{}
		s.params[name] = &huma.Param{Name: name, In: "query", Schema: s.fields[name], Explode: &explode}
	}
	return s
}

// media is a body of v's type that the service sends.
func (s *schemas) media(v, example any) *huma.MediaType {
	return &huma.MediaType{Schema: s.registry.Schema(reflect.TypeOf(v), true, ""), Example: example}
}

// request is a body of v's type that a client sends.
func (s *schemas) request(v, example any) *huma.MediaType {
	s.markRequest(reflect.TypeOf(v))
	return s.media(v, example)
}

// markRequest records that clients send a type and the types of its members.
func (s *schemas) markRequest(t reflect.Type) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		s.markRequest(t.Elem())
	case reflect.Struct:
		if s.requests[t.Name()] {
			return
		}
		s.requests[t.Name()] = true
		for f := range t.Fields() {
			s.markRequest(f.Type)
		}
	}
}

// finish completes the schemas that have been made.
//
// In a type that clients send, members without the tag required may be left out or
// null, and unknown members are refused. A type that the service sends may get more
// members in a later version.
func (s *schemas) finish() {
	all := s.registry.Map()
	for t := range s.types() {
		schema := all[t.Name()]
		if schema == nil {
			continue
		}
		request := s.requests[t.Name()]
		if request {
			schema.Required = required(t)
		} else {
			schema.AdditionalProperties = nil
		}
		if f, ok := t.FieldByName("_"); ok {
			schema.Description = markdown(f.Tag.Get("doc"))
		}
		for name, property := range schema.Properties {
			if f, ok := member(t, name); ok && f.Type == reflect.TypeFor[refersam.Code]() {
				property.Enum = codes()
			}
			property.Nullable = request && !slices.Contains(schema.Required, name) && property.Ref == ""
			complete(property)
		}
	}
	for _, name := range []string{"data", "id", "url"} {
		all["Picture"].Properties[name].Nullable = false
	}
	exactlyOne(all["Picture"])
	all["Output"].Nullable, all["WebhookTarget"].Nullable, all["CorrectedMask"].Nullable = true, true, true
	for name, field := range s.fields {
		for _, from := range []string{"Output", "SegmentRequest"} {
			if property := all[from].Properties[fieldMember(name)]; property != nil {
				*field = *property
				field.Enum = slices.DeleteFunc(slices.Clone(property.Enum), func(v any) bool { return v == nil })
				field.Nullable = false
			}
		}
	}
	*s.fields["webhook"] = huma.Schema{Type: huma.TypeString, Pattern: `^https://`, Description: all["SegmentRequest"].Properties["webhook"].Description}
	one := 1
	s.fields["format"].MinItems = &one
	prompts := all["SegmentRequest"].Properties["prompts"]
	*s.fields["phrase"] = huma.Schema{
		Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString, Pattern: `\S`}, MinItems: &one, Description: prompts.Description,
	}
	for name, param := range s.params {
		param.Description = s.fields[name].Description + " (with a picture as the body)"
	}
}

// types returns the struct types that have a schema.
func (s *schemas) types() map[reflect.Type]bool {
	types := make(map[reflect.Type]bool)
	for name := range s.registry.Map() {
		if t := s.registry.TypeFromRef("#/components/schemas/" + name); t != nil {
			types[t] = true
		}
	}
	return types
}

// member returns the field of a struct type that has a name in JSON.
func member(t reflect.Type, name string) (reflect.StructField, bool) {
	for _, f := range reflect.VisibleFields(t) {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

// required returns the names of the members of a request that must be sent.
func required(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if f.Tag.Get("required") == "true" {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	return names
}

// fieldMember is the member of JSON that a field of a form stands for.
func fieldMember(field string) string {
	if field == "format" {
		return "formats"
	}
	return field
}

// complete replaces huma's schema of a member by the one that the service promises.
func complete(s *huma.Schema) {
	s.Description = markdown(s.Description)
	for items := s.Items; items != nil; items = items.Items {
		items.Nullable, items.Format = false, ""
	}
	if s.Format == "double" || s.Format == "int64" {
		s.Format = ""
	}
	if s.Nullable && len(s.Enum) > 0 {
		s.Enum = append(s.Enum, nil)
	}
}

// quoted matches a piece of code in a doc tag, which cannot hold backquotes.
var quoted = regexp.MustCompile(`(^|[\s(])'([^']+)'`)

// markdown turns 'code' in a doc tag into Markdown.
func markdown(doc string) string { return quoted.ReplaceAllString(doc, "$1`$2`") }

// exactlyOne requires exactly one of the members. Generators of clients understand
// this form; they ignore oneOf with nothing but required.
func exactlyOne(s *huma.Schema) {
	one := 1
	s.MinProperties, s.MaxProperties = &one, &one
}

// segmentBody is the body of POST /v1/segment.
func (s *schemas) segmentBody() *huma.RequestBody {
	no := false
	return &huma.RequestBody{
		Required: true,
		Content: map[string]*huma.MediaType{
			api.MediaJSON: s.request(api.SegmentRequest{}, exampleSegment()),
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

// formSchema describes a form for masks: exactly one of the fields with a picture
// must be present.
func (s *schemas) formSchema() *huma.Schema {
	f := &huma.Schema{
		Type:                 huma.TypeObject,
		AdditionalProperties: false,
		Required:             []string{"phrase"},
		Properties:           pictureFields(true),
	}
	maps.Copy(f.Properties, s.fields)
	return f
}

// pictureFields are the fields of a form that hold a picture.
func pictureFields(byID bool) map[string]*huma.Schema {
	doc := func(member string) string {
		f, _ := reflect.TypeFor[api.Picture]().FieldByName(member)
		return markdown(f.Tag.Get("doc"))
	}
	fields := map[string]*huma.Schema{
		api.FieldImage:    {Type: huma.TypeString, Format: "binary", Description: doc("Data")},
		api.FieldImageURL: {Type: huma.TypeString, Pattern: `^https://`, Description: doc("URL")},
	}
	if byID {
		fields[api.FieldImageID] = &huma.Schema{Type: huma.TypeString, Pattern: api.ImageIDPattern, Description: doc("ID")}
	}
	return fields
}

// fieldParams describes the fields as parameters of a query.
func (s *schemas) fieldParams() []*huma.Param {
	var params []*huma.Param
	for _, name := range api.FieldNames {
		params = append(params, s.params[name])
	}
	return params
}

// enum returns the values of an enumeration.
func enum[T ~string](values ...T) []any {
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

func codes() []any { return enum(api.Codes()...) }

func origins() []any {
	return enum(refersam.OriginModel, refersam.OriginShared, refersam.OriginCache)
}
