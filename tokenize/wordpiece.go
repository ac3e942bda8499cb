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
	// whole holds the pieces that start a word, rest those that go on with one
	// (without their "##").
	whole, rest map[string]int32
	// longest is the length in bytes of the longest piece.
	longest int
	unknown int32
}

var loadBERT = sync.OnceValues(func() (*vocabulary, error) {
	lines, err := readLines("bert-base-uncased")
	if err != nil {
		return nil, err
	}
	if len(lines) != 30522 {
		return nil, fmt.Errorf("%d lines instead of 30522", len(lines))
	}
	w := &wordPiece{whole: make(map[string]int32, len(lines)), rest: make(map[string]int32)}
	for i, line := range lines {
		piece, goesOn := strings.CutPrefix(line, "##")
		if goesOn && piece != "" {
			w.rest[piece] = int32(i)
		} else {
			w.whole[line] = int32(i)
		}
		w.longest = max(w.longest, len(piece))
	}

	special := make(map[string]int32)
	for _, token := range []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} {
		id, ok := w.whole[token]
		if !ok {
			return nil, errors.New("no token " + token)
		}
		special[token] = id
	}
	w.unknown = special["[UNK]"]
	return &vocabulary{
		limit:   512,
		start:   special["[CLS]"],
		end:     special["[SEP]"],
		pad:     special["[PAD]"],
		special: special,
		mark:    '[',
		split:   w.split,
	}, nil
})

func (w *wordPiece) split(text string, emit func(id int32)) {
	start := 0
	clean := normalizeBERT(text)
	for i, r := range clean {
		switch {
		case r == ' ':
			w.word(clean[start:i], emit)
			start = i + 1
		case isPunctuation(r):
			w.word(clean[start:i], emit)
			start = i + utf8.RuneLen(r)
			w.word(clean[i:start], emit)
		}
	}
	w.word(clean[start:], emit)
}

// word emits the longest pieces from left to right, or the unknown token alone
// when they do not make up the word.
func (w *wordPiece) word(word string, emit func(id int32)) {
	if word == "" {
		return
	}
	var pieces [maxWordRunes]int32
	n := 0
	pieceSet := w.whole
	if utf8.RuneCountInString(word) > maxWordRunes {
		emit(w.unknown)
		return
	}
	for start := 0; start < len(word); n++ {
		end := min(len(word), start+w.longest)
		id, ok := int32(0), false
		for ; end > start; end-- {
			if end < len(word) && !utf8.RuneStart(word[end]) {
				continue
			}
			if id, ok = pieceSet[word[start:end]]; ok {
				break
			}
		}
		if !ok {
			emit(w.unknown)
			return
		}
		pieces[n] = id
		start, pieceSet = end, w.rest
	}
	for _, id := range pieces[:n] {
		emit(id)
	}
}

// normalizeBERT drops control characters, makes every white space ' ', puts
// spaces around Chinese characters, strips accents and lowers the case.
func normalizeBERT(text string) string {
	runes := make([]rune, 0, len(text))
	for _, r := range text {
		switch {
		case isRemoved(r):
		case unicode.IsSpace(r):
			runes = append(runes, ' ')
		case isChinese(r):
			runes = append(runes, ' ', r, ' ')
		default:
			runes = append(runes, r)
		}
	}

	var out strings.Builder
	out.Grow(len(text))
	for _, r := range decompose(runes) {
		if r < utf8.RuneSelf || !unicode.Is(accents, r) {
			out.WriteRune(toLower(r))
		}
	}
	return out.String()
}

func isRemoved(r rune) bool {
	if r < 0x7f {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r'
	}
	return unicode.Is(removed, r)
}

func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return r > ' ' && (r < '0' || '9' < r) && (r < 'a' || 'z' < r)
	}
	return unicode.Is(punctuation, r)
}

// isChinese reports the CJK ideographs that BERT reads one at a time. 2B920 is
// where Hugging Face starts extension E, whose first character is 2B820.
func isChinese(r rune) bool {
	return 0x4E00 <= r && r <= 0x9FFF ||
		0x3400 <= r && r <= 0x4DBF ||
		0xF900 <= r && r <= 0xFAFF ||
		0x20000 <= r && r <= 0x2A6DF ||
		0x2A700 <= r && r <= 0x2B81F ||
		0x2B920 <= r && r <= 0x2CEAF ||
		0x2F800 <= r && r <= 0x2FA1F
}
