package tokenize

// mergeHeap is a binary min-heap of candidates: lowest id first, then leftmost.
// It is typed because container/heap allocates for every push; push and pop
// return the heap, as append does.
type mergeHeap []candidate

func (c candidate) before(other candidate) bool {
	return c.id < other.id || c.id == other.id && c.at < other.at
}

func (h mergeHeap) push(c candidate) mergeHeap {
	h = append(h, c)
	child := len(h) - 1
	for child > 0 {
		parent := (child - 1) / 2
		if !c.before(h[parent]) {
			break
		}
		h[child] = h[parent]
		child = parent
	}
	h[child] = c
	return h
}

// pop removes the first candidate of a heap that is not empty.
func (h mergeHeap) pop() (candidate, mergeHeap) {
	first, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	parent := 0
	for {
		child := 2*parent + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(last) {
			break
		}
		h[parent] = h[child]
		parent = child
	}
	if len(h) > 0 {
		h[parent] = last
	}
	return first, h
}
