// Package preprocess turns the bytes of a picture into the pixels that the
// model reads: it sniffs the format, refuses what is too large before any
// pixel is decoded, decodes, turns the picture upright and stretches it.
//
// Pixels follow Pillow, which the model's training data went through:
// convert("RGB") drops alpha without premultiplying, JPEG and WebP chroma is
// interpolated as libjpeg and libwebp do, and Resize is BILINEAR to the bit.
package preprocess

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/semaphore"

	"github.com/refersam/refersam"
)

// field is the part of a request that this package's errors are about.
const field = "image"

// source is a picture whose header has been read and whose pixels have not.
type source struct {
	// width and height are as stored, before orientation is applied.
	width, height int
	orientation   orientation
	// bytesPerPixel is the memory that decoding holds at its peak, in bytes a
	// pixel of width × height, the RGB result included; overhead is what comes
	// on top, in bytes.
	bytesPerPixel int
	overhead      int64
	// pixelCost is one of the costs in cost.go.
	pixelCost int
	// frames counts the pictures in the file, at least 1 and up to one beyond
	// Config.MaxFrames. Only the first is ever decoded.
	frames int
	// decode draws all pixels on a canvas of width × height. It stops soon
	// after ctx ends, except in a lossy WebP: its codec reads all data before
	// it decodes any.
	decode func(ctx context.Context, dst *canvas) error
	// rows gives the rows as stored, from the top, at 1/denominator of the size,
	// sides rounded up, without holding them all. It may begin again from row 0.
	// It is nil for what only decode can do. A denominator other than 1 is 2, 4
	// or 8 and needs reducible.
	rows      func(ctx context.Context, denominator int, row func(y int, rgb []uint8)) error
	reducible bool
}

// maxBytesPerPixel is the largest source.bytesPerPixel, that of HEIC.
const maxBytesPerPixel = 24

// maxOverhead is the largest source.overhead that does not grow with the pixels:
// of a lossless WebP with as many and as large Huffman trees as its codec allows
// (2600 groups of 52 kB). The blocks of a TIFF take 8 bytes a pixel at most.
const maxOverhead = 136 << 20

// codecState covers the tables and buffers of any codec, in bytes.
const codecState = 1 << 20

// memory returns how much decoding takes at its peak, in bytes. Sides count in
// whole blocks, which is how codecs allocate; 32 is the widest (JPEG 4:1:0).
func (s *source) memory() int64 {
	blocks := func(side int) int64 { return (int64(side) + 31) / 32 * 32 }
	return codecState + s.overhead + int64(s.bytesPerPixel)*blocks(s.width)*blocks(s.height)
}

