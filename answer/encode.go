package answer

import (
	"fmt"
	"io"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/postprocess"
)

// tint is the colour that an overlay gives a mask.
var tint = postprocess.Tint{R: 255, G: 64, B: 32, Opacity: 0.5}

// jpegQuality is the quality of overlays.
const jpegQuality = 90

// encodeWeight is roughly how much longer it takes to encode a mask with as many
// levels as a picture than to make the mask.
const encodeWeight = 10

// encoder encodes the masks of one answer.
type encoder struct {
	question *Question
	masks    []api.AnswerMasks // one per prompt
	budget   *Budget
}

// encode implements pipeline.Sink.Encode.
func (e *encoder) encode(i int, r *refersam.Result, from pipeline.Origin) error {
	for _, format := range e.question.Prompts[i].Formats {
		if err := e.write(&e.masks[i], format, e.question.Prompts[i].Tolerance, r, from); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) write(m *api.AnswerMasks, format string, tolerance float64, r *refersam.Result, from pipeline.Origin) (err error) {
	switch format {
	case api.FormatRLE:
		m.RLE = NewRLE(r.Mask)
		return e.budget.take(len(m.RLE.Counts))
	case api.FormatCounts:
		m.Counts = &api.Counts{Size: [2]int{r.Mask.Height, r.Mask.Width}, Counts: r.Mask.Runs}
		return e.budget.take(4 * len(r.Mask.Runs))
	case api.FormatPolygon:
		polygons := postprocess.Polygons(r.Mask, tolerance)
		m.Polygon = &api.Geometry{Type: "MultiPolygon", Coordinates: append([]refersam.Polygon{}, polygons...)}
		return e.budget.take(polygonBytes(polygons))
	case api.FormatPNG:
		m.PNG, err = e.file(func(w io.Writer) error { return postprocess.EncodePNG(w, r.Mask) })
	case api.FormatPNG8:
		m.PNG8, err = e.file(func(w io.Writer) error { return postprocess.EncodePNG8(w, r.Mask) })
	case api.FormatProbability:
		m.Probability, err = e.file(func(w io.Writer) error {
			return postprocess.EncodeProbability(w, from.Logits, r.Mask.Width, r.Mask.Height)
		})
	case api.FormatOverlay:
		m.Overlay, err = e.file(func(w io.Writer) error {
			if e.question.Overlay == api.OverlayJPEG {
				return postprocess.EncodeOverlayJPEG(w, from.Picture, r.Mask, tint, jpegQuality)
			}
			return postprocess.EncodeOverlayPNG(w, from.Picture, r.Mask, tint)
		})
	default:
		return fmt.Errorf("unknown mask format %q", format)
	}
	return err
}

func polygonBytes(polygons []refersam.Polygon) int {
	n := 0
	for _, polygon := range polygons {
		for _, ring := range polygon {
			n += 16 * len(ring)
		}
	}
	return n
}

// file returns the bytes that write produces.
func (e *encoder) file(write func(io.Writer) error) ([]byte, error) {
	w := &budgetedBuffer{budget: e.budget}
	if err := write(w); err != nil {
		return nil, err
	}
	return w.buffer.Bytes(), nil
}

// NewRLE encodes a mask as COCO's tools do.
func NewRLE(mask *refersam.Mask) *api.RLE {
	return &api.RLE{Size: [2]int{mask.Height, mask.Width}, Counts: postprocess.RLE(mask)}
}
