package tokenize

import "sync"

// work is what one call of Encode needs besides its result. It is pooled, which
// is what keeps the calls from allocating.
type work struct {
	// ids holds the first room tokens that were emitted, and tokens counts all.
	ids          []int32
	room, tokens int

	// text is the part of the phrase that is being split, normalised. The
	// others are for those who make it and for those who take it apart.
	text    []byte
	runes   []rune
	symbols []symbol
	queue   mergeHeap
}

// mostKept is the length of a text above which its working space is left to the
// garbage collector; below, it is some 50 bytes a byte at most.
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
	if len(w.ids) < w.room {
		w.ids = append(w.ids, id)
	}
	w.tokens++
}

// takeBack forgets what was emitted after the first tokens.
func (w *work) takeBack(tokens int) {
	w.tokens = tokens
	w.ids = w.ids[:min(tokens, len(w.ids))]
}
