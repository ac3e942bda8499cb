package tokenize

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// maxWordRunes is the length above which BERT gives up on a word. It also
// bounds the time that a word can take.
const maxWordRunes = 100

// wordPiece is BERT's uncased tokenizer (Devlin et al., NAACL 2019).
type wordPiece struct {
	// initial holds the pieces that start a word, rest the pieces that continue one
	// (without their "##").
	initial, rest dictionary
	unknown       int32
}

var loadBERT = sync.OnceValues(func() (*vocabulary, error) {
	lines, err := readLines("bert-base-uncased")
	if err != nil {
		return nil, err
	}
	if len(lines) != 30522 {
		return nil, fmt.Errorf("it has %d lines, want 30522", len(lines))
	}
	p := &wordPiece{initial: newDictionary(len(lines)), rest: newDictionary(len(lines) / 4)}
	ids := make(map[string]int32)
	for i, line := range lines {
		piece, goesOn := strings.CutPrefix(line, "##")
		switch {
		case goesOn && piece != "":
			p.rest.put(piece, int32(i))
		default:
			p.initial.put(line, int32(i))
			if line[0] == '[' {
				ids[line] = int32(i)
			}
		}
	}

	var special []specialToken
	for _, token := range []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} {
		id, ok := ids[token]
		if !ok {
			return nil, errors.New("no token " + token)
		}
		special = append(special, specialToken{token, id})
	}
	p.unknown = ids["[UNK]"]
	return &vocabulary{
		limit:   512,
		start:   ids["[CLS]"],
		end:     ids["[SEP]"],
		pad:     ids["[PAD]"],
		special: special,
		mark:    '[',
		split:   p.split,
	}, nil
})

func (p *wordPiece) split(w *work, text string) {
	for {
		n, ascii := nextChunk(text)
		if ascii {
			w.text = w.text[:0]
			for i := range n {
				if b := text[i]; b > ' ' && b < 0x7f { // the others are control characters
					if 'A' <= b && b <= 'Z' {
						b += 'a' - 'A'
					}
					w.text = append(w.text, b)
				}
			}
		} else {
			w.normalizeBERT(text[:n])
		}
		p.splitWords(w)
		if n == len(text) {
			return
		}
		text = text[n+1:]
	}
}

// splitWords cuts w.text into words at spaces and around punctuation.
func (p *wordPiece) splitWords(w *work) {
	text := w.text
	start := 0
	for i := 0; i < len(text); {
		size := 1
		if b := text[i]; b < utf8.RuneSelf {
			if 'a' <= b && b <= 'z' || '0' <= b && b <= '9' {
				i++
				continue
			}
		} else {
			var r rune
			if r, size = utf8.DecodeRune(text[i:]); !unicode.Is(punctuation, r) {
				i += size
				continue
			}
		}
		p.word(w, text[start:i])
		start = i + size
		if text[i] != ' ' {
			p.word(w, text[i:start])
		}
		i = start
	}
	p.word(w, text[start:])
}

// word emits the longest pieces from left to right, or the unknown token alone
// when they do not make up the word.
func (p *wordPiece) word(w *work, word []byte) {
	if len(word) > maxWordRunes && utf8.RuneCount(word) > maxWordRunes {
		w.emit(p.unknown)
		return
	}
	undo := w.tokens
	pieces := &p.initial
	for len(word) > 0 {
		n, id := pieces.longestPrefix(word)
		if n == 0 {
			w.takeBack(undo)
			w.emit(p.unknown)
			return
		}
		w.emit(id)
		word, pieces = word[n:], &p.rest
	}
}

// normalizeBERT replaces w.text by the words of text: without control characters
// and accents, with ' ' for every white space and around Chinese characters, in
// lower case.
func (w *work) normalizeBERT(text string) {
	runes := w.runes[:0]
	for _, r := range text {
		switch {
		case isRemoved(r):
		case unicode.IsSpace(r):
			runes = append(runes, ' ')
		case isChinese(r):
			runes = append(runes, ' ')
			runes = appendDecomposed(runes, r)
			runes = append(runes, ' ')
		default:
			runes = appendDecomposed(runes, r)
		}
	}
	order(runes)

	w.text = w.text[:0]
	for _, r := range runes {
		if r < utf8.RuneSelf || !unicode.Is(accents, r) {
			w.text = utf8.AppendRune(w.text, toLower(r))
		}
	}
	w.runes = runes
}

func isRemoved(r rune) bool {
	if r < 0x7f {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r'
	}
	return unicode.Is(removed, r)
}

// isChinese reports whether r is a CJK ideograph that BERT reads as a word of its
// own. 2B920 is where Hugging Face starts extension E, although its first character
// is 2B820.
func isChinese(r rune) bool {
	return 0x4E00 <= r && r <= 0x9FFF ||
		0x3400 <= r && r <= 0x4DBF ||
		0xF900 <= r && r <= 0xFAFF ||
		0x20000 <= r && r <= 0x2A6DF ||
		0x2A700 <= r && r <= 0x2B81F ||
		0x2B920 <= r && r <= 0x2CEAF ||
		0x2F800 <= r && r <= 0x2FA1F
}
