package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
)

// The bounds of options.
const (
	maxFormats   = 32
	maxArea      = 1 << 28 // pixels, as many as a picture can have
	maxTolerance = 1000    // pixels
)

// What a prompt's keep may say.
const (
	keepAll     = "all"
	keepLargest = "largest"
)

// whole is a whole number, also one that is written as 64.0, as some
// languages do and JSON Schema has it. One beyond ±2^53 becomes that, which is
// out of every range.
type whole int64

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (n *whole) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '0' {
		return errors.ErrUnsupported // as a number is what it should be
	}
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	f, err := strconv.ParseFloat(token.String(), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || f != math.Trunc(f) {
		return invalid(string(d.StackPointer()), "The value is not a whole number.")
	}
	*n = whole(max(-1<<53, min(f, 1<<53)))
	return nil
}

// formatList has no more than maxFormats names of formats.
type formatList []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *formatList) UnmarshalJSONFrom(d *jsontext.Decoder) (err error) {
	*l, err = readList[string](d, maxFormats)
	return err
}

// options say how one mask is made and written. What is nil is left to the
// defaults of the request, or else to those of the service.
type options struct {
	Formats   formatList `json:"formats"`
	Threshold *float64   `json:"threshold"`
	MinArea   *whole     `json:"min_area"`
	FillHoles *whole     `json:"fill_holes"`
	Keep      *string    `json:"keep"`
	Tolerance *float64   `json:"tolerance"`
}

// output is what holds for the whole request: defaults of the prompts' options,
// and what all masks have in common.
type output struct {
	options
	Size    *string `json:"size"`
	Overlay *string `json:"overlay"`
	Quality *bool   `json:"quality"`
}

// check reports the values that are out of range. field names a member for the
// client.
func (o *options) check(field func(member string) string) error {
	var wrong refersam.Faults
	for i, format := range o.Formats {
		if !slices.Contains(api.Formats, format) {
			wrong.Add(invalid(field(fmt.Sprintf("formats/%d", i)), "There is no format %q; there are %s.", format, strings.Join(api.Formats, ", ")))
		}
	}
	if v := o.Threshold; v != nil && !(*v > 0 && *v < 1) {
		wrong.Add(invalid(field("threshold"), "The threshold must be a number greater than 0 and less than 1."))
	}
	if v := o.Tolerance; v != nil && !(*v >= 0 && *v <= maxTolerance) {
		wrong.Add(invalid(field("tolerance"), "The tolerance must be a number of pixels from 0 to %d.", maxTolerance))
	}
	if v := o.MinArea; v != nil && (*v < 0 || *v > maxArea) {
		wrong.Add(invalid(field("min_area"), "The area must be a number of pixels from 0 to %d.", maxArea))
	}
	if v := o.FillHoles; v != nil && (*v < 0 || *v > maxArea) {
		wrong.Add(invalid(field("fill_holes"), "The area must be a number of pixels from 0 to %d.", maxArea))
	}
	wrong.Add(oneOf(o.Keep, field("keep"), keepAll, keepLargest))
	return wrong.Err()
}

// check is that of options, and for what all masks have in common.
func (o *output) check(field func(member string) string) error {
	var wrong refersam.Faults
	wrong.Add(o.options.check(field))
	wrong.Add(oneOf(o.Size, field("size"), string(refersam.SizeOriginal), string(refersam.SizeModel)))
	wrong.Add(oneOf(o.Overlay, field("overlay"), api.OverlayPNG, api.OverlayJPEG))
	return wrong.Err()
}

// within returns o, with what it leaves open as outer says.
func (o output) within(outer *output) output {
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

func oneOf(value *string, field string, allowed ...string) error {
	if value == nil || slices.Contains(allowed, *value) {
		return nil
	}
	return invalid(field, `The value must be "%s".`, strings.Join(allowed, `" or "`))
}

// size is that of the masks.
func (o *output) size() refersam.Size {
	return refersam.Size(or(o.Size, string(refersam.SizeOriginal)))
}

// quality reports whether results tell how far they are to be trusted.
func (o *output) quality() bool { return or(o.Quality, false) }

// overlay is the kind of file that overlays are.
func (o *output) overlay() string { return or(o.Overlay, api.OverlayPNG) }

// newPrompt makes a prompt with its own options, where it has them, and those
// of the request, which have been checked. field names a member of its own.
func newPrompt(id, text string, request *output, own *options, field func(member string) string) (answer.Prompt, error) {
	if err := own.check(field); err != nil {
		return answer.Prompt{}, err
	}
	all := &request.options
	p := answer.Prompt{
		Phrase: refersam.Phrase{
			ID:        id,
			Text:      text,
			Threshold: or(own.Threshold, or(all.Threshold, 0)),
			FillHoles: int(or(own.FillHoles, or(all.FillHoles, 0))),
			MinArea:   int(or(own.MinArea, or(all.MinArea, 0))),
			Largest:   or(own.Keep, or(all.Keep, keepAll)) == keepLargest,
		},
		Tolerance: or(own.Tolerance, or(all.Tolerance, 0)),
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

// or is *value, or other if there is none.
func or[T any](value *T, other T) T {
	if value == nil {
		return other
	}
	return *value
}
