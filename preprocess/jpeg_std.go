//go:build !(cgo && libjpeg)

package preprocess

import "context"

// JPEGDecoder names what decodes JPEG in this build.
const JPEGDecoder = "Go"

// decodeJPEG gives Pillow's pixels. Config.Validate keeps what only libjpeg can
// do from it.
func decodeJPEG(ctx context.Context, data []byte, frame *jpegFrame, _ int, _ bool, row func(y int, rgb []uint8)) error {
	return decodeJPEGRows(ctx, goJPEGKernels, data, frame, row)
}

// jpegBytesPerPixel is source.bytesPerPixel: the result, and the 2-byte
// coefficients of a picture in more than one scan.
func jpegBytesPerPixel(frame *jpegFrame) int {
	if frame.progressive {
		return 3 + 2*frame.components
	}
	return 3
}
