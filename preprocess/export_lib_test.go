//go:build cgo && libjpeg

package preprocess

import "context"

// DecodeJPEGFast is DecodeJPEG with the fast kernels, if this CPU has them.
func DecodeJPEGFast(data []byte) (pix []uint8, err error) {
	if fastJPEGKernels == nil {
		return DecodeJPEG(data)
	}
	return decodeRows(data, func(ctx context.Context, frame *jpegFrame, row func(y int, rgb []uint8)) error {
		return decodeJPEGRows(ctx, fastJPEGKernels, data, frame, row)
	})
}

// DecodeLibJPEG is DecodeJPEG with libjpeg alone.
func DecodeLibJPEG(data []byte) (pix []uint8, err error) {
	return decodeRows(data, func(ctx context.Context, frame *jpegFrame, row func(y int, rgb []uint8)) error {
		return decodeLibJPEG(ctx, data, frame, 1, false, row)
	})
}
