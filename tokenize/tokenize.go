// Package tokenize turns phrases into token ids: WordPiece for BERT and
// byte-level byte pair encoding for CLIP.
//
// The ids are those of Hugging Face's fast tokenizers with default settings
// (transformers' BertTokenizerFast and CLIPTokenizerFast on tokenizers 0.23),
// for every Unicode character: tables.go is read off that library, so a newer
// Go or golang.org/x/text changes nothing. As there, a special token written
// out in the phrase ("[SEP]", "<|endoftext|>") becomes that token.
package tokenize

import (
	"fmt"
	"slices"
	"strings"
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
	// Tokens counts the tokens of the whole phrase, special tokens included,
	// before anything was cut off.
	Tokens int
}

// vocabulary is one family of tokens with the rules that lead to them.
type vocabulary struct {
	// limit is the number of positions the text encoder has.
	limit           int
	start, end, pad int32
	// special holds the tokens that are recognised in the raw phrase, before
	// any normalisation. All begin with the byte mark, and none is a prefix of
	// another.
	special map[string]int32
	mark    byte
	// split passes the tokens of a text without special tokens to emit.
	split func(text string, emit func(id int32))
}

// families holds the vocabularies by name. They are parsed when first asked
// for and kept.
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
// 512 for BERT and 77 for CLIP.
func New(name string, maxTokens int) (*Tokenizer, error) {
	load, ok := families[name]
	if !ok {
		return nil, fmt.Errorf("tokenize: unknown tokenizer %q, allowed: %s", name, strings.Join(Names(), ", "))
	}
	v, err := load()
	if err != nil {
		return nil, fmt.Errorf("tokenize: vocabulary of %s: %w", name, err)
	}
	if maxTokens < 3 || maxTokens > v.limit {
		return nil, fmt.Errorf("tokenize: %s reads from 3 to %d tokens, not %d", name, v.limit, maxTokens)
	}
	return &Tokenizer{vocabulary: v, maxTokens: maxTokens}, nil
}

// Encode returns the tokens of text. A run of bytes that are not UTF-8 counts as
// one U+FFFD. A text of n bytes takes time in the order of n·log n at most.
func (t *Tokenizer) Encode(text string) Encoding {
	v := t.vocabulary
	e := Encoding{IDs: make([]int32, t.maxTokens), Mask: make([]int32, t.maxTokens)}
	emit := func(id int32) {
		if e.Tokens < t.maxTokens-1 {
			e.IDs[e.Tokens] = id
		}
		e.Tokens++
	}

	emit(v.start)
	for text = strings.ToValidUTF8(text, "\uFFFD"); text != ""; {
		at, token := v.findSpecial(text)
		v.split(text[:at], emit)
		if token != "" {
			emit(v.special[token])
		}
		text = text[at+len(token):]
	}
	closing := min(e.Tokens, t.maxTokens-1)
	e.IDs[closing] = v.end
	e.Tokens++

	for i := range e.IDs {
		if i <= closing {
			e.Mask[i] = 1
		} else {
			e.IDs[i] = v.pad
		}
	}
	return e
}

// findSpecial returns the first special token in text and where it is, or
// len(text) and "" when there is none.
func (v *vocabulary) findSpecial(text string) (at int, token string) {
	for at < len(text) {
		i := strings.IndexByte(text[at:], v.mark)
		if i < 0 {
			break
		}
		at += i
		for token := range v.special {
			if strings.HasPrefix(text[at:], token) {
				return at, token
			}
		}
		at++
	}
	return len(text), ""
}
