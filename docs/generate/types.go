package main

import (
	"fmt"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// requests and answers are the bodies of the API. Every other type of the tables is
// a member of one of them.
var (
	requests = []any{api.SegmentRequest{}, api.BatchRequest{}, api.Upload{}, api.FeedbackRequest{}}
	answers  = []any{
		api.Answer{}, api.BatchAnswer{}, api.Image{}, api.Images{}, api.Job{}, api.Jobs{}, api.JobEvent{}, api.WebhookMessage{}, api.WebhookSecret{},
		api.Feedback{}, api.FeedbackList{}, api.Models{}, api.Usage{}, api.Build{}, api.Problem{}, api.ProblemDescription{},
	}
)

// structs returns the struct types that values consist of, by name.
func structs(values []any) map[string]reflect.Type {
	all := make(map[string]reflect.Type)
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array:
			visit(t.Elem())
		case reflect.Struct:
			if all[t.Name()] != nil || t == reflect.TypeFor[time.Time]() || t.Name() == "" {
				return
			}
			all[t.Name()] = t
			for f := range t.Fields() {
				visit(f.Type)
			}
		}
	}
	for _, v := range values {
		visit(reflect.TypeOf(v))
	}
	return all
}

// places says on which page a type has its table.
type places struct {
	page string // the page that links from here; the keys of of are paths from docs/
	of   map[string]string
}

// placesOfTypes reads the markers of all pages.
func placesOfTypes(pages map[string]string) places {
	p := places{of: make(map[string]string)}
	for name, text := range pages {
		for _, m := range marked.FindAllStringSubmatch(text, -1) {
			switch m[2] {
			case "types":
				for _, t := range strings.Fields(m[3]) {
					p.of[t] = name
				}
			case "limits":
				p.of["Limits"] = name
			}
		}
	}
	return p
}

func (p places) from(page string) places { return places{page, p.of} }

// link links to the table of a type.
func (p places) link(name string) (string, error) {
	page, ok := p.of[name]
	if !ok {
		return "", fmt.Errorf("no page has the table of %s", name)
	}
	target := "#object-" + strings.ToLower(name)
	if page != p.page {
		if path.Dir(page) != path.Dir(p.page) {
			return "", fmt.Errorf("%s and %s are in different folders", page, p.page)
		}
		target = path.Base(page) + target
	}
	return fmt.Sprintf("[`%s`](%s)", name, target), nil
}

// typeTables writes a heading and a table for each type.
func typeTables(names []string, places places) (string, error) {
	sent, received := structs(requests), structs(answers)
	var b strings.Builder
	for i, name := range names {
		t, request := sent[name]
		if !request {
			t = received[name]
		}
		if t == nil {
			return "", fmt.Errorf("package api sends and receives no %s", name)
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "#### Object `%s`\n\n", name)
		if f, ok := t.FieldByName("_"); ok {
			fmt.Fprintf(&b, "%s\n\n", markdown(f.Tag.Get("doc")))
		}
		rows, err := memberRows(t, request, places)
		if err != nil {
			return "", err
		}
		if request {
			b.WriteString(table([]string{"member", "type", "bounds", "default", "meaning"}, rows))
		} else {
			b.WriteString(table([]string{"member", "type", "values", "present", "meaning"}, rows))
		}
	}
	return b.String(), nil
}

func memberRows(t reflect.Type, request bool, places places) ([][]string, error) {
	var rows [][]string
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			link, err := places.link(f.Type.Name())
			if err != nil {
				return nil, err
			}
			rows = append(rows, []string{"all members of " + link, "", "", "", ""})
			continue
		}
		if name == "" {
			continue
		}
		kind, err := typeName(f.Type, places)
		if err != nil {
			return nil, err
		}
		standard, meaning := defaultOf(f.Tag.Get("doc"))
		switch {
		case !request && strings.Contains(options, "omit"):
			standard = "if set"
		case !request:
			standard = "always"
		case f.Tag.Get("required") == "true":
			standard = "required"
		}
		rows = append(rows, []string{"`" + name + "`", kind, bounds(f), standard, meaning})
	}
	return rows, nil
}

// typeName returns a type in words.
func typeName(t reflect.Type, places places) (string, error) {
	switch t {
	case reflect.TypeFor[time.Time]():
		return "time (RFC 3339)", nil
	case reflect.TypeFor[[]byte]():
		return "text in base64", nil
	case reflect.TypeFor[[]refersam.Polygon]():
		return "list of polygons", nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem(), places)
	case reflect.String:
		return "text", nil
	case reflect.Bool:
		return "`true` or `false`", nil
	case reflect.Float64:
		return "number", nil
	case reflect.Struct:
		return places.link(t.Name())
	case reflect.Map:
		return "object of texts", nil
	case reflect.Array:
		kind, err := typeName(t.Elem(), places)
		return fmt.Sprintf("list of %d %ss", t.Len(), kind), err
	case reflect.Slice:
		kind, err := typeName(t.Elem(), places)
		if t.Elem().Kind() != reflect.Struct {
			kind += "s"
		}
		return "list of " + kind, err
	default:
		return "whole number", nil
	}
}

