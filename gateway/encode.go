package gateway

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
	"golang.org/x/sync/semaphore"
)

// tint is how overlays show a mask.
var tint = postprocess.Tint{R: 255, G: 64, B: 32, Opacity: 0.5}

// jpegQuality is that of overlays.
const jpegQuality = 90

// encodeWeight is how many times as long as making a mask it takes to write
// one with as many levels as a picture, about.
const encodeWeight = 10

// encoder writes the masks of one answer.
type encoder struct {
	req   *segmentRequest
	masks []AnswerMasks // one a prompt
	room  *room
}

// encode is a refersam.Request's Encode.
func (e *encoder) encode(i int, r *refersam.Result) error {
	for _, format := range e.req.prompts[i].formats {
		if err := e.write(&e.masks[i], format, e.req.prompts[i].tolerance, r); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) write(m *AnswerMasks, format string, tolerance float64, r *refersam.Result) (err error) {
	switch format {
	case FormatRLE:
		m.RLE = NewRLE(r.Mask)
		return e.room.take(len(m.RLE.Counts))
	case FormatCounts:
		m.Counts = &Counts{[2]int{r.Mask.Height, r.Mask.Width}, r.Mask.Runs}
		return e.room.take(4 * len(r.Mask.Runs))
	case FormatPolygon:
		polygons := postprocess.Polygons(r.Mask, tolerance)
		m.Polygon = &Geometry{"MultiPolygon", append([]postprocess.Polygon{}, polygons...)}
		return e.room.take(polygonBytes(polygons))
	case FormatPNG:
		m.PNG, err = e.file(func(w io.Writer) error { return postprocess.EncodePNG(w, r.Mask) })
	case FormatPNG8:
		m.PNG8, err = e.file(func(w io.Writer) error { return postprocess.EncodePNG8(w, r.Mask) })
	case FormatProbability:
		m.Probability, err = e.file(func(w io.Writer) error {
			return postprocess.EncodeProbability(w, r.Logits, r.Mask.Width, r.Mask.Height)
		})
	case FormatOverlay:
		m.Overlay, err = e.file(func(w io.Writer) error {
			if e.req.output.overlay() == overlayJPEG {
				return postprocess.EncodeOverlayJPEG(w, r.Picture, r.Mask, tint, jpegQuality)
			}
			return postprocess.EncodeOverlayPNG(w, r.Picture, r.Mask, tint)
		})
	default:
		return fmt.Errorf("unknown mask format %q", format)
	}
	return err
}

func polygonBytes(polygons []postprocess.Polygon) int {
	n := 0
	for _, polygon := range polygons {
		for _, ring := range polygon {
			n += 16 * len(ring)
		}
	}
	return n
}

// file returns what write writes.
func (e *encoder) file(write func(io.Writer) error) ([]byte, error) {
	w := &allowed{room: e.room}
	if err := write(w); err != nil {
		return nil, err
	}
	return w.buffer.Bytes(), nil
}

const (
	// maxAnswer is how many bytes the masks of one answer may take.
	maxAnswer = 64 << 20
	// answerCost is how many bytes of memory a byte of a mask takes at most: as
	// for bodies, a growing buffer, and base64 beside it.
	answerCost = 3
)

// room keeps the masks of an answer from taking more than maxAnswer, and
// those of all answers from taking more than the memory they share. Nobody
// waits for memory, because who would has some.
type room struct {
	memory *semaphore.Weighted
	taken  atomic.Int64 // bytes of masks
}

// take is safe for concurrent use: masks of one answer are written at once.
func (a *room) take(n int) error {
	if a.taken.Add(int64(n)) > maxAnswer {
		a.taken.Add(-int64(n))
		return refersam.Errorf(refersam.CodeImageTooLarge,
			"The masks would take more than %d bytes; ask for fewer phrases at once, or for formats that take less.", maxAnswer)
	}
	if !a.memory.TryAcquire(answerCost * int64(n)) {
		a.taken.Add(-int64(n))
		return refersam.Errorf(refersam.CodeOverloaded, "The memory for answers is taken by others; try again soon.")
	}
	return nil
}

// release gives the memory back, once the answer has been written.
func (a *room) release() { a.memory.Release(answerCost * a.taken.Load()) }

// allowed is a buffer that grows within a room.
type allowed struct {
	buffer bytes.Buffer
	room   *room
}

func (w *allowed) Write(p []byte) (int, error) {
	if err := w.room.take(len(p)); err != nil {
		return 0, err
	}
	return w.buffer.Write(p)
}
