package triton

import "time"

// Held returns how often p is held.
func (p *Pixels) Held() int { return int(p.refs.Load()) }

// Shared reports whether p is in shared memory.
func (p *Pixels) Shared() bool { return p.region != nil }

// SetSettleTime changes how long a server may go on with a call that was given
// up.
func (f *Fleet) SetSettleTime(d time.Duration) { f.sharing.settle = d }
