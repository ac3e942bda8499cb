package preprocess

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
)

// jpegFrame is what a JPEG's frame header says (ITU-T T.81, B.2.2).
type jpegFrame struct {
	width, height, components int
	progressive               bool
	// kept tells that there is more than one scan, so that the coefficients of
	// all blocks are kept until the last.
	kept bool
}

// jpegXMP begins a segment of XMP.
const jpegXMP = "http://ns.adobe.com/xap/1.0/\x00"

// openJPEG opens a JPEG that readJPEGHeader takes.
func openJPEG(data []byte, cfg *Config) (*source, error) {
	src, frame, err := readJPEGHeader(data)
	if err != nil {
		return nil, err
	}
	src.rows = func(ctx context.Context, denominator int, row func(y int, rgb []uint8)) error {
		return decodeJPEG(ctx, data, frame, denominator, cfg.LenientJPEG, row)
	}
	src.reducible = cfg.ReduceJPEG
	return src, nil
}

// readJPEGHeader reads the size and kind of picture from the frame header and
// the orientation from EXIF and XMP.
func readJPEGHeader(data []byte) (src *source, frame *jpegFrame, err error) {
	src = &source{frames: 1}
	var meta metadata
	for marker, segment := range jpegSegments(data) {
		switch {
		case marker == markerHuffman || marker == markerExtensions || marker == markerArithmetic:
		case marker >= markerFrame0 && marker <= markerFrame15 && frame == nil:
			if frame, err = readJPEGFrame(marker-markerFrame0, segment); err != nil {
				return nil, nil, err
			}
		case marker == markerApp1 && bytes.HasPrefix(segment, []byte(exifPrefix)):
			if meta.exif == nil {
				meta.exif = slices.Clip(segment)
			} else { // a block that is longer than a segment
				meta.exif = append(meta.exif, segment[len(exifPrefix):]...)
			}
		case marker == markerApp1 && bytes.HasPrefix(segment, []byte(jpegXMP)):
			meta.xmp = segment[len(jpegXMP):]
		case marker == markerScan && frame != nil && len(segment) > 0:
			frame.kept = frame.progressive || int(segment[0]) < frame.components
		}
	}
	if frame == nil {
		return nil, nil, cutOff("it has no frame header ahead of the first scan")
	}
	src.orientation = meta.orientation()
	src.width, src.height = frame.width, frame.height
	src.bytesPerPixel = 3
	if frame.kept {
		src.bytesPerPixel += 2 * frame.components // coefficients of 2 bytes
	}
	src.pixelCost = jpegCost(frame)
	return src, frame, nil
}

// readJPEGFrame reads a frame header. The process is the number in its marker:
// 0 and 1 are sequential, 2 is progressive, others are not in use anywhere.
func readJPEGFrame(process uint8, segment []byte) (*jpegFrame, error) {
	if process > 2 {
		return nil, unsupported("coding process SOF%d", process)
	}
	if len(segment) < 6 {
		return nil, errTruncated
	}
	frame := &jpegFrame{
		height:      int(binary.BigEndian.Uint16(segment[1:])),
		width:       int(binary.BigEndian.Uint16(segment[3:])),
		components:  int(segment[5]),
		progressive: process == 2,
	}
	if precision := segment[0]; precision != 8 {
		return nil, unsupported("%d bits a sample", precision)
	}
	if frame.components != 1 && frame.components != 3 && frame.components != 4 {
		return nil, unsupported("%d components", frame.components)
	}
	return frame, nil
}

// jpegSegments yields the marker segments up to the first scan, with its header
// (ITU-T T.81, B.1.1). Like the codec it skips what is no marker.
func jpegSegments(data []byte) func(yield func(marker uint8, segment []byte) bool) {
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

// cmykToRGB converts inks (255 is full) as Pillow does: what the black lets
// through, less the ink's share of it.
func cmykToRGB(rgb, cmyk []uint8) {
	for ; len(rgb) >= 3; rgb, cmyk = rgb[3:], cmyk[4:] {
		light := 255 - uint32(cmyk[3])
		for c := range 3 {
			t := uint32(cmyk[c])*light + 128 // t/255, rounded
			rgb[c] = uint8(light - (t+t>>8)>>8)
		}
	}
}
