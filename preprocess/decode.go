// Package preprocess turns the bytes of a picture into the pixels that the
// model reads: it sniffs the format, refuses what is too large before any
// pixel is decoded, decodes, turns the picture upright and stretches it.
//
// Pixels follow Pillow, which the model's training data went through:
// convert("RGB") drops alpha without premultiplying, JPEG and WebP chroma is
// interpolated as libjpeg and libwebp do, and Resize is BILINEAR to the bit.
package preprocess

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/semaphore"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess/heic"
	"github.com/refersam/refersam/preprocess/picture"
)

// codecState covers the tables and buffers of any codec, in bytes.
const codecState = 1 << 20

// memory returns how much decoding takes at its peak, in bytes. Sides count in
// whole blocks, which is how codecs allocate; 32 is the widest (JPEG 4:1:0).
func memory(h *picture.Header) int64 {
	blocks := func(side int) int64 { return (int64(side) + 31) / 32 * 32 }
	return codecState + h.Overhead + int64(h.BytesPerPixel)*blocks(h.Width)*blocks(h.Height)
}

// Decoder decodes pictures within the bounds of a Config. It is safe for
// concurrent use.
type Decoder struct {
	cfg    Config
	memory *semaphore.Weighted
}

// New returns a Decoder, or the error of cfg.Validate.
func New(cfg Config) (*Decoder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Decoder{cfg: cfg, memory: semaphore.NewWeighted(cfg.DecodeMemory)}, nil
}

// Config returns what the Decoder was made with.
func (d *Decoder) Config() Config { return d.cfg }

// Open reads the header of an encoded picture and reserves the memory that
// decoding will take. It waits while other pictures take all of
// Config.DecodeMemory, so call it while holding nothing that they need. The
// memory is the caller's until Close; data must not change until then.
//
// Every error of Open and Decode is a *refersam.Error about refersam.AtImage:
// CodeUnsupportedMedia when data is in no accepted format, CodeImageTooLarge
// when it is beyond a limit, CodeInvalidImage when it is empty, cut off or
// broken, and CodeDeadlineExceeded when ctx ended first (errors.Is finds its
// cause).
func (d *Decoder) Open(ctx context.Context, data []byte) (*Encoded, error) {
	e, err := d.inspect(data)
	if err != nil {
		return nil, err
	}
	// Padding can lift a picture at every limit above the whole: it takes all.
	need := min(memory(&e.header), d.cfg.DecodeMemory)
	if err := d.memory.Acquire(ctx, need); err != nil {
		return nil, late(err)
	}
	e.release = func() { d.memory.Release(need) }
	return e, nil
}

// Header is what the header of an encoded picture says.
type Header struct {
	// Width and Height are the size of the upright picture, in pixels.
	Width, Height int
	// MediaType is the media type of the format, as "image/jpeg".
	MediaType string
}

// Header reads the header of an encoded picture. It returns the errors of Open,
// but never waits.
func (d *Decoder) Header(data []byte) (Header, error) {
	e, err := d.inspect(data)
	if err != nil {
		return Header{}, err
	}
	width, height := e.Size()
	return Header{width, height, "image/" + strings.ToLower(e.format)}, nil
}

// inspect is Open without memory.
func (d *Decoder) inspect(data []byte) (*Encoded, error) {
	if len(data) == 0 {
		return nil, fail(refersam.CodeInvalidImage, nil, "The picture is empty (0 bytes).")
	}
	if int64(len(data)) > d.cfg.MaxBytes {
		return nil, fail(refersam.CodeImageTooLarge, nil,
			"The picture has %d bytes; at most %d are accepted.", len(data), d.cfg.MaxBytes)
	}
	for _, f := range formats {
		if f.magic(data) {
			return d.read(f.name, f.open, data)
		}
	}
	return nil, fail(refersam.CodeUnsupportedMedia, nil,
		"This is not a picture in an accepted format; send JPEG, PNG, WebP, GIF, BMP or TIFF.")
}

// read reads the header of a picture in a format.
func (d *Decoder) read(name string, open func([]byte, *Config) (picture.Source, error), data []byte) (*Encoded, error) {
	var src picture.Source
	err := guard(func() (err error) {
		src, err = open(data, &d.cfg)
		return err
	})
	if err != nil {
		return nil, broken(name, err)
	}
	header := src.Header()
	if header.Width < 1 || header.Height < 1 {
		return nil, fail(refersam.CodeInvalidImage, nil, "The picture claims to be %d×%d pixels.", header.Width, header.Height)
	}
	if err := d.cfg.limits().Check(header.Width, header.Height); err != nil {
		return nil, broken(name, err)
	}
	if header.Frames > d.cfg.MaxFrames {
		return nil, fail(refersam.CodeImageTooLarge, nil,
			"The %s holds more than the %d pictures that are accepted in one file; send the one that you mean.", name, d.cfg.MaxFrames)
	}
	return &Encoded{format: name, source: src, header: header}, nil
}

