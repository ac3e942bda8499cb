package triton

import "time"

// Held returns how often p is held.
func (p *Pixels) Held() int { return int(p.refs.Load()) }

// SetSettleTime changes how long a server may go on with a call that was given
// up.
func (f *Fleet) SetSettleTime(d time.Duration) { f.sharing.settle = d }
