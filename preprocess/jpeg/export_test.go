//go:build cgo && libjpeg

package jpeg

import (
	"cmp"
	"context"

	"github.com/refersam/refersam/preprocess/picture"
)

// DecodeGo decodes in Go and returns the rows ahead of an error, too.
func DecodeGo(data []byte) (pix []uint8, err error) {
	return decodeRows(data, func(ctx context.Context, frame *frameHeader, draw picture.Draw) error {
		return decodeGo(ctx, data, frame, draw)
	})
}

// DecodeLibJPEG is DecodeGo with libjpeg-turbo.
func DecodeLibJPEG(data []byte) (pix []uint8, err error) {
	return decodeRows(data, func(ctx context.Context, frame *frameHeader, draw picture.Draw) error {
		return decode(ctx, data, frame, 1, false, draw)
	})
}

func decodeRows(data []byte, decode func(ctx context.Context, frame *frameHeader, draw picture.Draw) error) (pix []uint8, err error) {
	frame, _, err := readHeader(data)
	if err != nil || frame.width*frame.height < 1 || frame.width*frame.height > 1<<24 {
		return nil, cmp.Or(err, picture.ErrUnsupported)
	}
	pix = make([]uint8, 0, 3*frame.width*frame.height)
	err = decode(context.Background(), frame, func(_, _ int, rgb []uint8) { pix = append(pix, rgb...) })
	return pix, err
}
