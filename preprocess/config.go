package preprocess

import "fmt"

// Config bounds what one picture, and all pictures being decoded at once, may
// cost. The environment names get the prefix REFERSAM_ from the binary.
type Config struct {
	// MaxBytes is the largest encoded picture accepted, in bytes. Default
	// 20971520 (20 MiB).
	MaxBytes int64 `env:"MAX_IMAGE_BYTES"`

	// MaxPixels is the largest width × height accepted, in pixels. For a GIF or
	// an animated WebP this is its canvas, however small the frames are.
	// Default 50000000, which lets the pictures of today's full-frame cameras
	// through.
	MaxPixels int `env:"MAX_IMAGE_PIXELS"`

	// MaxSide is the largest width or height accepted, in pixels. Default
	// 16384, just above the format limit of WebP (16383): a longer strip has
	// nothing left to recognise once it is stretched to the model's square.
	MaxSide int `env:"MAX_IMAGE_SIDE"`

	// DecodeMemory is how much memory, in bytes, the pictures being decoded at
	// one time may take together; further ones wait. Live memory is counted:
	// the collector may let the process hold up to twice as much. It must
	// suffice for one picture of MaxPixels in the costliest encoding: 27 bytes
	// a pixel and 137 MiB. Default 1610612736 (1.5 GiB).
	DecodeMemory int64 `env:"DECODE_MEMORY_BYTES"`
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

// Validate returns an error that names the first field out of range.
func (c Config) Validate() error {
	switch {
	case c.MaxBytes < 1:
		return fmt.Errorf("preprocess: MaxBytes is %d, must be at least 1", c.MaxBytes)
	case c.MaxPixels < 1:
		return fmt.Errorf("preprocess: MaxPixels is %d, must be at least 1", c.MaxPixels)
	case c.MaxSide < 1 || c.MaxSide > maxSide:
		return fmt.Errorf("preprocess: MaxSide is %d, must be in 1..%d", c.MaxSide, maxSide)
	case (c.DecodeMemory-codecState-maxOverhead)/maxBytesPerPixel < int64(c.MaxPixels):
		return fmt.Errorf("preprocess: DecodeMemory is %d, must be at least %d × MaxPixels (%d) + %d",
			c.DecodeMemory, maxBytesPerPixel, c.MaxPixels, codecState+maxOverhead)
	}
	return nil
}
