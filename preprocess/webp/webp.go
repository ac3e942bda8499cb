// Package webp reads the first frame of a WebP.
package webp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"

	"golang.org/x/image/vp8"
	"golang.org/x/image/vp8l"

	"github.com/refersam/refersam/preprocess/exif"
	"github.com/refersam/refersam/preprocess/picture"
)

// source is a WebP with the frame that is decoded of it.
type source struct {
	header picture.Header
	frame  *bitstream
}

func (s *source) Header() picture.Header { return s.header }

// bitstream is the first frame of a WebP and where it lies on the canvas.
type bitstream struct {
	x, y, width, height int
	lossless            bool
	data                []byte
}

// Open walks the RIFF chunks (RFC 9649, section 2). Of the frame itself only the
// VP8 or VP8L bitstream is decoded, because alpha is dropped. Broken chunks
// behind the frame do no harm.
func Open(data []byte, _ picture.Limits) (picture.Source, error) {
	var (
		canvasSize image.Point // of the VP8X chunk, if there is one
		animated   bool
		frame      *bitstream
		meta       exif.Metadata
		frames     int
	)
	walk := func(id string, chunk []byte) error {
		var err error
		switch {
		case id == "VP8X":
			const animation = 1 << 1
			if len(chunk) < 10 {
				return picture.ErrTruncated
			}
			animated = chunk[0]&animation != 0
			canvasSize = image.Pt(1+uint24(chunk[4:]), 1+uint24(chunk[7:]))
		case id == "EXIF" && meta.EXIF == nil:
			meta.EXIF = chunk
		case id == "XMP " && meta.XMP == nil:
			meta.XMP = chunk
		case id == "ANMF" && animated:
			if frames++; frame == nil {
				frame, err = animationFrame(chunk)
			}
		case (id == "VP8 " || id == "VP8L") && !animated && frame == nil:
			frame, err = readBitstream(id, chunk)
		}
		return err
	}
	end := min(8+uint64(binary.LittleEndian.Uint32(data[4:])), uint64(len(data)))
	err := riffChunks(data[12:max(end, 12)], walk)
	if frame == nil {
		return nil, cmp.Or(err, picture.Damaged("it has no frame"))
	}
	if canvasSize == (image.Point{}) {
		canvasSize = image.Pt(frame.width, frame.height)
	}
	if !animated && canvasSize != image.Pt(frame.width, frame.height) {
		return nil, picture.Damaged("its canvas is %d×%d and its picture %d×%d", canvasSize.X, canvasSize.Y, frame.width, frame.height)
	}
	if frame.x+frame.width > canvasSize.X || frame.y+frame.height > canvasSize.Y {
		return nil, picture.Damaged("its first frame lies outside of the canvas")
	}
	h := picture.Header{
		Width:       canvasSize.X,
		Height:      canvasSize.Y,
		Orientation: meta.Orientation(),
		Frames:      max(frames, 1),
		// Luma, a quarter of Cb and Cr each, RGB.
		BytesPerPixel: 2 + 3,
		PixelCost:     picture.CostWebPLossy,
	}
	if frame.lossless {
		// RGBA before and after the inverse transforms, RGB. A byte of data
		// can describe up to 50 bytes of Huffman trees.
		h.BytesPerPixel = 4 + 4 + 3
		h.PixelCost = picture.CostWebPLossless
		h.Overhead = min(64*int64(len(frame.data)), picture.MaxOverhead)
	}
	return &source{h, frame}, nil
}

// riffChunks calls f for each chunk of data until one fails or the data ends.
func riffChunks(data []byte, f func(id string, chunk []byte) error) error {
	for len(data) >= 8 {
		size := uint64(binary.LittleEndian.Uint32(data[4:]))
		if 8+size > uint64(len(data)) {
			return picture.ErrTruncated
		}
		if err := f(string(data[:4]), data[8:8+size]); err != nil {
			return err
		}
		data = data[min(8+size+size%2, uint64(len(data))):]
	}
	return nil
}

