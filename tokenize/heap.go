package tokenize

// mergeHeap is a binary min-heap of merges: lowest id first, then leftmost.
// It is typed because container/heap allocates for every push.
type mergeHeap []merge

func (m merge) before(other merge) bool {
	return m.id < other.id || m.id == other.id && m.at < other.at
}

func (h *mergeHeap) push(m merge) {
	*h = append(*h, m)
	q := *h
	child := len(q) - 1
	for child > 0 {
		parent := (child - 1) / 2
		if !m.before(q[parent]) {
			break
		}
		q[child] = q[parent]
		child = parent
	}
	q[child] = m
}

// pop removes and returns the first merge of a heap that is not empty.
func (h *mergeHeap) pop() merge {
	q := *h
	first, last := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	*h = q
	parent := 0
	for {
		child := 2*parent + 1
		if child >= len(q) {
			break
		}
		if child+1 < len(q) && q[child+1].before(q[child]) {
			child++
		}
		if !q[child].before(last) {
			break
		}
		q[parent] = q[child]
		parent = child
	}
	if len(q) > 0 {
		q[parent] = last
	}
	return first
}
