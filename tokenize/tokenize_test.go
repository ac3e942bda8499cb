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
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/refersam/refersam/tokenize"
)

const (
	bert = "bert-base-uncased"
	clip = "clip-vit-large-patch14"
)

// limits is the longest encoding of each tokenizer.
var limits = map[string]int{bert: 512, clip: 77}

// golden holds the results of Hugging Face, written by testdata/golden.py.
type golden struct {
	Texts      []string `json:"texts"`
	Tokenizers map[string]struct {
		// IDs holds the ids of the whole texts, with special tokens.
		IDs [][]int32 `json:"ids"`
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
	} `json:"tokenizers"`
}

var readGolden = sync.OnceValues(func() (g golden, err error) {
	file, err := os.Open("testdata/golden.json.gz")
	if err != nil {
		return g, err
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return g, err
	}
	return g, json.NewDecoder(unzipped).Decode(&g)
})

func mustReadGolden(t *testing.T) golden {
	t.Helper()
	g, err := readGolden()
	if err != nil {
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

// cut shortens or pads the ids of a whole phrase to n ids, as
// export/refersam/tokenizer.py does for training.
func cut(ids []int32, n int, pad int32) (out, mask []int32) {
	if len(ids) > n {
		return append(slices.Clone(ids[:n-1]), ids[len(ids)-1]), slices.Repeat([]int32{1}, n)
	}
	padding := n - len(ids)
	out = append(slices.Clone(ids), slices.Repeat([]int32{pad}, padding)...)
	return out, append(slices.Repeat([]int32{1}, len(ids)), make([]int32, padding)...)
}

func TestTextsEqualHuggingFace(t *testing.T) {
	g := mustReadGolden(t)
	if len(g.Texts) < 20_000 {
		t.Fatalf("only %d texts", len(g.Texts))
	}
	const short = 20
	pads := map[string]int32{bert: 0, clip: 49407}
	for _, name := range tokenize.Names() {
		t.Run(name, func(t *testing.T) {
			whole, cutting := newTokenizer(t, name, 0), newTokenizer(t, name, short)
			var got tokenize.Encoding
			for i, text := range g.Texts {
				want := g.Tokenizers[name].IDs[i]
				whole.EncodeInto(&got, text)
				if diff := cmp.Diff(want, got.IDs); diff != "" || got.Tokens != len(want) || len(got.Mask) != len(want) || slices.Contains(got.Mask, 0) {
					t.Errorf("%+q: %d tokens, mask %v (-want +got):\n%s", text, got.Tokens, got.Mask, diff)
				}
				ids, mask := cut(want, short, pads[name])
				cutting.EncodeInto(&got, text)
				if diff := cmp.Diff(tokenize.Encoding{IDs: ids, Mask: mask, Tokens: len(want)}, got); diff != "" || got.Truncated() != (len(want) > short) {
					t.Errorf("%+q to %d tokens, truncated %v (-want +got):\n%s", text, short, got.Truncated(), diff)
				}
			}
		})
	}
}

func TestTruncationAndPaddingEqualHuggingFace(t *testing.T) {
	g := mustReadGolden(t)
	for _, name := range tokenize.Names() {
		t.Run(name, func(t *testing.T) {
			for _, c := range g.Tokenizers[name].Cut {
				got := newTokenizer(t, name, c.MaxTokens).Encode(c.Text)
				want := tokenize.Encoding{IDs: c.IDs, Mask: c.Mask, Tokens: got.Tokens}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%q to %d tokens (-want +got):\n%s", c.Text, c.MaxTokens, diff)
				}
			}
		})
	}
}

// textAround must do the same as text_around in testdata/golden.py.
func textAround(r rune) string {
	c := string(r)
	return "a" + c + "a " + c + " " + c + "\u0301"
}

func TestEveryCharacterEqualsHuggingFace(t *testing.T) {
	g := mustReadGolden(t)
	for _, name := range tokenize.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tokenizer := newTokenizer(t, name, 64)
			for start, want := range g.Tokenizers[name].Blocks {
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

// The state that a call leaves in its working space, or in its caller's, does not
// affect the next call.
func TestEncodeIntoReusesSpace(t *testing.T) {
	texts := []string{"", "duck", "the [SEP] <|endoftext|>", strings.Repeat("wide ", 40), "cafe\u0301 \u1112\u1161\u11ab", strings.Repeat("x", 300)}
	for name, limit := range limits {
		for _, n := range []int{0, 3, 20, limit} {
			tokenizer := newTokenizer(t, name, n)
			var e tokenize.Encoding
			for i := range texts {
				for _, text := range []string{texts[i], texts[len(texts)-1-i]} {
					tokenizer.EncodeInto(&e, text)
					if diff := cmp.Diff(tokenizer.Encode(text), e, cmpopts.EquateEmpty()); diff != "" {
						t.Errorf("%s, %d tokens, %q (-fresh +reused):\n%s", name, n, text, diff)
					}
				}
			}
		}
	}
}

func TestEncodeIntoAllocatesNothingForASCII(t *testing.T) {
	if race {
		t.Skip("under the race detector sync.Pool drops what it is given at random")
	}
	ascii := make([]byte, 0x80)
	for i := range ascii {
		ascii[i] = byte(i)
	}
	texts := map[string]string{
		"a phrase":           "Second-to-last woman's RED umbrella, 3rd from the right!",
		"every character":    string(ascii),
		"special tokens":     "[CLS] duck[SEP] <|endoftext|> <|ENDOFTEXT|> [sep]",
		"unknown words":      "qxzvk jjfkqz bzzkrt frisbeeish",
		"words of 1,000":     strings.Repeat("a", 1000) + " " + strings.Repeat("ing!", 250),
		"the longest phrase": strings.Repeat("the duck ", 111),
	}
	for name, limit := range limits {
		for _, n := range []int{0, 20, limit} {
			tokenizer := newTokenizer(t, name, n)
			for what, text := range texts {
				var e tokenize.Encoding
				// The first run makes the space and is not counted.
				if allocs := testing.AllocsPerRun(100, func() { tokenizer.EncodeInto(&e, text) }); allocs != 0 {
					t.Errorf("%s, %d tokens, %s: %v allocations", name, n, what, allocs)
				}
			}
		}
	}
}

// TestHostileInputTakesLittleTime uses texts that would take minutes if the work
// grew with the square of their length. They take well under a second.
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
			// The length changes only where the encoding ends.
			whole := newTokenizer(t, name, 0).Encode(text)
			if whole.Tokens != e.Tokens || len(whole.IDs) != e.Tokens || whole.Truncated() || e.Truncated() != (e.Tokens > n) {
				t.Fatalf("%s: %d tokens, %d at length %d, %d ids", name, whole.Tokens, e.Tokens, n, len(whole.IDs))
			}
			if !slices.Equal(whole.IDs[:used-1], e.IDs[:used-1]) || whole.IDs[len(whole.IDs)-1] != end {
				t.Fatalf("%s: %v at length %d but %v whole", name, e.IDs, n, whole.IDs)
			}
			// A byte becomes three at most (U+FFFD, and some characters under NFC),
			// and a token has at least one.
			if most := 3*len(text) + 2; e.Tokens > most {
				t.Fatalf("%s: %d tokens of %d bytes", name, e.Tokens, len(text))
			}
			// White space separates words, and a second call gives the same result.
			for _, joined := range []string{text + " " + text, " \t" + text + "\r\n" + text + " "} {
				twice := newTokenizer(t, name, 0).Encode(joined)
				inner := whole.IDs[1 : len(whole.IDs)-1]
				if !slices.Equal(twice.IDs, slices.Concat([]int32{start}, inner, inner, []int32{end})) {
					t.Fatalf("%s: %q is %v, but alone %q is %v", name, joined, twice.IDs, text, whole.IDs)
				}
			}
		}
	})
}