// Encoded is an encoded picture. Its header has been read, and memory is
// reserved for its pixels.
type Encoded struct {
	format  string
	source  picture.Source
	header  picture.Header
	release func()
}

// Size returns width and height of the upright picture in pixels.
func (e *Encoded) Size() (width, height int) {
	if e.header.Orientation.Transposed() {
		return e.header.Height, e.header.Width
	}
	return e.header.Width, e.header.Height
}

// Decode returns the pixels: upright, RGB, alpha dropped; of an animation the
// first frame on its canvas. They fit in the reserved memory.
func (e *Encoded) Decode(ctx context.Context) (*refersam.Picture, error) {
	h := &e.header
	dst := newCanvas(make([]uint8, 3*h.Width*h.Height), h.Width, h.Height, h.Orientation)
	if err := e.guard(ctx, func() error { return e.source.Decode(ctx, 1, dst.setRow) }); err != nil {
		return nil, err
	}
	return dst.picture(), nil
}

// Stretch returns the picture as Decode does, resized to width × height pixels:
// RGB, row by row. Of a JPEG in one scan it holds a few rows at a time.
func (e *Encoded) Stretch(ctx context.Context, width, height int) ([]uint8, error) {
	out := make([]uint8, 3*width*height)
	if err := e.stretchInto(ctx, out, width, height); err != nil {
		return nil, err
	}
	return out, nil
}

// stretchInto is Stretch for the 3·width·height bytes of out.
func (e *Encoded) stretchInto(ctx context.Context, out []uint8, width, height int) error {
	if !e.header.InOrder {
		picture, err := e.Decode(ctx)
		if err != nil {
			return err
		}
		resizeInto(fastKernels, out, picture, width, height)
		return nil
	}
	denominator := e.denominator(width, height)
	reduced := func(side int) int { return (side + denominator - 1) / denominator }
	dst := newStretcher(fastKernels, out, reduced(e.header.Width), reduced(e.header.Height), e.header.Orientation, width, height)
	draw := func(_, y int, rgb []uint8) { dst.setRow(y, rgb) }
	if err := e.guard(ctx, func() error { return e.source.Decode(ctx, denominator, draw) }); err != nil {
		return err
	}
	dst.finish()
	return nil
}

// denominator returns how much smaller the picture may be decoded for a result
// of width × height pixels.
func (e *Encoded) denominator(width, height int) int {
	const enough = 2 // what is resized then has four pixels or more for one
	d := 1
	if e.header.Reducible {
		w, h := e.Size()
		for d < 8 && w/(2*d) >= enough*width && h/(2*d) >= enough*height {
			d *= 2
		}
	}
	return d
}

// guard calls a function that decodes and gives its error as Open does.
func (e *Encoded) guard(ctx context.Context, decode func() error) error {
	err := guard(decode)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return late(ctx.Err())
	}
	return broken(e.format, err)
}

// Close gives the memory back. Call it once, when the decoded picture is of no
// more use either.
func (e *Encoded) Close() { e.release() }

// guard calls f and turns a panic into an error: a codec that trips over a
// hostile picture must not take the service down.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

func fail(code refersam.Code, cause error, format string, args ...any) *refersam.Error {
	return &refersam.Error{Code: code, Message: fmt.Sprintf(format, args...), At: refersam.AtImage, Err: cause}
}

func late(cause error) *refersam.Error {
	return fail(refersam.CodeDeadlineExceeded, cause, "The picture was not decoded in time.")
}

// broken makes the error for the client: too large for a picture beyond the
// limits, unsupported for a valid picture that no codec here can read, invalid
// for others. It names the fault.
func broken(name string, cause error) *refersam.Error {
	text := ""
	if f := (*picture.Fault)(nil); errors.As(cause, &f) {
		text = cause.Error()
	}
	switch {
	case errors.Is(cause, heic.ErrNotBuilt):
		return fail(refersam.CodeUnsupportedMedia, cause, "HEIC is not accepted here; send the picture as JPEG or PNG.")
	case errors.Is(cause, picture.ErrTooLarge):
		return fail(refersam.CodeImageTooLarge, nil, "%s", text)
	case errors.Is(cause, picture.ErrUnsupported):
		return fail(refersam.CodeUnsupportedMedia, cause, "This %s uses a feature that is not supported%s. Save it as a plain PNG or JPEG.",
			name, colon(text))
	case errors.Is(cause, picture.ErrTruncated) || errors.Is(cause, io.ErrUnexpectedEOF):
		return fail(refersam.CodeInvalidImage, cause, "The %s is cut off: %s.", name, cmp.Or(text, "its data ends before the picture does"))
	}
	return fail(refersam.CodeInvalidImage, cause, "The %s is broken%s.", name, colon(text))
}

// colon puts a colon before a text that is not empty.
func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
