package tokenize

import (
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Ids of CLIP's vocabulary: the bytes, the bytes at the end of a word, one id
// a merge in order of rank, and two special tokens.
const (
	clipEndOfWord  = 256
	clipFirstMerge = 2 * 256
	clipStart      = 49406
	clipEnd        = 49407
)

// bytePair is CLIP's byte-level byte pair encoding (Radford et al., ICML 2021;
// Sennrich et al., ACL 2016).
type bytePair struct {
	// bytes is the id of each byte inside a word.
	bytes [256]int32
	// merges maps two neighbours to the token they become. The lower that id,
	// the earlier the merge.
	merges map[pair]int32
}

type pair struct{ left, right int32 }

var loadCLIP = sync.OnceValues(func() (*vocabulary, error) {
	lines, err := readLines("clip-vit-large-patch14")
	if err != nil {
		return nil, err
	}
	lines = lines[1:] // the version
	if len(lines) != clipStart-clipFirstMerge {
		return nil, fmt.Errorf("%d merges instead of %d", len(lines), clipStart-clipFirstMerge)
	}

	b := &bytePair{merges: make(map[pair]int32, len(lines))}
	ids := make(map[string]int32, clipStart)
	for id, symbol := range byteSymbols() {
		b.bytes[symbol.value] = int32(id)
		ids[symbol.char] = int32(id)
		ids[symbol.char+"</w>"] = int32(id + clipEndOfWord)
	}
	for rank, line := range lines {
		left, right, _ := strings.Cut(line, " ")
		l, okLeft := ids[left]
		r, okRight := ids[right]
		if !okLeft || !okRight {
			return nil, fmt.Errorf("merge %d (%q) joins unknown tokens", rank, line)
		}
		id := int32(clipFirstMerge + rank)
		b.merges[pair{l, r}] = id
		ids[left+right] = id
	}
	return &vocabulary{
		limit:   77,
		start:   clipStart,
		end:     clipEnd,
		pad:     clipEnd,
		special: map[string]int32{"<|startoftext|>": clipStart, "<|endoftext|>": clipEnd},
		mark:    '<',
		split:   b.split,
	}, nil
})

type byteSymbol struct {
	value byte
	char  string
}

// byteSymbols returns the characters that stand for bytes in the merges, in
// order of their ids (the table of GPT-2): bytes that Latin-1 prints stand for
// themselves, the others follow as U+0100, U+0101 and so on.
func byteSymbols() []byteSymbol {
	var printable, others []byteSymbol
	for v := range 256 {
		if v > ' ' && v < 0x7f || v > 0xa0 && v != 0xad {
			printable = append(printable, byteSymbol{byte(v), string(rune(v))})
		} else {
			others = append(others, byteSymbol{byte(v), string(rune(0x100 + len(others)))})
		}
	}
	return append(printable, others...)
}

func (b *bytePair) split(text string, emit func(id int32)) {
	for rest := normalizeCLIP(text); rest != ""; {
		if name := lowerCasedSpecial(rest); name != "" {
			for _, word := range []string{"<|", name, "|>"} {
				b.word(word, emit)
				rest = rest[len(word):]
			}
			continue
		}
		n, isWord := nextWord(rest)
		if isWord {
			b.word(rest[:n], emit)
		}
		rest = rest[n:]
	}
}

// lowerCasedSpecial returns the name of the special token that text begins
// with, or "". Such a token was not written in lower case in the phrase. CLIP's
// pattern sets it apart from the punctuation that follows, and Hugging Face
// then cuts it into three words with the pattern of GPT-2.
func lowerCasedSpecial(text string) string {
	for _, name := range []string{"startoftext", "endoftext"} {
		if after, ok := strings.CutPrefix(text, "<|"+name); ok && strings.HasPrefix(after, "|>") {
			return name
		}
	}
	return ""
}

// contractions are cut off as words of their own, the first that fits.
var contractions = []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

type class int

const (
	other class = iota
	space
	letter
	number
)

// nextWord returns the length in bytes of the first word of text, or of the
// white space before it: a contraction, a run of letters, one digit, or a run
// of anything else. text is not empty.
func nextWord(text string) (n int, isWord bool) {
	for _, c := range contractions {
		if strings.HasPrefix(text, c) {
			return len(c), true
		}
	}
	first, n := classOf(text)
	if first == number {
		return n, true
	}
	for n < len(text) {
		c, size := classOf(text[n:])
		if c != first {
			break
		}
		n += size
	}
	return n, first != space
}

// classOf returns the class of the first character of text and its length.
func classOf(text string) (class, int) {
	r, size := utf8.DecodeRuneInString(text)
	if r < utf8.RuneSelf {
		switch {
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z':
			return letter, size
		case '0' <= r && r <= '9':
			return number, size
		}
	}
	switch {
	case unicode.IsSpace(r):
		return space, size
	case unicode.Is(letters, r):
		return letter, size
	case unicode.Is(numbers, r):
		return number, size
	default:
		return other, size
	}
}

// normalizeCLIP composes (NFC) and lowers the case. White space only separates
// words and stays as it is.
func normalizeCLIP(text string) string {
	var out strings.Builder
	out.Grow(len(text))
	for _, r := range compose(text) {
		if r == 0x130 {
			out.WriteString("i\u0307")
			continue
		}
		out.WriteRune(toLower(r))
	}
	return out.String()
}

// symbol is a token of a word that is being merged, linked to its neighbours.
// right is -1 at the end of the word and left at its start; id is -1 once the
// symbol has been merged into the one on its left.
type symbol struct {
	id          int32
	left, right int32
}

// merge is a candidate: the symbol at position at and its right neighbour make
// token id, unless either has changed since.
type merge struct {
	id, at int32
}

// word emits the tokens of word, which is not empty. The merge of lowest rank
// comes first and of equal ones the leftmost; with the candidates in a heap a
// word of n bytes takes n·log n.
func (b *bytePair) word(word string, emit func(id int32)) {
	// Words of usual length stay on the stack.
	var symbolSpace [32]symbol
	var queueSpace [64]merge
	symbols, queue := symbolSpace[:0], mergeHeap(queueSpace[:0])

	for i := range len(word) {
		symbols = append(symbols, symbol{b.bytes[word[i]], int32(i - 1), int32(i + 1)})
	}
	last := &symbols[len(word)-1]
	last.id += clipEndOfWord
	last.right = -1

	propose := func(at int32) {
		if id, ok := b.merges[pair{symbols[at].id, symbols[symbols[at].right].id}]; ok {
			queue = queue.push(merge{id, at})
		}
	}
	for at := range len(word) - 1 {
		propose(int32(at))
	}
	for len(queue) > 0 {
		var m merge
		m, queue = queue.pop()
		s := &symbols[m.at]
		if s.id < 0 || s.right < 0 || b.merges[pair{s.id, symbols[s.right].id}] != m.id {
			continue
		}
		s.id = m.id
		symbols[s.right].id = -1
		s.right = symbols[s.right].right
		if s.right >= 0 {
			symbols[s.right].left = m.at
			propose(m.at)
		}
		if s.left >= 0 {
			propose(s.left)
		}
	}
	for at := int32(0); at >= 0; at = symbols[at].right {
		emit(symbols[at].id)
	}
}
