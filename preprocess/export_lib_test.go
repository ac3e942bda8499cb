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

// StretchJPEG is Stretch of a JPEG with a decoder by name.
func StretchJPEG(decoder string, data []byte, width, height int) ([]uint8, error) {
	src, frame, err := readJPEGHeader(data)
	if err != nil {
		return nil, err
	}
	out := make([]uint8, 3*width*height)
	dst := newStretcher(fastKernels, out, src.width, src.height, src.orientation, width, height)
	switch ctx := context.Background(); decoder {
	case "AVX2":
		err = decodeJPEGRows(ctx, fastJPEGKernels, data, frame, dst.setRow)
	case "libjpeg-turbo":
		err = decodeLibJPEG(ctx, data, frame, 1, false, dst.setRow)
	case "Go":
		err = decodeJPEGRows(ctx, goJPEGKernels, data, frame, dst.setRow)
	}
	dst.finish()
	return out, err
}
