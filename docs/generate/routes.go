package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/api/openapi"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/preprocess"
)

// operations returns the operations of the API in the order of their tags, then of
// their paths. HEAD is left out.
func operations() []*huma.Operation {
	o := openapi.New()
	var all []*huma.Operation
	for _, path := range slices.Sorted(maps.Keys(o.Paths)) {
		item := o.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Patch, item.Put, item.Delete} {
			if op != nil {
				all = append(all, op)
			}
		}
	}
	rank := func(op *huma.Operation) int {
		return slices.IndexFunc(o.Tags, func(t *huma.Tag) bool { return t.Name == op.Tags[0] })
	}
	slices.SortStableFunc(all, func(a, b *huma.Operation) int { return rank(a) - rank(b) })
	return all
}

func routeTable() (string, error) {
	var rows [][]string
	for _, op := range operations() {
		rows = append(rows, []string{"`" + op.Method + " " + op.Path + "`", op.Summary})
	}
	return table([]string{"route", "what it does"}, rows), nil
}

// bodyTable lists the media types of the bodies of each route under /v1.
func bodyTable() (string, error) {
	var rows [][]string
	for _, op := range operations() {
		if !strings.HasPrefix(op.Path, "/v1/") {
			continue
		}
		taken, sent := "none", ""
		if op.RequestBody != nil {
			taken = code(slices.Sorted(maps.Keys(op.RequestBody.Content)))
		}
		for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
			switch content := op.Responses[status].Content; {
			case status[0] == '2' && len(content) > 0:
				sent += fmt.Sprintf("%s: %s; ", status, code(slices.Sorted(maps.Keys(content))))
			case status[0] == '2':
				sent += status + ": no body; "
			}
		}
		rows = append(rows, []string{"`" + op.Method + " " + op.Path + "`", taken, strings.TrimSuffix(sent, "; ")})
	}
	return table([]string{"route", "body of the request", "body of a success"}, rows), nil
}

func code(values []string) string { return "`" + strings.Join(values, "`, `") + "`" }

// headerTable lists the headers of a route: "request" or "answer", method, path.
func headerTable(args []string) (string, error) {
	if len(args) != 3 {
		return "", fmt.Errorf("it needs a direction, a method and a path, not %q", args)
	}
	for _, op := range operations() {
		if op.Method != args[1] || op.Path != args[2] {
			continue
		}
		var rows [][]string
		if args[0] == "request" {
			for _, p := range op.Parameters {
				if p.In == "header" {
					rows = append(rows, []string{"`" + p.Name + "`", p.Description})
				}
			}
		} else {
			headers := op.Responses["200"].Headers
			for _, name := range slices.Sorted(maps.Keys(headers)) {
				rows = append(rows, []string{"`" + name + "`", headers[name].Description})
			}
		}
		return table([]string{"header", "meaning"}, rows), nil
	}
	return "", fmt.Errorf("no such route: %s %s", args[1], args[2])
}

func problemTable() (string, error) {
	codes := api.Codes()
	described := func(c refersam.Code) api.ProblemDescription { d, _ := api.DescribeProblem(c); return d }
	slices.SortStableFunc(codes, func(a, b refersam.Code) int { return described(a).Status - described(b).Status })
	var rows [][]string
	for _, c := range codes {
		d := described(c)
		rows = append(rows, []string{fmt.Sprint(d.Status), "`" + string(c) + "`", d.Title, d.Cure})
	}
	return table([]string{"status", "code", "meaning", "remedy"}, rows), nil
}

// limitTable is the table of the object Limits, with the defaults.
func limitTable() (string, error) {
	pictures, phrases := preprocess.DefaultConfig(), pipeline.DefaultConfig()
	most := api.Limits{
		MaxImageBytes: pictures.MaxBytes, MaxImagePixels: pictures.MaxPixels, MaxImageSide: pictures.MaxSide, MaxImageFrames: pictures.MaxFrames,
		MaxPhrases: phrases.MaxPhrases, MaxPhraseBytes: phrases.MaxPhraseBytes, MaxMaskPixels: phrases.MaxMaskPixels,
		MaxBatchItems: api.MaxItems, MaxBatchBytes: api.MaxBatchBytes, RequestTimeoutMS: answer.DefaultConfig().RequestTimeout.Milliseconds(),
	}
	var rows [][]string
	v := reflect.ValueOf(most)
	for f := range v.Type().Fields() {
		if name := f.Tag.Get("json"); name != "" {
			rows = append(rows, []string{"`" + name + "`", grouped(fmt.Sprint(v.FieldByIndex(f.Index).Int())), markdown(f.Tag.Get("doc"))})
		}
	}
	return "#### Object `Limits`\n\n" + table([]string{"member", "default", "bounds"}, rows), nil
}