// patterns are the patterns of tags in words; others are shown as they are.
var patterns = map[string]string{
	`^https://`:  "begins with `https://`",
	`\S`:         "not blank",
	`^[^\x00]*$`: "no NUL",
	`^[^\x00]+$`: "not empty, no NUL",
}

// bounds returns the bounds of a member in words, from its tags.
func bounds(f reflect.StructField) string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	tag := f.Tag.Get
	if values := tag("enum"); values != "" {
		add("`%s`", strings.Join(strings.Split(values, ","), "`, `"))
	}
	switch low, high := tag("minimum"), tag("maximum"); {
	case low != "" && high != "":
		add("%s to %s", grouped(low), grouped(high))
	case low != "":
		add("at least %s", grouped(low))
	}
	if low := tag("exclusiveMinimum"); low != "" {
		add("more than %s", low)
	}
	if high := tag("exclusiveMaximum"); high != "" {
		add("less than %s", high)
	}
	switch low, high := tag("minItems"), tag("maxItems"); {
	case low != "" && high != "":
		add("%s to %s entries", low, high)
	case low != "":
		add("at least %s", low)
	case high != "":
		add("at most %s entries", high)
	}
	if tag("minLength") == "1" {
		add("not empty")
	}
	if high := tag("maxLength"); high != "" {
		add("at most %s characters", high)
	}
	if pattern := tag("pattern"); pattern != "" {
		words, ok := patterns[pattern]
		if !ok {
			words = "`" + strings.ReplaceAll(pattern, "|", `\|`) + "`"
		}
		add("%s", words)
	}
	return strings.Join(all, ", ")
}

// grouped writes a whole number with a comma at every thousand.
func grouped(number string) string {
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return number
	}
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// standard matches the end of a doc tag that names the default.
var standard = regexp.MustCompile(`; the default is ([^.;]+)`)

// defaultOf separates the default from the rest of a doc tag.
func defaultOf(doc string) (value, meaning string) {
	if m := standard.FindStringSubmatch(doc); m != nil {
		value, doc = m[1], strings.Replace(doc, m[0], "", 1)
	}
	return markdown(value), markdown(doc)
}

// quoted matches code in a doc tag, which cannot hold backquotes.
var quoted = regexp.MustCompile(`(^|[\s(])'([^']+)'`)

// markdown turns 'code' in a doc tag into Markdown.
func markdown(doc string) string { return quoted.ReplaceAllString(doc, "$1`$2`") }

// formTable describes the fields of a form for masks. They have the types and texts
// of the members in JSON.
func formTable() (string, error) {
	var rows [][]string
	for _, picture := range []struct{ field, member, kind string }{
		{api.FieldImage, "Data", "file"}, {api.FieldImageID, "ID", "text"}, {api.FieldImageURL, "URL", "text"},
	} {
		f, _ := reflect.TypeFor[api.Picture]().FieldByName(picture.member)
		rows = append(rows, []string{"`" + picture.field + "`", "one of the three", picture.kind, bounds(f), "", markdown(f.Tag.Get("doc"))})
	}
	for _, field := range api.FieldNames {
		f, ok := formMember(field)
		if !ok {
			return "", fmt.Errorf("no member in JSON stands for the field %s", field)
		}
		value, meaning := defaultOf(f.Tag.Get("doc"))
		times, kind, bound := "0 or 1", "text", bounds(f)
		switch field {
		case "phrase":
			times, bound = "1 to 32", patterns[`\S`]
		case "format":
			times = "any, or separated by commas"
		case "webhook":
			bound = patterns[`^https://`]
		default:
			var err error
			if kind, err = typeName(f.Type, places{}); err != nil {
				return "", err
			}
		}
		rows = append(rows, []string{"`" + field + "`", times, kind, bound, value, meaning})
	}
	return table([]string{"field", "times", "type", "bounds", "default", "meaning"}, rows), nil
}

// formMember returns the member in JSON that a field of a form stands for.
func formMember(field string) (reflect.StructField, bool) {
	name := map[string]string{"format": "formats", "phrase": "prompts"}[field]
	if name == "" {
		name = field
	}
	for _, t := range []reflect.Type{reflect.TypeFor[api.SegmentRequest](), reflect.TypeFor[api.Output]()} {
		for _, f := range reflect.VisibleFields(t) {
			if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name {
				return f, true
			}
		}
	}
	return reflect.StructField{}, false
}
