package tokenize_test

import (
	"compress/gzip"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/tokenize"
	"pgregory.net/rapid"
)

var asciiTable = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0, Hi: 0x7f, Stride: 1}}, LatinOffset: 1}

// The tokenizers for ASCII without special tokens, written exactly as they are
// specified and without regard to speed. For every other text Hugging Face is the
// reference.

func readVocabulary(t *testing.T, name string) []string {
	t.Helper()
	file, err := os.Open("vocab/" + name + ".txt.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

func plainBERT(lines []string) func(text string) []int32 {
	ids := make(map[string]int32)
	for i, line := range lines {
		ids[line] = int32(i)
	}
	control := regexp.MustCompile(`[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]`)
	words := regexp.MustCompile(`[a-z0-9]+|[!-/:-@\[-` + "`" + `{-~]`)
	pieces := func(word string) (out []int32) {
		prefix := ""
		for rest := word; rest != ""; prefix = "##" {
			n := len(rest)
			for n > 0 && ids[prefix+rest[:n]] == 0 {
				n--
			}
			if n == 0 || len(word) > 100 {
				return []int32{ids["[UNK]"]}
			}
			out = append(out, ids[prefix+rest[:n]])
			rest = rest[n:]
		}
		return out
	}
	return func(text string) []int32 {
		out := []int32{ids["[CLS]"]}
		for _, word := range words.FindAllString(strings.ToLower(control.ReplaceAllString(text, "")), -1) {
			out = append(out, pieces(word)...)
		}
		return append(out, ids["[SEP]"])
	}
}

func plainCLIP(lines []string) func(text string) []int32 {
	// The printable ASCII characters have the ids from 0, the other bytes come
	// after the bytes of Latin-1.
	ids := make(map[string]int32)
	for b := range byte(0x80) {
		id := int32(b) - '!'
		if b <= ' ' {
			id = 188 + int32(b)
		} else if b == 0x7f {
			id = 188 + 33
		}
		ids[string(rune(b))] = id
		ids[string(rune(b))+"</w>"] = id + 256
	}
	ranks := make(map[[2]string]int)
	for rank, line := range lines[1:] {
		left, right, _ := strings.Cut(line, " ")
		ranks[[2]string{left, right}] = rank + 1
		ids[left+right] = int32(512 + rank)
	}
	words := regexp.MustCompile(`'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\t-\r a-z0-9]+`)
	merge := func(word string) []string {
		symbols := strings.Split(word, "")
		symbols[len(symbols)-1] += "</w>"
		for {
			first, best := 0, 0
			for i := range len(symbols) - 1 {
				if rank := ranks[[2]string{symbols[i], symbols[i+1]}]; rank > 0 && (best == 0 || rank < best) {
					first, best = i, rank
				}
			}
			if best == 0 {
				return symbols
			}
			symbols[first] += symbols[first+1]
			symbols = slices.Delete(symbols, first+1, first+2)
		}
	}
	return func(text string) []int32 {
		out := []int32{49406}
		for _, word := range words.FindAllString(strings.ToLower(text), -1) {
			for _, symbol := range merge(word) {
				out = append(out, ids[symbol])
			}
		}
		return append(out, 49407)
	}
}

func TestFastEqualsPlain(t *testing.T) {
	special := regexp.MustCompile(`(?i)\[(CLS|SEP|PAD|UNK|MASK)\]|<\|(start|end)oftext\|>`)
	ascii := regexp.MustCompile(`^[!-~]+$`)
	for name, plain := range map[string]func([]string) func(string) []int32{bert: plainBERT, clip: plainCLIP} {
		t.Run(name, func(t *testing.T) {
			lines := readVocabulary(t, name)
			truth := plain(lines)
			tokenizer := newTokenizer(t, name, 0)
			// Parts of words that are in the vocabulary, joined to words that may
			// not be, and arbitrary text.
			var parts []string
			for _, line := range lines {
				for part := range strings.FieldsSeq(strings.NewReplacer("##", "", "</w>", "").Replace(line)) {
					if ascii.MatchString(part) {
						parts = append(parts, part)
					}
				}
			}
			text := rapid.Custom(func(t *rapid.T) string {
				return strings.Join(rapid.SliceOfN(rapid.OneOf(
					rapid.SampledFrom(parts),
					rapid.SampledFrom([]string{" ", " ", "'", "\t", "the", "S "}),
					rapid.StringOfN(rapid.RuneFrom(nil, asciiTable), 1, 3, -1),
				), 0, 60).Draw(t, "parts"), "")
			}).Filter(func(text string) bool { return !special.MatchString(text) })
			rapid.Check(t, func(t *rapid.T) {
				text := text.Draw(t, "text")
				var got tokenize.Encoding
				tokenizer.EncodeInto(&got, text)
				if diff := cmp.Diff(truth(text), got.IDs); diff != "" {
					t.Fatalf("%q (-plain +fast):\n%s", text, diff)
				}
			})
		})
	}
}
