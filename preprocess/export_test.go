package preprocess

import (
	"cmp"
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/refersam/refersam"
)

// Guard is guard, for no codec is known to panic.
var Guard = guard

// SetMemory bounds d below what Config.Validate allows, so that tiny pictures
// compete for memory.
func (d *Decoder) SetMemory(bytes int64) {
	d.cfg.DecodeMemory = bytes
	d.memory = semaphore.NewWeighted(bytes)
}

// ResizeExact is Resize with the kernels that are the truth.
func ResizeExact(p *refersam.Picture, width, height int) []uint8 {
	return resize(goKernels, p, width, height)
}

// DecodeJPEG decodes with the plain kernels and, like all that decodes JPEG
// here, gives the rows that it has made ahead of an error.
func DecodeJPEG(data []byte) (pix []uint8, err error) {
	return decodeRows(data, func(ctx context.Context, frame *jpegFrame, row func(y int, rgb []uint8)) error {
		return decodeJPEGRows(ctx, goJPEGKernels, data, frame, row)
	})
}

func decodeRows(data []byte, decode func(ctx context.Context, frame *jpegFrame, row func(y int, rgb []uint8)) error) (pix []uint8, err error) {
	src, frame, err := readJPEGHeader(data)
	if err != nil || src.width*src.height < 1 || src.width*src.height > 1<<20 {
		return nil, cmp.Or(err, errUnsupported)
	}
	err = decode(context.Background(), frame, func(_ int, rgb []uint8) { pix = append(pix, rgb...) })
	return pix, err
}
