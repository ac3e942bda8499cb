// Package tokenize turns phrases into token ids: WordPiece for BERT and
// byte-level byte pair encoding for CLIP.
//
// The ids equal the ids of Hugging Face's fast tokenizers with default settings
// (transformers' BertTokenizerFast and CLIPTokenizerFast on tokenizers 0.23),
// for every Unicode character. tables.go is generated from that library, so a
// newer Go or golang.org/x/text changes nothing. As in that library, a special
// token written out in the phrase ("[SEP]", "<|endoftext|>") becomes that
// token.
package tokenize

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tokenizer encodes phrases for one text encoder. It never changes after New
// and is safe for concurrent use.
type Tokenizer struct {
	vocabulary *vocabulary
	maxTokens  int
}

// Encoding is a phrase as the model reads it.
type Encoding struct {
	// IDs and Mask have the length given to New. IDs starts and ends with the
	// special tokens of the vocabulary; a phrase that is too long loses its
	// end, not the closing token. Mask is 1 for tokens and 0 for padding.
	IDs, Mask []int32
	// Tokens counts the tokens of the whole phrase, special tokens included, before
	// the cut.
	Tokens int
}

// Truncated reports whether the phrase lost its end.
func (e *Encoding) Truncated() bool { return e.Tokens > len(e.IDs) }

// vocabulary is one family of tokens with the rules that produce them.
type vocabulary struct {
	// limit is the number of positions of the text encoder.
	limit           int
	start, end, pad int32
	// special holds the tokens that are recognised in the raw phrase, before
	// any normalisation. All begin with the byte mark, and none is a prefix of
	// another.
	special []specialToken
	mark    byte
	// split emits the tokens of a text without special tokens.
	split func(w *work, text string)
}

type specialToken struct {
	text string
	id   int32
}

// families holds the vocabularies by name. Each is parsed at its first use and then
// cached.
var families = map[string]func() (*vocabulary, error){
	"bert-base-uncased":      loadBERT,
	"clip-vit-large-patch14": loadCLIP,
}

// Names returns the names that New knows, sorted.
func Names() []string {
	names := make([]string, 0, len(families))
	for name := range families {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New returns the tokenizer called name, one of Names, for a model that reads
// maxTokens tokens: from 3 up to the positions of the text encoder, which are
// 512 for BERT and 77 for CLIP. With 0 it neither cuts nor pads, so that an
// Encoding is as long as its phrase.
func New(name string, maxTokens int) (*Tokenizer, error) {
	load, ok := families[name]
	if !ok {
		return nil, fmt.Errorf("tokenize: unknown tokenizer %q, allowed: %s", name, strings.Join(Names(), ", "))
	}
	v, err := load()
	if err != nil {
		return nil, fmt.Errorf("tokenize: vocabulary of %s: %w", name, err)
	}
	if maxTokens != 0 && (maxTokens < 3 || maxTokens > v.limit) {
		return nil, fmt.Errorf("tokenize: %s reads from 3 to %d tokens, not %d", name, v.limit, maxTokens)
	}
	return &Tokenizer{vocabulary: v, maxTokens: maxTokens}, nil
}

// Encode returns the tokens of text. A run of bytes that are not UTF-8 counts as
// one U+FFFD. A text of n bytes takes time in the order of n·log n at most.
func (t *Tokenizer) Encode(text string) Encoding {
	n := t.maxTokens
	both := make([]int32, 2*n)
	e := Encoding{IDs: both[:n:n], Mask: both[n:]}
	t.EncodeInto(&e, text)
	return e
}

// EncodeInto is Encode into the space of e and overwrites its content. For ASCII it
// allocates nothing if that space is large enough and earlier calls have made the
// working space.
func (t *Tokenizer) EncodeInto(e *Encoding, text string) {
	v := t.vocabulary
	w := newWork()
	defer w.free()
	w.ids, w.capacity = e.IDs[:0], math.MaxInt
	if t.maxTokens != 0 {
		w.capacity = t.maxTokens - 1 // the last one is for the closing token
	}

	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	w.emit(v.start)
	for text != "" {
		at, token := v.findSpecial(text)
		v.split(w, text[:at])
		if token == nil {
			break
		}
		w.emit(token.id)
		text = text[at+len(token.text):]
	}
	w.ids = append(w.ids, v.end)
	e.IDs = w.ids
	e.Tokens = w.tokens + 1

	used := len(e.IDs)
	n := max(used, t.maxTokens)
	e.IDs = slices.Grow(e.IDs, n-used)[:n]
	e.Mask = slices.Grow(e.Mask[:0], n)[:n]
	for i := range e.Mask {
		e.Mask[i] = 1
	}
	for i := used; i < n; i++ {
		e.IDs[i], e.Mask[i] = v.pad, 0
	}
}

// findSpecial returns the first special token in text and where it is, or
// len(text) and nil when there is none.
func (v *vocabulary) findSpecial(text string) (at int, token *specialToken) {
	for at < len(text) {
		i := strings.IndexByte(text[at:], v.mark)
		if i < 0 {
			break
		}
		at += i
		for i := range v.special {
			if strings.HasPrefix(text[at:], v.special[i].text) {
				return at, &v.special[i]
			}
		}
		at++
	}
	return len(text), nil
}

// nextChunk returns how many bytes of text come before its first ASCII white space,
// and whether they are ASCII. Neither normalisation nor a word ever crosses such a
// space.
func nextChunk(text string) (n int, ascii bool) {
	var all byte
	for n < len(text) {
		b := text[n]
		if b == ' ' || b-'\t' <= 1 || b == '\r' {
			break
		}
		all |= b
		n++
	}
	return n, all < 0x80
}
