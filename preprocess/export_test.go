package preprocess

import (
	"golang.org/x/sync/semaphore"

	"github.com/refersam/refersam"
)

// Guard is guard, for no codec is known to panic.
var Guard = guard

// SetMemory bounds d below what Config.Validate allows, so that tiny pictures
// compete for memory.
func (d *Decoder) SetMemory(bytes int64) {
	d.cfg.DecodeMemory = bytes
	d.memory = semaphore.NewWeighted(bytes)
}

// ResizeExact is Resize with the kernels that are the truth.
func ResizeExact(p *refersam.Picture, width, height int) []uint8 {
	return resize(goKernels, p, width, height)
}
