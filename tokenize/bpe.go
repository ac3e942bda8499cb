package tokenize

import (
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Ids of CLIP's vocabulary: the bytes, the bytes at the end of a word, one id per
// merge in order of rank, and two special tokens.
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
	merges pairTable
	// wordTokens holds the words that merging turns into one token. Most words that
	// people write are among them.
	wordTokens dictionary
}

var loadCLIP = sync.OnceValues(func() (*vocabulary, error) {
	lines, err := readLines("clip-vit-large-patch14")
	if err != nil {
		return nil, err
	}
	lines = lines[1:] // the first line is the version
	if len(lines) != clipStart-clipFirstMerge {
		return nil, fmt.Errorf("%d merges instead of %d", len(lines), clipStart-clipFirstMerge)
	}

	b := &bytePair{merges: newPairTable(len(lines)), wordTokens: newDictionary(len(lines))}
	ids := make(map[string]int32, clipStart)
	texts := make([]string, 2*clipEndOfWord, clipStart) // in bytes, by id
	for id, symbol := range byteSymbols() {
		b.bytes[symbol.value] = int32(id)
		ids[symbol.char] = int32(id)
		ids[symbol.char+"</w>"] = int32(id + clipEndOfWord)
		texts[id] = string([]byte{symbol.value})
		texts[id+clipEndOfWord] = texts[id]
	}
	for rank, line := range lines {
		left, right, _ := strings.Cut(line, " ")
		l, okLeft := ids[left]
		r, okRight := ids[right]
		if !okLeft || !okRight {
			return nil, fmt.Errorf("merge %d (%q) joins unknown tokens", rank, line)
		}
		id := int32(clipFirstMerge + rank)
		b.merges.put(l, r, id)
		ids[left+right] = id
		texts = append(texts, texts[l]+texts[r])
	}

	// Other merges can prevent a token from being the encoding of its own text;
	// such a token is left out. A token that ends inside a word is left out too,
	// because its text gives more than one token.
	w := newWork()
	defer w.free()
	for id, text := range texts {
		w.ids, w.tokens, w.capacity = w.ids[:0], 0, 2
		b.merge(w, []byte(text))
		if w.tokens == 1 && w.ids[0] == int32(id) {
			b.wordTokens.put(text, int32(id))
		}
	}
	return &vocabulary{
		limit:   77,
		start:   clipStart,
		end:     clipEnd,
		pad:     clipEnd,
		special: []specialToken{{"<|startoftext|>", clipStart}, {"<|endoftext|>", clipEnd}},
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

func (b *bytePair) split(w *work, text string) {
	for {
		n, ascii := nextChunk(text)
		if ascii {
			w.text = append(w.text[:0], text[:n]...)
			for i, c := range w.text {
				if 'A' <= c && c <= 'Z' {
					w.text[i] = c + ('a' - 'A')
				}
			}
		} else {
			w.normalizeCLIP(text[:n])
		}
		b.splitWords(w)
		if n == len(text) {
			return
		}
		text = text[n+1:]
	}
}

// splitWords cuts w.text into words.
func (b *bytePair) splitWords(w *work) {
	for rest := w.text; len(rest) > 0; {
		if name := lowerCasedSpecial(rest); name > 0 {
			b.word(w, rest[:2])
			b.word(w, rest[2:2+name])
			b.word(w, rest[2+name:4+name])
			rest = rest[4+name:]
			continue
		}
		n, isWord := nextWord(rest)
		if isWord {
			b.word(w, rest[:n])
		}
		rest = rest[n:]
	}
}

// lowerCasedSpecial returns the length of the name of the special token that
// text begins with, or 0. Such a token was not written in lower case in the
// phrase. CLIP's pattern sets it apart from the punctuation that follows, and
// Hugging Face then cuts it into three words with the pattern of GPT-2.
func lowerCasedSpecial(text []byte) int {
	if text[0] != '<' {
		return 0
	}
	for _, name := range []string{"startoftext", "endoftext"} {
		if n := 4 + len(name); len(text) >= n && string(text[:2]) == "<|" && string(text[2:n-2]) == name && string(text[n-2:n]) == "|>" {
			return len(name)
		}
	}
	return 0
}

// contractions are cut off as words of their own, the first that fits.
var contractions = []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

type class uint8

const (
	other class = iota
	space
	letter
	number
)

// asciiClass is the class of each ASCII character.
var asciiClass = func() (classes [utf8.RuneSelf]class) {
	for r := range rune(utf8.RuneSelf) {
		switch {
		case unicode.IsSpace(r):
			classes[r] = space
		case unicode.IsLetter(r):
			classes[r] = letter
		case unicode.IsDigit(r):
			classes[r] = number
		}
	}
	return classes
}()

// nextWord returns the length in bytes of the first word of text, or of the white
// space before it: a contraction, a run of letters, one digit, or a run of anything
// else. text must not be empty.
func nextWord(text []byte) (n int, isWord bool) {
	if text[0] == '\'' {
		for _, c := range contractions {
			if len(text) >= len(c) && string(text[:len(c)]) == c {
				return len(c), true
			}
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
func classOf(text []byte) (class, int) {
	if b := text[0]; b < utf8.RuneSelf {
		return asciiClass[b], 1
	}
	r, size := utf8.DecodeRune(text)
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

// normalizeCLIP makes w.text text, composed (NFC) and in lower case. White space
// only separates words and stays as it is.
func (w *work) normalizeCLIP(text string) {
	w.runes = appendComposed(w.runes[:0], text)
	w.text = w.text[:0]
	for _, r := range w.runes {
		if r == 0x130 {
			w.text = append(w.text, "i\u0307"...)
			continue
		}
		w.text = utf8.AppendRune(w.text, toLower(r))
	}
}

// symbol is a token of a word that is being merged, linked to its neighbours.
// right is -1 at the end of the word and left at its start; id is -1 once the
// symbol has been merged into the one on its left.
type symbol struct {
	id          int32
	left, right int32
}

// candidate is a possible merge: the symbol at position at and its right neighbour
// make token id, unless either has changed since.
type candidate struct {
	id, at int32
}

// word emits the tokens of word, which must not be empty.
func (b *bytePair) word(w *work, word []byte) {
	if id, ok := b.wordTokens.get(word); ok {
		w.emit(id)
		return
	}
	b.merge(w, word)
}

// merge does the work of word without looking in wordTokens. Merges happen in order of
// rank, and among equal ranks from left to right. Because the candidates are in a
// heap, a word of n bytes takes n·log n.
func (b *bytePair) merge(w *work, word []byte) {
	symbols, queue := w.symbols[:0], w.queue[:0]
	for i, c := range word {
		symbols = append(symbols, symbol{b.bytes[c], int32(i - 1), int32(i + 1)})
	}
	last := &symbols[len(word)-1]
	last.id += clipEndOfWord
	last.right = -1

	for at := range len(word) - 1 {
		if id := b.merges.get(symbols[at].id, symbols[at+1].id); id > 0 {
			queue = queue.push(candidate{id, int32(at)})
		}
	}
	for len(queue) > 0 {
		var c candidate
		c, queue = queue.pop()
		s := &symbols[c.at]
		if s.id < 0 || s.right < 0 || b.merges.get(s.id, symbols[s.right].id) != c.id {
			continue
		}
		s.id = c.id
		symbols[s.right].id = -1
		s.right = symbols[s.right].right
		if s.right >= 0 {
			symbols[s.right].left = c.at
			if id := b.merges.get(s.id, symbols[s.right].id); id > 0 {
				queue = queue.push(candidate{id, c.at})
			}
		}
		if s.left >= 0 {
			if id := b.merges.get(symbols[s.left].id, s.id); id > 0 {
				queue = queue.push(candidate{id, s.left})
			}
		}
	}
	for at := int32(0); at >= 0; at = symbols[at].right {
		w.emit(symbols[at].id)
	}
	w.symbols, w.queue = symbols, queue
}
