package preprocess

import "golang.org/x/sync/semaphore"

// Guard is guard, for no codec is known to panic.
var Guard = guard

// SetMemory bounds d below what Config.Validate allows, so that tiny pictures
// compete for memory.
func (d *Decoder) SetMemory(bytes int64) {
	d.cfg.DecodeMemory = bytes
	d.memory = semaphore.NewWeighted(bytes)
}
