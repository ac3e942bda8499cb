package answer

import (
	"bytes"
	"sync/atomic"

	"github.com/refersam/refersam"
	"golang.org/x/sync/semaphore"
)

const (
	// maxMaskBytes is how many bytes the encoded masks of one answer may take.
	maxMaskBytes = 64 << 20
	// maskCost is how many bytes of memory each byte of an encoded mask takes at
	// most: a growing buffer takes up to two more bytes for the byte that it
	// replaces, or the base64 of the byte is written next to it.
	maskCost = 3
)

// Budget bounds the memory for the masks of one answer. It is a part of the memory
// for the masks of all answers. take never blocks, because its request already
// holds memory, and two such requests could deadlock.
type Budget struct {
	memory *semaphore.Weighted
	taken  atomic.Int64 // bytes of masks
}

// take reserves memory for n more bytes of masks. It is safe for concurrent use,
// because the masks of an answer are encoded concurrently.
func (b *Budget) take(n int) error {
	if b.taken.Add(int64(n)) > maxMaskBytes {
		b.taken.Add(-int64(n))
		return refersam.Errorf(refersam.CodeImageTooLarge,
			"The masks would take more than %d bytes; ask for fewer phrases at once, or for smaller formats.", maxMaskBytes)
	}
	if !b.memory.TryAcquire(maskCost * int64(n)) {
		b.taken.Add(-int64(n))
		return refersam.Errorf(refersam.CodeOverloaded, "The service is out of answer memory; retry shortly.")
	}
	return nil
}

// Release returns the memory. Call it after the answer has been written.
func (b *Budget) Release() { b.memory.Release(maskCost * b.taken.Swap(0)) }

// budgetedBuffer is a buffer that grows within a budget.
type budgetedBuffer struct {
	buffer bytes.Buffer
	budget *Budget
}

// Write implements io.Writer.
func (w *budgetedBuffer) Write(p []byte) (int, error) {
	if err := w.budget.take(len(p)); err != nil {
		return 0, err
	}
	return w.buffer.Write(p)
}
