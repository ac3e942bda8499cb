package triton

import "time"

// SetSettleTime changes how long a server may go on with a call that was given
// up.
func (f *Fleet) SetSettleTime(d time.Duration) { f.sharing.settle = d }
