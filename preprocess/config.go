package preprocess

import (
	"errors"
	"fmt"
)

// Config bounds what one picture, and all pictures being decoded at once, may
// cost.
type Config struct {
	// MaxBytes is the largest encoded picture accepted, in bytes. Default
	// 20971520 (20 MiB).
	MaxBytes int64 `env:"REFERSAM_MAX_IMAGE_BYTES"`

	// MaxPixels is the largest width × height accepted, in pixels. For a GIF or
	// an animated WebP this is its canvas, however small the frames are.
	// Default 50000000, which lets the pictures of today's full-frame cameras
	// through.
	MaxPixels int `env:"REFERSAM_MAX_IMAGE_PIXELS"`

	// MaxSide is the largest width or height accepted, in pixels. Default
	// 16384, just above the format limit of WebP (16383): a longer strip has
	// nothing left to recognise once it is stretched to the model's square.
	MaxSide int `env:"REFERSAM_MAX_IMAGE_SIDE"`

	// DecodeMemory is how much memory, in bytes, the pictures being decoded and
	// resized at one time may take together; further ones wait. Live memory is counted:
	// the collector may let the process hold up to twice as much. It must
	// suffice for one picture of MaxPixels in the costliest encoding: 27 bytes
	// a pixel and 137 MiB. Default 1610612736 (1.5 GiB).
	DecodeMemory int64 `env:"REFERSAM_DECODE_MEMORY_BYTES"`
}

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config {
	return Config{
		MaxBytes:     20 << 20,
		MaxPixels:    50_000_000,
		MaxSide:      16384,
		DecodeMemory: 1536 << 20,
	}
}

// maxSide is the largest side that any of the formats can encode.
const maxSide = 1<<31 - 1

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxBytes < 1 {
		errs = append(errs, errors.New("REFERSAM_MAX_IMAGE_BYTES must be positive"))
	}
	if c.MaxPixels < 1 {
		errs = append(errs, errors.New("REFERSAM_MAX_IMAGE_PIXELS must be positive"))
	}
	if c.MaxSide < 1 || c.MaxSide > maxSide {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_IMAGE_SIDE is %d, allowed: 1 to %d", c.MaxSide, maxSide))
	}
	if (c.DecodeMemory-codecState-maxOverhead)/maxBytesPerPixel < int64(c.MaxPixels) {
		errs = append(errs, fmt.Errorf("REFERSAM_DECODE_MEMORY_BYTES is %d, must be at least %d × REFERSAM_MAX_IMAGE_PIXELS (%d) + %d",
			c.DecodeMemory, maxBytesPerPixel, c.MaxPixels, codecState+maxOverhead))
	}
	return errors.Join(errs...)
}
