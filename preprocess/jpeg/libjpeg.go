//go:build cgo && libjpeg

package jpeg

// #cgo CFLAGS: -O2
// #cgo LDFLAGS: -ljpeg
// #include "libjpeg.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/refersam/refersam/preprocess/picture"
)

// Decoder names what decodes JPEG in this build.
const Decoder = LibJPEG

const (
	sequentialCost  = picture.CostJPEG
	progressiveCost = picture.CostJPEGProgressive
)

// rowsPerCall is how many rows are decoded between two looks at the context. A
// call into C costs 65 ns, a row of a thousand pixels some 5 µs.
const rowsPerCall = 16

var errOutOfMemory = errors.New("out of memory")

// decode draws Pillow's pixels, at 1/denominator of the size. Like Pillow it
// passes over damaged data.
func decode(ctx context.Context, data []byte, frame *frameHeader, denominator int, lenient bool, draw picture.Draw) error {
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(unsafe.SliceData(data))

	var until C.longlong
	if deadline, ok := ctx.Deadline(); ok {
		until = C.refersam_jpeg_now() + C.longlong(max(time.Until(deadline), 1))
	}
	j := C.refersam_jpeg_new((*C.uchar)(unsafe.SliceData(data)), C.size_t(len(data)), until, flag(lenient))
	if j == nil {
		return errOutOfMemory
	}
	defer C.refersam_jpeg_free(j)

	var width, height C.uint
	var components C.int
	if err := libraryError(j, C.refersam_jpeg_start(j, C.int(denominator), &width, &height, &components)); err != nil {
		return err
	}
	columns, lines := int(width), int(height)
	if columns != (frame.width+denominator-1)/denominator || lines != (frame.height+denominator-1)/denominator {
		return fmt.Errorf("%d×%d pixels of a frame of %d×%d", columns, lines, frame.width, frame.height)
	}
	stored := make([]uint8, rowsPerCall*columns*int(components))
	rgb := stored
	if components != 3 {
		rgb = make([]uint8, rowsPerCall*columns*3)
	}
	for y := 0; y < lines; y += rowsPerCall {
		if err := ctx.Err(); err != nil {
			return err
		}
		rows := min(rowsPerCall, lines-y)
		code := C.refersam_jpeg_rows(j, (*C.uchar)(unsafe.SliceData(stored)), C.uint(rows))
		if err := libraryError(j, code); err != nil {
			return err
		}
		switch components {
		case 1:
			for i, v := range stored[:rows*columns] {
				rgb[3*i], rgb[3*i+1], rgb[3*i+2] = v, v, v
			}
		case 4:
			// Like Pillow, take 255 for no ink, whatever the file says of it.
			for i, v := range stored {
				stored[i] = 255 - v
			}
			picture.CMYKToRGB(rgb, stored)
		}
		for i := range rows {
			draw(0, y+i, rgb[i*3*columns:][:3*columns])
		}
	}
	return nil
}

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

func libraryError(j *C.refersam_jpeg, code C.int) error {
	switch code {
	case C.REFERSAM_JPEG_OK:
		return nil
	case C.REFERSAM_JPEG_TRUNCATED:
		return picture.ErrTruncated
	case C.REFERSAM_JPEG_UNSUPPORTED:
		return picture.Unsupported("%s", C.GoString(C.refersam_jpeg_message(j)))
	case C.REFERSAM_JPEG_LATE:
		return context.DeadlineExceeded
	case C.REFERSAM_JPEG_MEMORY:
		return errOutOfMemory
	default:
		return picture.Damaged("%s", C.GoString(C.refersam_jpeg_message(j)))
	}
}
