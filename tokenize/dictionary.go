package tokenize

import "math/bits"

// dictionary maps texts to ids. It is a hash table with a hash that can be undone
// byte by byte, so a word's prefixes are looked up, longest first, at the cost of
// one multiplication each.
type dictionary struct {
	slots   []slot // a power of two, at most half of them in use
	keys    []byte // all texts, one after the other
	longest int    // length of the longest text
}

type slot struct {
	// tag is the upper half of the hash.
	tag uint32
	id  int32
	// The text is keys[at:at+size]. A slot that is not in use has size 0.
	at, size uint32
}

// The hash is FNV-1a.
const (
	hashStart   = 0xcbf29ce484222325
	hashPrime   = 0x00000100000001b3
	hashInverse = 0xce965057aff6957b // hashPrime * hashInverse == 1 (mod 2^64)
)

func newDictionary(size int) dictionary {
	return dictionary{slots: make([]slot, 1<<bits.Len(uint(2*size)))}
}

// put adds a text. It must not be empty or already in the dictionary.
func (d *dictionary) put(text string, id int32) {
	h := uint64(hashStart)
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * hashPrime
	}
	i := d.index(h)
	for d.slots[i].size > 0 {
		i = (i + 1) & (len(d.slots) - 1)
	}
	d.slots[i] = slot{tag: uint32(h >> 32), id: id, at: uint32(len(d.keys)), size: uint32(len(text))}
	d.keys = append(d.keys, text...)
	d.longest = max(d.longest, len(text))
}

// get returns the id of text.
func (d *dictionary) get(text []byte) (id int32, ok bool) {
	if len(text) > d.longest {
		return 0, false
	}
	return d.find(hash(text), text)
}

// longestPrefix returns the length and the id of the longest prefix of text that
// is in the dictionary, or 0, 0.
func (d *dictionary) longestPrefix(text []byte) (n int, id int32) {
	text = text[:min(len(text), d.longest)]
	for h := hash(text); len(text) > 0; {
		if id, ok := d.find(h, text); ok {
			return len(text), id
		}
		last := len(text) - 1
		h = h*hashInverse ^ uint64(text[last])
		text = text[:last]
	}
	return 0, 0
}

// find is get for a text with the known hash h.
func (d *dictionary) find(h uint64, text []byte) (id int32, ok bool) {
	for i := d.index(h); d.slots[i].size > 0; i = (i + 1) & (len(d.slots) - 1) {
		s := &d.slots[i]
		if s.tag == uint32(h>>32) && string(d.keys[s.at:s.at+s.size]) == string(text) {
			return s.id, true
		}
	}
	return 0, false
}

func (d *dictionary) index(h uint64) int {
	return int(h^h>>32) & (len(d.slots) - 1)
}

func hash(text []byte) uint64 {
	h := uint64(hashStart)
	for _, b := range text {
		h = (h ^ uint64(b)) * hashPrime
	}
	return h
}

// pairTable maps two ids below 1<<16 to an id above 0.
type pairTable struct {
	slots []pairSlot // a power of two, at most half of them in use
	shift int
}

// pairSlot is not in use when its id is 0.
type pairSlot struct {
	pair uint32
	id   int32
}

func newPairTable(size int) pairTable {
	n := bits.Len(uint(2 * size))
	return pairTable{slots: make([]pairSlot, 1<<n), shift: 32 - n}
}

func (t *pairTable) put(left, right, id int32) {
	*t.find(uint32(left)<<16 | uint32(right)) = pairSlot{uint32(left)<<16 | uint32(right), id}
}

// get returns 0 for a pair that is not in the table.
func (t *pairTable) get(left, right int32) int32 {
	return t.find(uint32(left)<<16 | uint32(right)).id
}

// find returns the slot of pair, or the free slot for it.
func (t *pairTable) find(pair uint32) *pairSlot {
	i := int(pair * 0x9e3779b1 >> t.shift) // the golden ratio spreads neighbours
	for t.slots[i].id != 0 && t.slots[i].pair != pair {
		i = (i + 1) & (len(t.slots) - 1)
	}
	return &t.slots[i]
}