// formats are the accepted encodings. open reads the header only, and keeps to
// the options of a Config; its bounds are for its caller to check.
var formats = []struct {
	name  string
	magic func(data []byte) bool
	open  func(data []byte, cfg *Config) (*source, error)
}{
	{"JPEG", func(b []byte) bool { return bytes.HasPrefix(b, []byte("\xff\xd8\xff")) }, openJPEG},
	{"PNG", func(b []byte) bool { return bytes.HasPrefix(b, []byte(pngMagic)) }, openPNG},
	{"WebP", func(b []byte) bool { return len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP" }, openWebP},
	{"GIF", func(b []byte) bool {
		return bytes.HasPrefix(b, []byte("GIF87a")) || bytes.HasPrefix(b, []byte("GIF89a"))
	}, openGIF},
	{"BMP", func(b []byte) bool { return bytes.HasPrefix(b, []byte("BM")) }, openBMP},
	{"TIFF", func(b []byte) bool {
		magic := string(b[:min(4, len(b))])
		return magic == tiffLittleEndian || magic == tiffBigEndian || magic == bigTIFFLittleEndian || magic == bigTIFFBigEndian
	}, openTIFF},
	{"HEIC", isHEIC, openHEIC},
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
// Every error of Open and Decode is a *refersam.Error about the field "image":
// CodeUnsupportedMedia when data is in no accepted format, CodeImageTooLarge
// when it is beyond a limit, CodeInvalidImage when it is empty, cut off or
// broken, and CodeDeadlineExceeded when ctx ended first (errors.Is tells its
// cause).
func (d *Decoder) Open(ctx context.Context, data []byte) (*Encoded, error) {
	if len(data) == 0 {
		return nil, fail(refersam.CodeInvalidImage, nil, "The picture is empty (0 bytes).")
	}
	if int64(len(data)) > d.cfg.MaxBytes {
		return nil, fail(refersam.CodeImageTooLarge, nil,
			"The picture has %d bytes; at most %d are accepted.", len(data), d.cfg.MaxBytes)
	}
	for _, f := range formats {
		if f.magic(data) {
			return d.reserve(ctx, f.name, f.open, data)
		}
	}
	return nil, fail(refersam.CodeUnsupportedMedia, nil,
		"This is not a picture in an accepted format; send JPEG, PNG, WebP, GIF, BMP or TIFF.")
}

func (d *Decoder) reserve(ctx context.Context, name string, open func([]byte, *Config) (*source, error), data []byte) (*Encoded, error) {
	var src *source
	err := guard(func() (err error) {
		src, err = open(data, &d.cfg)
		return err
	})
	if err != nil {
		return nil, broken(name, err)
	}
	if err := d.cfg.checkSize(src.width, src.height); err != nil {
		return nil, err
	}
	if src.frames > d.cfg.MaxFrames {
		return nil, fail(refersam.CodeImageTooLarge, nil,
			"The %s holds more than the %d pictures that are accepted in one file; send the one that you mean.", name, d.cfg.MaxFrames)
	}
	// Padding can lift a picture at every limit above the whole: it takes all.
	need := min(src.memory(), d.cfg.DecodeMemory)
	if err := d.memory.Acquire(ctx, need); err != nil {
		return nil, late(err)
	}
	return &Encoded{format: name, src: src, release: func() { d.memory.Release(need) }}, nil
}

// Encoded is a picture whose header has been read and for which memory is
// reserved.
type Encoded struct {
	format  string
	src     *source
	release func()
}

// MediaType returns the media type of the format, as "image/jpeg".
func (e *Encoded) MediaType() string { return "image/" + strings.ToLower(e.format) }

// Size returns width and height of the upright picture in pixels.
func (e *Encoded) Size() (width, height int) {
	if e.src.orientation.transposed() {
		return e.src.height, e.src.width
	}
	return e.src.width, e.src.height
}

// Decode returns the pixels: upright, RGB, alpha dropped; of an animation the
// first frame on its canvas. They fit in the reserved memory.
func (e *Encoded) Decode(ctx context.Context) (*refersam.Picture, error) {
	dst := newCanvas(make([]uint8, 3*e.src.width*e.src.height), e.src.width, e.src.height, e.src.orientation)
	err := e.guard(ctx, func() error {
		if e.src.rows != nil {
			return e.src.rows(ctx, 1, func(y int, rgb []uint8) { dst.setRow(0, y, rgb) })
		}
		return e.src.decode(ctx, dst)
	})
	if err != nil {
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
	if e.src.rows == nil {
		picture, err := e.Decode(ctx)
		if err != nil {
			return err
		}
		resizeInto(fastKernels, out, picture, width, height)
		return nil
	}
	denominator := e.denominator(width, height)
	reduced := func(side int) int { return (side + denominator - 1) / denominator }
	dst := newStretcher(fastKernels, out, reduced(e.src.width), reduced(e.src.height), e.src.orientation, width, height)
	if err := e.guard(ctx, func() error { return e.src.rows(ctx, denominator, dst.setRow) }); err != nil {
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
	if e.src.reducible {
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

// checkSize refuses what is larger than the limits.
func (c *Config) checkSize(width, height int) error {
	switch {
	case width < 1 || height < 1:
		return fail(refersam.CodeInvalidImage, nil, "The picture claims to be %d×%d pixels.", width, height)
	case width > c.MaxSide || height > c.MaxSide:
		return fail(refersam.CodeImageTooLarge, nil,
			"The picture is %d×%d pixels; each side may have at most %d.", width, height, c.MaxSide)
	case int64(width)*int64(height) > int64(c.MaxPixels):
		return fail(refersam.CodeImageTooLarge, nil, "The picture is %d×%d = %d pixels; at most %d are accepted.",
			width, height, int64(width)*int64(height), c.MaxPixels)
	}
	return nil
}

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
	return &refersam.Error{Code: code, Message: fmt.Sprintf(format, args...), Field: field, Err: cause}
}

func late(cause error) *refersam.Error {
	return fail(refersam.CodeDeadlineExceeded, cause, "The picture was not decoded in time.")
}

// broken makes the error for the client: unsupported for a valid picture that no
// codec here can read, invalid for others. It names the fault.
func broken(name string, cause error) *refersam.Error {
	var known *refersam.Error
	if errors.As(cause, &known) {
		return known
	}
	text := ""
	if f := (*fault)(nil); errors.As(cause, &f) {
		text = cause.Error()
	}
	switch {
	case errors.Is(cause, errUnsupported):
		return fail(refersam.CodeUnsupportedMedia, cause, "This %s uses a feature that is not supported%s. Save it as a plain PNG or JPEG.",
			name, colon(text))
	case errors.Is(cause, errTruncated) || errors.Is(cause, io.ErrUnexpectedEOF):
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

// contextReader fails with the context's error once that has ended, which
// stops codecs that know nothing of contexts.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func newContextReader(ctx context.Context, data []byte) io.Reader {
	return contextReader{ctx, bytes.NewReader(data)}
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
