package api_test

import (
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/refersam/refersam/api"
)

// A tag cannot name a constant, so the tags repeat the bounds.
func TestTags(t *testing.T) {
	for _, bound := range []struct {
		v           any
		field, name string
		want        int
	}{
		{api.BatchRequest{}, "Items", "maxItems", api.MaxItems},
		{api.FeedbackRequest{}, "Item", "maximum", api.MaxItems - 1},
		{api.FeedbackRequest{}, "Result", "maximum", api.MaxPrompts - 1},
		{api.FeedbackRequest{}, "Rating", "maximum", api.MaxRating},
		{api.Options{}, "Formats", "maxItems", api.MaxFormats},
		{api.Options{}, "MinArea", "maximum", api.MaxArea},
		{api.Options{}, "FillHoles", "maximum", api.MaxArea},
		{api.Options{}, "Tolerance", "maximum", api.MaxTolerance},
		{api.Prompt{}, "ID", "maxLength", api.MaxID},
		{api.BatchItem{}, "ID", "maxLength", api.MaxID},
		{api.SegmentRequest{}, "Deadline", "maximum", api.MaxDeadlineMS},
		{api.BatchRequest{}, "Deadline", "maximum", api.MaxDeadlineMS},
	} {
		if got := tag(t, bound.v, bound.field, bound.name); got != strconv.Itoa(bound.want) {
			t.Errorf("%T.%s has %s %q, want %d", bound.v, bound.field, bound.name, got, bound.want)
		}
	}
	for _, text := range []struct {
		v           any
		field, name string
		want        string
	}{
		{api.Options{}, "Formats", "enum", strings.Join(api.Formats, ",")},
		{api.Models{}, "Formats", "enum", strings.Join(api.Formats, ",")},
		{api.Options{}, "Keep", "enum", api.KeepAll + "," + api.KeepLargest},
		{api.Output{}, "Overlay", "enum", api.OverlayPNG + "," + api.OverlayJPEG},
		{api.Picture{}, "ID", "pattern", api.ImageIDPattern},
		{api.FeedbackRequest{}, "RequestID", "pattern", api.RequestIDPattern},
		{api.FeedbackRequest{}, "Verdict", "enum", api.VerdictGood + "," + api.VerdictBad},
		{api.Job{}, "Kind", "enum", api.JobKindSegment + "," + api.JobKindBatch},
	} {
		if got := tag(t, text.v, text.field, text.name); got != text.want {
			t.Errorf("%T.%s has %s %q, want %q", text.v, text.field, text.name, got, text.want)
		}
	}
}

func tag(t *testing.T, v any, field, name string) string {
	t.Helper()
	f, ok := reflect.TypeOf(v).FieldByName(field)
	if !ok {
		t.Fatalf("%T has no field %s", v, field)
	}
	return f.Tag.Get(name)
}
