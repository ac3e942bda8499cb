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
