package tokenize_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/refersam/refersam/tokenize"
)

const (
	bert = "bert-base-uncased"
	clip = "clip-vit-large-patch14"
)

// limits is the longest encoding of each tokenizer.
var limits = map[string]int{bert: 512, clip: 77}

// golden is what testdata/golden.py got from Hugging Face for one tokenizer.
type golden struct {
	// Phrases holds the ids of whole phrases, with special tokens.
	Phrases []struct {
		Text string  `json:"text"`
		IDs  []int32 `json:"ids"`
	} `json:"phrases"`
	// Cut holds truncated and padded encodings.
	Cut []struct {
		Text      string  `json:"text"`
		MaxTokens int     `json:"max_tokens"`
		IDs       []int32 `json:"ids"`
		Mask      []int32 `json:"mask"`
	} `json:"cut"`
	// Blocks holds a fingerprint for each 4096 code points, by the first of
	// them in hexadecimal.
	Blocks map[string]string `json:"blocks"`
}

func readGolden(t *testing.T, name string) golden {
	t.Helper()
	file, err := os.Open("testdata/golden.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]json.RawMessage{}
	if err := json.NewDecoder(unzipped).Decode(&all); err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(all[name], &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func newTokenizer(t testing.TB, name string, maxTokens int) *tokenize.Tokenizer {
	t.Helper()
	tokenizer, err := tokenize.New(name, maxTokens)
	if err != nil {
		t.Fatal(err)
	}
	return tokenizer
}

// cut shortens the ids of a whole phrase to at most n and keeps the last.
func cut(ids []int32, n int) []int32 {
	if len(ids) <= n {
		return ids
	}
	return append(slices.Clone(ids[:n-1]), ids[len(ids)-1])
}

func TestPhrasesEqualHuggingFace(t *testing.T) {
	for _, name := range tokenize.Names() {
		t.Run(name, func(t *testing.T) {
			tokenizer := newTokenizer(t, name, limits[name])
			g := readGolden(t, name)
			if len(g.Phrases) < 400 {
				t.Fatalf("only %d phrases", len(g.Phrases))
			}
			for _, p := range g.Phrases {
				got := tokenizer.Encode(p.Text)
				if got.Tokens != len(p.IDs) {
					t.Errorf("%+q: %d tokens, want %d", p.Text, got.Tokens, len(p.IDs))
				}
				want := cut(p.IDs, limits[name])
				if diff := cmp.Diff(want, got.IDs[:min(got.Tokens, limits[name])]); diff != "" {
					t.Errorf("%+q (-want +got):\n%s", p.Text, diff)
				}
			}
		})
	}
}

func TestTruncationAndPaddingEqualHuggingFace(t *testing.T) {
	for _, name := range tokenize.Names() {
		t.Run(name, func(t *testing.T) {
			for _, c := range readGolden(t, name).Cut {
				got := newTokenizer(t, name, c.MaxTokens).Encode(c.Text)
				want := tokenize.Encoding{IDs: c.IDs, Mask: c.Mask, Tokens: got.Tokens}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%q to %d tokens (-want +got):\n%s", c.Text, c.MaxTokens, diff)
				}
			}
		})
	}
}

// textAround is the twin of text_around in testdata/golden.py.
func textAround(r rune) string {
	c := string(r)
	return "a" + c + "a " + c + " " + c + "\u0301"
}

func TestEveryCharacterEqualsHuggingFace(t *testing.T) {
	for _, name := range tokenize.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tokenizer := newTokenizer(t, name, 64)
			for start, want := range readGolden(t, name).Blocks {
				first, err := strconv.ParseInt(start, 16, 32)
				if err != nil {
					t.Fatal(err)
				}
				hash := sha256.New()
				var row []byte
				for r := rune(first); r < rune(first)+0x1000; r++ {
					if !utf8.ValidRune(r) {
						continue
					}
					e := tokenizer.Encode(textAround(r))
					row = binary.LittleEndian.AppendUint32(row[:0], uint32(e.Tokens))
					for _, id := range e.IDs[:e.Tokens] {
						row = binary.LittleEndian.AppendUint32(row, uint32(id))
					}
					hash.Write(row)
				}
				if got := hex.EncodeToString(hash.Sum(nil))[:12]; got != want {
					t.Errorf("the 4096 characters from U+%s: fingerprint %s, want %s", start, got, want)
				}
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		name      string
		maxTokens int
		want      string
	}{
		{"", 20, "bert-base-uncased, clip-vit-large-patch14"},
		{"gpt2", 20, "bert-base-uncased, clip-vit-large-patch14"},
		{"BERT-base-uncased", 20, "bert-base-uncased, clip-vit-large-patch14"},
		{bert, 2, "from 3 to 512 tokens, not 2"},
		{bert, -1, "from 3 to 512 tokens, not -1"},
		{bert, 513, "from 3 to 512 tokens, not 513"},
		{clip, 2, "from 3 to 77 tokens, not 2"},
		{clip, 78, "from 3 to 77 tokens, not 78"},
	}
	for _, tt := range tests {
		tokenizer, err := tokenize.New(tt.name, tt.maxTokens)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%q, %d) = %v, error %v, want one with %q", tt.name, tt.maxTokens, tokenizer, err, tt.want)
		}
	}
}

