// Package jpeg reads baseline, sequential and progressive JPEG with Pillow's
// pixels. A build with libjpeg-turbo decodes with it; other builds decode in Go.
package jpeg

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"

	"github.com/refersam/refersam/preprocess/exif"
	"github.com/refersam/refersam/preprocess/picture"
)

// LibJPEG is the value of Decoder in a build with libjpeg-turbo.
const LibJPEG = "libjpeg-turbo"

// Options need a build with libjpeg-turbo.
type Options struct {
	// Lenient fills the missing end of a picture with grey.
	Lenient bool
	// Reduce makes pictures Reducible.
	Reduce bool
}

// frameHeader is what a JPEG's frame header says (ITU-T T.81, B.2.2).
type frameHeader struct {
	width, height, components int
	progressive               bool
	// kept means that there is more than one scan, so that the coefficients of
	// all blocks are kept until the last.
	kept bool
}

// xmpPrefix begins a segment of XMP.
const xmpPrefix = "http://ns.adobe.com/xap/1.0/\x00"

// source is a JPEG. Its headers up to the first scan have been read.
type source struct {
	data        []byte
	frame       *frameHeader
	orientation picture.Orientation
	options     Options
}

// Open reads the size and kind of picture from the frame header and the
// orientation from EXIF and XMP.
func Open(data []byte, options Options) (picture.Source, error) {
	frame, orientation, err := readHeader(data)
	if err != nil {
		return nil, err
	}
	return &source{data, frame, orientation, options}, nil
}

func (s *source) Header() picture.Header {
	h := picture.Header{
		Width:         s.frame.width,
		Height:        s.frame.height,
		Orientation:   s.orientation,
		Frames:        1,
		InOrder:       true,
		Reducible:     s.options.Reduce,
		BytesPerPixel: 3,
		PixelCost:     sequentialCost,
	}
	if s.frame.kept {
		h.BytesPerPixel += 2 * s.frame.components // coefficients of 2 bytes
	}
	if s.frame.progressive {
		h.PixelCost = progressiveCost
	}
	if s.frame.components == 4 {
		h.PixelCost += picture.CostJPEGInks
	}
	return h
}

// Decode draws the rows from the top.
func (s *source) Decode(ctx context.Context, denominator int, draw picture.Draw) error {
	return decode(ctx, s.data, s.frame, denominator, s.options.Lenient, draw)
}

func readHeader(data []byte) (frame *frameHeader, orientation picture.Orientation, err error) {
	var meta exif.Metadata
	for marker, segment := range segments(data) {
		switch {
		case marker == markerHuffman || marker == markerExtensions || marker == markerArithmetic:
		case marker >= markerFrame0 && marker <= markerFrame15 && frame == nil:
			if frame, err = readFrameHeader(marker-markerFrame0, segment); err != nil {
				return nil, 0, err
			}
		case marker == markerApp1 && bytes.HasPrefix(segment, []byte(exif.Prefix)):
			if meta.EXIF == nil {
				meta.EXIF = slices.Clip(segment)
			} else { // a block that is longer than a segment
				meta.EXIF = append(meta.EXIF, segment[len(exif.Prefix):]...)
			}
		case marker == markerApp1 && bytes.HasPrefix(segment, []byte(xmpPrefix)):
			meta.XMP = segment[len(xmpPrefix):]
		case marker == markerScan && frame != nil && len(segment) > 0:
			frame.kept = frame.progressive || int(segment[0]) < frame.components
		}
	}
	if frame == nil {
		return nil, 0, picture.CutOff("it has no frame header ahead of the first scan")
	}
	return frame, meta.Orientation(), nil
}

// readFrameHeader reads a frame header. The process is the number in its marker:
// 0 and 1 are sequential, 2 is progressive, others are not in use anywhere.
func readFrameHeader(process uint8, segment []byte) (*frameHeader, error) {
	if process > 2 {
		return nil, picture.Unsupported("coding process SOF%d", process)
	}
	if len(segment) < 6 {
		return nil, picture.ErrTruncated
	}
	frame := &frameHeader{
		height:      int(binary.BigEndian.Uint16(segment[1:])),
		width:       int(binary.BigEndian.Uint16(segment[3:])),
		components:  int(segment[5]),
		progressive: process == 2,
	}
	if precision := segment[0]; precision != 8 {
		return nil, picture.Unsupported("%d bits a sample", precision)
	}
	if frame.components != 1 && frame.components != 3 && frame.components != 4 {
		return nil, picture.Unsupported("%d components", frame.components)
	}
	return frame, nil
}

// segments yields the marker segments up to the first scan, with its header
// (ITU-T T.81, B.1.1). Like the codec it skips what is no marker.
func segments(data []byte) func(yield func(marker uint8, segment []byte) bool) {
	return func(yield func(uint8, []byte) bool) {
		for i := 0; i+4 <= len(data); {
			marker := data[i+1]
			switch {
			case data[i] != 0xff || marker == 0xff:
				i++
			case marker == 0 || marker == markerTemporary || markerRestart0 <= marker && marker <= markerStartOfImage:
				i += 2
			case marker == markerEndOfImage:
				return
			default:
				end := i + 2 + int(binary.BigEndian.Uint16(data[i+2:]))
				if end < i+4 || end > len(data) || !yield(marker, data[i+4:end]) || marker == markerScan {
					return
				}
				i = end
			}
		}
	}
}
