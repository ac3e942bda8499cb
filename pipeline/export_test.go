package pipeline

import (
	"context"
	"time"
)

const HeavyCost = heavyCost

// CPUSlots exports cpuSlots to tests.
type CPUSlots struct{ *cpuSlots }

func NewCPUSlots(n int) CPUSlots { return CPUSlots{newCPUSlots(n)} }

func (p CPUSlots) Acquire(ctx context.Context, cost int64) (release func(), err error) {
	return p.acquire(ctx, cost)
}

// Pace is pace.
type Pace struct{ pace }

func (p *Pace) Learn(cost int64, took time.Duration)       { p.learn(cost, took) }
func (p *Pace) Check(cost int64, deadline time.Time) error { return p.check(cost, deadline) }

// Duration is duration.
type Duration struct{ duration }

func (d *Duration) Add(took time.Duration) { d.add(took) }
func (d *Duration) Mean() time.Duration    { return d.mean() }
