package tokenize

// mergeHeap is a binary min-heap of merges: lowest id first, then leftmost.
// It is typed because container/heap allocates for every push; push and pop
// return the heap, as append does, so that its space can stay on the stack.
type mergeHeap []merge

func (m merge) before(other merge) bool {
	return m.id < other.id || m.id == other.id && m.at < other.at
}

func (h mergeHeap) push(m merge) mergeHeap {
	h = append(h, m)
	child := len(h) - 1
	for child > 0 {
		parent := (child - 1) / 2
		if !m.before(h[parent]) {
			break
		}
		h[child] = h[parent]
		child = parent
	}
	h[child] = m
	return h
}

// pop removes the first merge of a heap that is not empty.
func (h mergeHeap) pop() (merge, mergeHeap) {
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
