package triton

import (
	"sync"
	"sync/atomic"
)

// Pixels is the memory of one row's picture. It counts its holders, because
// phrases share their picture and a row may be under way on two servers at
// once. The memory is used again when the last holder has released it.
type Pixels struct {
	bytes []uint8
	refs  atomic.Int32
	free  func(*Pixels)

	// Where it is, if it is in a region.
	region *region
	offset int
}

// PixelsOf makes Pixels of memory of the caller's, held once. It calls free, if
// that is not nil, when nobody holds them any more.
func PixelsOf(bytes []uint8, free func()) *Pixels {
	p := &Pixels{bytes: bytes, free: func(*Pixels) {
		if free != nil {
			free()
		}
	}}
	p.refs.Store(1)
	return p
}

// Bytes returns the memory. Only a holder of p may use it, and may write to it
// only before the first Infer.
func (p *Pixels) Bytes() []uint8 { return p.bytes }

// Retain holds p once more. Only a holder of p may call it.
func (p *Pixels) Retain() { p.refs.Add(1) }

// Release lets go of p once.
func (p *Pixels) Release() {
	switch left := p.refs.Add(-1); {
	case left == 0:
		p.free(p)
	case left < 0:
		panic("triton: Pixels released more often than held")
	}
}

// heap is where pixels live that have no place in shared memory. A picture of
// 1024 × 1024 takes 3 MiB, too much to clear for each request.
var heap sync.Pool

func heapPixels(size int) *Pixels {
	p, _ := heap.Get().(*Pixels)
	if p == nil || cap(p.bytes) < size {
		p = &Pixels{bytes: make([]uint8, size), free: func(p *Pixels) { heap.Put(p) }}
	}
	p.bytes = p.bytes[:size]
	p.refs.Store(1)
	return p
}
