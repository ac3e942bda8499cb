//go:build !(cgo && libjpeg)

package jpeg

import (
	"context"

	"github.com/refersam/refersam/preprocess/picture"
)

// Decoder names what decodes JPEG in this build.
const Decoder = "Go"

const (
	sequentialCost  = picture.CostGoJPEG
	progressiveCost = picture.CostGoJPEGProgressive
)

// decode draws Pillow's pixels. It ignores the options, which callers must not
// set in this build.
func decode(ctx context.Context, data []byte, frame *frameHeader, _ int, _ bool, draw picture.Draw) error {
	return decodeGo(ctx, data, frame, draw)
}
