package preprocess

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"

	"golang.org/x/image/tiff"
)

// openTIFF takes baseline TIFF: the first picture of a file, grey, palette or
// RGB, in strips or tiles, not compressed or with LZW, Deflate or PackBits. The
// codec reads fax compressions too, but bilevel ones come out inverted.
func openTIFF(data []byte, options *Config) (*source, error) {
	const (
		tagCompression = 0x0103
		uncompressed   = 1
		faxG3          = 3
		faxG4          = 4
	)
	cost := costTIFFPacked
	switch compression, _ := tiffShort(data, tagCompression); compression {
	case faxG3, faxG4:
		return nil, fmt.Errorf("%w: fax compression", errUnsupported)
	case uncompressed:
		cost = costTIFF
	}
	cfg, err := tiff.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, tiffError(err)
	}
	return &source{
		width:       cfg.Width,
		height:      cfg.Height,
		orientation: exifOrientation(data), // EXIF is a TIFF without a picture
		// 16-bit RGBA, a strip of the whole picture, RGB.
		bytesPerPixel: 8 + 8 + 3,
		pixelCost:     cost,
		frames:        max(1, tiffDirectories(data, options.MaxFrames+1)),
		// A tile may be larger than the picture, by 1024 × 1024 pixels.
		overhead: 1024 * 1024 * 8,
		decode: func(ctx context.Context, dst *canvas) error {
			img, err := tiff.Decode(newContextReader(ctx, data))
			if err != nil {
				return tiffError(err)
			}
			if premultiplied(img) {
				return fmt.Errorf("%w: colours multiplied by alpha", errUnsupported)
			}
			return drawImage(dst, img)
		},
	}, nil
}

// premultiplied reports whether colours must be divided by alpha to be seen.
func premultiplied(img image.Image) bool {
	opaque, ok := img.(interface{ Opaque() bool })
	switch img.(type) {
	case *image.RGBA, *image.RGBA64:
		return ok && !opaque.Opaque()
	}
	return false
}

func tiffError(err error) error {
	var unsupported tiff.UnsupportedError
	if errors.As(err, &unsupported) {
		return errors.Join(errUnsupported, err)
	}
	return err
}
