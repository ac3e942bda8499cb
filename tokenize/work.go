package tokenize

import "sync"

// work is the working space of one call of Encode. It is pooled, so that calls do
// not allocate.
type work struct {
	// ids holds the first capacity tokens that were emitted, and tokens counts all
	// tokens that were emitted.
	ids              []int32
	capacity, tokens int

	// text is the normalised part of the phrase that is being split. The other
	// buffers are for the steps that produce it and the steps that split it.
	text    []byte
	runes   []rune
	symbols []symbol
	queue   mergeHeap
}

// mostKept is the length of a text above which its working space is left to the
// garbage collector. Below it, the pool holds at most about 50 bytes per byte of
// text.
const mostKept = 16 << 10

var works = sync.Pool{New: func() any { return new(work) }}

func newWork() *work { return works.Get().(*work) }

func (w *work) free() {
	w.ids, w.tokens = nil, 0
	if max(cap(w.text), cap(w.runes)) <= mostKept {
		works.Put(w)
	}
}

func (w *work) emit(id int32) {
	if len(w.ids) < w.capacity {
		w.ids = append(w.ids, id)
	}
	w.tokens++
}

// takeBack removes all emitted tokens after the first ones.
func (w *work) takeBack(tokens int) {
	w.tokens = tokens
	w.ids = w.ids[:min(tokens, len(w.ids))]
}
