package intake

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

// checkOptions reports the values that are out of range. field returns the
// client's name for a member.
func checkOptions(o *api.Options, field func(member string) string) error {
	var wrong refersam.Faults
	for i, format := range o.Formats {
		if !slices.Contains(api.Formats, format) {
			wrong.Add(refersam.Invalidf(field(fmt.Sprintf("formats/%d", i)), "The format %q does not exist; the formats are %s.", format, strings.Join(api.Formats, ", ")))
		}
	}
	if v := o.Threshold; v != nil && !(*v > 0 && *v < 1) {
		wrong.Add(refersam.Invalidf(field("threshold"), "The threshold must be a number greater than 0 and less than 1."))
	}
	if v := o.Tolerance; v != nil && !(*v >= 0 && *v <= api.MaxTolerance) {
		wrong.Add(refersam.Invalidf(field("tolerance"), "The tolerance must be a number of pixels from 0 to %d.", api.MaxTolerance))
	}
	if v := o.MinArea; v != nil && (*v < 0 || *v > api.MaxArea) {
		wrong.Add(refersam.Invalidf(field("min_area"), "The area must be a number of pixels from 0 to %d.", api.MaxArea))
	}
	if v := o.FillHoles; v != nil && (*v < 0 || *v > api.MaxArea) {
		wrong.Add(refersam.Invalidf(field("fill_holes"), "The area must be a number of pixels from 0 to %d.", api.MaxArea))
	}
	wrong.Add(OneOf(o.Keep, field("keep"), api.KeepAll, api.KeepLargest))
	return wrong.Err()
}

// checkOutput checks the options of checkOptions and the options that all masks
// share.
func checkOutput(o *api.Output, field func(member string) string) error {
	var wrong refersam.Faults
	wrong.Add(checkOptions(&o.Options, field))
	wrong.Add(OneOf(o.Size, field("size"), string(refersam.SizeOriginal), string(refersam.SizeModel)))
	wrong.Add(OneOf(o.Overlay, field("overlay"), api.OverlayPNG, api.OverlayJPEG))
	return wrong.Err()
}

// inherit returns o. Members that o leaves out come from outer.
func inherit(o api.Output, outer *api.Output) api.Output {
	if len(o.Formats) == 0 {
		o.Formats = outer.Formats
	}
	o.Threshold = cmp.Or(o.Threshold, outer.Threshold)
	o.MinArea = cmp.Or(o.MinArea, outer.MinArea)
	o.FillHoles = cmp.Or(o.FillHoles, outer.FillHoles)
	o.Keep = cmp.Or(o.Keep, outer.Keep)
	o.Tolerance = cmp.Or(o.Tolerance, outer.Tolerance)
	o.Size = cmp.Or(o.Size, outer.Size)
	o.Overlay = cmp.Or(o.Overlay, outer.Overlay)
	o.Quality = cmp.Or(o.Quality, outer.Quality)
	return o
}

// OneOf returns an error unless value is nil or one of allowed.
func OneOf(value *string, field string, allowed ...string) error {
	if value == nil || slices.Contains(allowed, *value) {
		return nil
	}
	return refersam.Invalidf(field, `The value must be "%s".`, strings.Join(allowed, `" or "`))
}

// newPrompt makes a prompt with its own options and, where it has none, the
// request's options, which must already be checked. field names the prompt's
// members.
func newPrompt(id, text string, request *api.Output, own *api.Options, field func(member string) string) (answer.Prompt, error) {
	if err := checkOptions(own, field); err != nil {
		return answer.Prompt{}, err
	}
	all := &request.Options
	p := answer.Prompt{
		Phrase: refersam.Phrase{
			ID:        id,
			Text:      text,
			Threshold: ValueOr(own.Threshold, ValueOr(all.Threshold, 0)),
			FillHoles: int(ValueOr(own.FillHoles, ValueOr(all.FillHoles, 0))),
			MinArea:   int(ValueOr(own.MinArea, ValueOr(all.MinArea, 0))),
			Largest:   ValueOr(own.Keep, ValueOr(all.Keep, api.KeepAll)) == api.KeepLargest,
		},
		Tolerance: ValueOr(own.Tolerance, ValueOr(all.Tolerance, 0)),
	}
	formats := own.Formats
	if len(formats) == 0 {
		formats = all.Formats
	}
	if p.Chosen = len(formats) > 0; !p.Chosen {
		formats = []string{api.FormatRLE}
	}
	p.Formats = slices.Compact(slices.Sorted(slices.Values(formats)))
	return p, nil
}

// ValueOr returns *value, or other if value is nil.
func ValueOr[T any](value *T, other T) T {
	if value == nil {
		return other
	}
	return *value
}