func TestInvalidUTF8CountsAsReplacementCharacter(t *testing.T) {
	tests := []struct{ text, same string }{
		{"\xff", "\ufffd"},
		{"duck\xc3", "duck\ufffd"},
		{"a\x80\x81b", "a\ufffdb"},
		{"\xed\xa0\x80 left", "\ufffd left"},
		{"\xf5 <|endoftext|> \xfe[SEP]", "\ufffd <|endoftext|> \ufffd[SEP]"},
	}
	for name, limit := range limits {
		tokenizer := newTokenizer(t, name, limit)
		for _, tt := range tests {
			if diff := cmp.Diff(tokenizer.Encode(tt.same), tokenizer.Encode(tt.text)); diff != "" {
				t.Errorf("%s: %q is not read as %q (-want +got):\n%s", name, tt.text, tt.same, diff)
			}
		}
	}
}

// TestHostileInputTakesLittleTime uses texts that take minutes as soon as the
// work grows with the square of their length, and well under a second now.
func TestHostileInputTakesLittleTime(t *testing.T) {
	const size = 1 << 18
	hostile := map[string]string{
		"one letter":       "a",
		"two letters":      "ab",
		"punctuation":      "!",
		"brackets":         "[",
		"angles":           "<|endoftext|",
		"contractions":     "'s",
		"combining marks":  "\u0301\u0316",
		"unsorted marks":   "e\u0301\u0327\u0316\u0345",
		"Chinese":          "鸭",
		"Hangul":           "\u1112\u1161\u11ab",
		"emoji":            "🦆",
		"hundred letters":  strings.Repeat("x", 100) + " ",
		"continued pieces": strings.Repeat("ing", 33) + " ",
		"not UTF-8":        "\xff",
		"special tokens":   "[SEP]<|endoftext|>",
	}
	for name, limit := range limits {
		tokenizer := newTokenizer(t, name, limit)
		for what, unit := range hostile {
			start := time.Now()
			tokenizer.Encode(strings.Repeat(unit, size/len(unit)))
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%s: 256 KiB of %s took %v", name, what, took)
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	for name := range limits {
		tokenizer := newTokenizer(t, name, 20)
		want := tokenizer.Encode("Second-to-last woman's café 🦆")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 100 {
					if diff := cmp.Diff(want, tokenizer.Encode("Second-to-last woman's café 🦆")); diff != "" {
						t.Errorf("%s (-want +got):\n%s", name, diff)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}

func FuzzEncode(f *testing.F) {
	for _, text := range []string{
		"", "the duck on the left", "café İΣ it's 3rd!", "[SEP]<|endoftext|><|ENDOFTEXT|>",
		"a\u0301\u0316\u0345", "左边的鸭子 한국어 🦆", "\x00\xff\ufffd\u0085", strings.Repeat("x", 101),
	} {
		f.Add(text, uint8(20))
	}
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		for name, limit := range limits {
			n := 3 + int(size)%(limit-2)
			e := newTokenizer(t, name, n).Encode(text)
			if len(e.IDs) != n || len(e.Mask) != n {
				t.Fatalf("%s: %d ids and %d mask values, want %d", name, len(e.IDs), len(e.Mask), n)
			}
			used := min(e.Tokens, n)
			if used < 2 {
				t.Fatalf("%s: %d tokens, want the two special ones at least", name, e.Tokens)
			}
			wantMask := append(slices.Repeat([]int32{1}, used), make([]int32, n-used)...)
			if !slices.Equal(e.Mask, wantMask) {
				t.Fatalf("%s: mask %v with %d tokens", name, e.Mask, e.Tokens)
			}
			start, end, pad, size := int32(101), int32(102), int32(0), int32(30522)
			if name == clip {
				start, end, pad, size = 49406, 49407, 49407, 49408
			}
			if e.IDs[0] != start || e.IDs[used-1] != end {
				t.Fatalf("%s: not between %d and %d: %v", name, start, end, e.IDs)
			}
			for i, id := range e.IDs {
				if id < 0 || id >= size || i >= used && id != pad {
					t.Fatalf("%s: id %d at %d of %d", name, id, i, used)
				}
			}
			// The length decides only where the encoding ends.
			whole := newTokenizer(t, name, limit).Encode(text)
			if whole.Tokens != e.Tokens || !slices.Equal(whole.IDs[:used-1], e.IDs[:used-1]) {
				t.Fatalf("%s: %v at length %d but %v at %d", name, e, n, whole, limit)
			}
		}
	})
}
