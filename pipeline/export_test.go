package pipeline

import (
	"context"
	"time"
)

const HeavyCost = heavyCost

// Places are places.
type Places struct{ *places }

func NewPlaces(n int) Places { return Places{newPlaces(n)} }

func (p Places) Acquire(ctx context.Context, cost int64) (release func(), err error) {
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
