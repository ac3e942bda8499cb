package preprocess

import (
	"bytes"
	"context"
	"errors"

	"golang.org/x/image/bmp"
)

// openBMP takes what Windows and most programs write: 1 to 8 bits with a
// palette, 24 and 32 bits, not compressed.
func openBMP(data []byte, _ *Config) (*source, error) {
	cfg, err := bmp.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, bmpError(err)
	}
	return &source{
		width:         cfg.Width,
		height:        cfg.Height,
		orientation:   upright,
		bytesPerPixel: 4 + 3, // RGBA, RGB
		pixelCost:     costBMP,
		frames:        1,
		decode: func(ctx context.Context, dst *canvas) error {
			img, err := bmp.Decode(newContextReader(ctx, data))
			if err != nil {
				return bmpError(err)
			}
			return drawImage(dst, img)
		},
	}, nil
}

func bmpError(err error) error {
	if errors.Is(err, bmp.ErrUnsupported) {
		return errors.Join(errUnsupported, err)
	}
	return err
}