// animationFrame reads an ANMF chunk: 16 bytes of position, size and
// timing, then chunks as in a still picture.
func animationFrame(chunk []byte) (*bitstream, error) {
	const headerSize = 16
	if len(chunk) < headerSize {
		return nil, picture.ErrTruncated
	}
	var frame *bitstream
	err := riffChunks(chunk[headerSize:], func(id string, chunk []byte) (err error) {
		if (id == "VP8 " || id == "VP8L") && frame == nil {
			frame, err = readBitstream(id, chunk)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if frame == nil || frame.width != 1+uint24(chunk[6:]) || frame.height != 1+uint24(chunk[9:]) {
		return nil, picture.Damaged("its first frame is not as its header says")
	}
	frame.x, frame.y = 2*uint24(chunk), 2*uint24(chunk[3:])
	return frame, nil
}

// readBitstream reads the size of a key frame (RFC 6386, 9.1) or of a lossless
// picture (RFC 9649, 3.4).
func readBitstream(id string, chunk []byte) (*bitstream, error) {
	const keyFrameHeader = 10
	if len(chunk) < keyFrameHeader {
		return nil, picture.ErrTruncated
	}
	f := &bitstream{data: chunk}
	if id == "VP8L" {
		size := binary.LittleEndian.Uint32(chunk[1:])
		f.lossless, f.width, f.height = true, 1+int(size&0x3fff), 1+int(size>>14&0x3fff)
		return f, nil
	}
	const interFrame = 1
	if chunk[0]&interFrame != 0 {
		return nil, picture.Damaged("its first frame is not a key frame")
	}
	f.width = int(binary.LittleEndian.Uint16(chunk[6:]) & 0x3fff)
	f.height = int(binary.LittleEndian.Uint16(chunk[8:]) & 0x3fff)
	return f, nil
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

func (s *source) Decode(ctx context.Context, _ int, draw picture.Draw) error {
	f := s.frame
	r := contextReader{ctx, bytes.NewReader(f.data)}
	if f.lossless {
		img, err := vp8l.Decode(r)
		if err != nil {
			return dataError(err)
		}
		m, ok := img.(*image.NRGBA)
		if !ok {
			return fmt.Errorf("%w: pixels of type %T", picture.ErrUnsupported, img)
		}
		f.drawNRGBA(draw, m)
		return nil
	}
	d := vp8.NewDecoder()
	d.Init(r, len(f.data))
	if _, err := d.DecodeFrameHeader(); err != nil {
		return dataError(err)
	}
	m, err := d.DecodeFrame()
	if err != nil {
		return dataError(err)
	}
	f.drawYUV(draw, m)
	return nil
}

func dataError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return picture.CutOff("the data of its first frame ends before the pixels do")
	}
	return picture.Damaged("the data of its first frame is wrong (%v)", err)
}

func (f *bitstream) drawNRGBA(draw picture.Draw, m *image.NRGBA) {
	row := make([]uint8, 3*f.width)
	for y := range f.height {
		src := m.Pix[y*m.Stride:]
		for x := range f.width {
			copy(row[3*x:3*x+3], src[4*x:])
		}
		draw(f.x, f.y+y, row)
	}
}

// drawYUV draws 4:2:0 planes as libwebp does: a triangle filter on chroma that
// rounds in its own way, then limited-range BT.601.
func (f *bitstream) drawYUV(draw picture.Draw, m *image.YCbCr) {
	width, height := (f.width+1)/2, (f.height+1)/2
	u, v := make([]uint8, 2*width), make([]uint8, 2*width)
	row := make([]uint8, 3*f.width)
	for y := range f.height {
		near := y / 2 * m.CStride
		far := min(max(y/2-1+y%2*2, 0), height-1) * m.CStride
		upsample(u, m.Cb[near:][:width], m.Cb[far:][:width])
		upsample(v, m.Cr[near:][:width], m.Cr[far:][:width])
		for x, l := range m.Y[y*m.YStride:][:f.width] {
			row[3*x], row[3*x+1], row[3*x+2] = yuv(int32(l), int32(u[x]), int32(v[x]))
		}
		draw(f.x, f.y+y, row)
	}
}

// upsample doubles a chroma line that lies between near and far. Each
// sample is 9/16, 3/16, 3/16 and 1/16 of the four around it, computed as the
// mean of the nearest and a rounded-down diagonal (libwebp, upsampling.c).
func upsample(dst, near, far []uint8) {
	last := len(near) - 1
	edge := func(i int) uint8 { return uint8((3*int32(near[i]) + int32(far[i]) + 2) >> 2) }
	dst[0], dst[2*last+1] = edge(0), edge(last)
	for i := range last {
		a, b := int32(near[i]), int32(near[i+1])
		c, d := int32(far[i]), int32(far[i+1])
		sum := a + b + c + d + 8
		dst[2*i+1] = uint8((a + (sum+2*(b+c))>>3) >> 1)
		dst[2*i+2] = uint8((b + (sum+2*(a+d))>>3) >> 1)
	}
}

// yuv converts limited-range BT.601 with 6 fractional bits (libwebp, yuv.h).
func yuv(y, u, v int32) (r, g, b uint8) {
	y = 19077 * y >> 8
	return picture.Clip((y + 26149*v>>8 - 14234) >> 6),
		picture.Clip((y - 6419*u>>8 - 13320*v>>8 + 8708) >> 6),
		picture.Clip((y + 33050*u>>8 - 17685) >> 6)
}

// contextReader fails with the context's error once the context has ended,
// which stops codecs that know nothing of contexts.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
