package preprocess

import (
	"errors"
	"fmt"

	"github.com/refersam/refersam/preprocess/jpeg"
	"github.com/refersam/refersam/preprocess/picture"
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

	// MaxFrames is how many pictures one file may hold: frames of a GIF, a WebP
	// or an animated PNG, pages of a TIFF. Only the first is decoded, so more
	// are most likely a mistake. Default 1000.
	MaxFrames int `env:"REFERSAM_MAX_IMAGE_FRAMES"`

	// DecodeMemory is how much memory, in bytes, the pictures being decoded and
	// resized at one time may take together; further ones wait. Live memory is counted:
	// the collector may let the process hold up to twice as much. It must
	// suffice for one picture of MaxPixels in the costliest encoding: 24 bytes
	// per pixel and 137 MiB. Default 1610612736 (1.5 GiB).
	DecodeMemory int64 `env:"REFERSAM_DECODE_MEMORY_BYTES"`

	// LenientJPEG takes a JPEG without its end, as Pillow does with
	// LOAD_TRUNCATED_IMAGES: the missing pixels are grey. It needs a build with
	// libjpeg-turbo. Default false.
	LenientJPEG bool `env:"REFERSAM_LENIENT_JPEG"`

	// ReduceJPEG decodes a JPEG at 1/2, 1/4 or 1/8 of its size as long as both
	// sides stay at least twice what the model reads. It saves time on large
	// pictures, and the model gets other pixels than in its training. It needs
	// a build with libjpeg-turbo. Default false.
	ReduceJPEG bool `env:"REFERSAM_REDUCE_JPEG"`
}

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config {
	return Config{
		MaxBytes:     20 << 20,
		MaxPixels:    50_000_000,
		MaxSide:      16384,
		MaxFrames:    1000,
		DecodeMemory: 1536 << 20,
	}
}

// JPEGDecoder names what decodes JPEG in this build.
const JPEGDecoder = jpeg.Decoder

func (c *Config) limits() picture.Limits {
	return picture.Limits{MaxPixels: c.MaxPixels, MaxSide: c.MaxSide, MaxFrames: c.MaxFrames}
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxBytes < 1 {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_IMAGE_BYTES is %d, allowed: 1 or more", c.MaxBytes))
	}
	if c.MaxPixels < 1 {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_IMAGE_PIXELS is %d, allowed: 1 or more", c.MaxPixels))
	}
	if c.MaxSide < 1 || c.MaxSide > picture.MaxSide {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_IMAGE_SIDE is %d, allowed: 1 to %d", c.MaxSide, picture.MaxSide))
	}
	if c.MaxFrames < 1 {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_IMAGE_FRAMES is %d, allowed: 1 or more", c.MaxFrames))
	}
	if jpeg.Decoder != jpeg.LibJPEG && (c.LenientJPEG || c.ReduceJPEG) {
		errs = append(errs, fmt.Errorf("REFERSAM_LENIENT_JPEG is %t and REFERSAM_REDUCE_JPEG is %t, allowed: false, unless the build has libjpeg-turbo: "+
			"install gcc and libjpeg62-turbo-dev, then make build", c.LenientJPEG, c.ReduceJPEG))
	}
	if (c.DecodeMemory-codecState-picture.MaxOverhead)/picture.MaxBytesPerPixel < int64(c.MaxPixels) {
		errs = append(errs, fmt.Errorf("REFERSAM_DECODE_MEMORY_BYTES is %d, allowed: %d × REFERSAM_MAX_IMAGE_PIXELS (%d) + %d, or more",
			c.DecodeMemory, picture.MaxBytesPerPixel, c.MaxPixels, codecState+picture.MaxOverhead))
	}
	return errors.Join(errs...)
}
