package tokenize_test

import (
	"os"
	"strings"
	"testing"

	"github.com/refersam/refersam/tokenize"
)

// benchmarkEncode encodes texts one after the other into the same space, 20
// tokens each; an operation is one text.
func benchmarkEncode(b *testing.B, texts ...string) {
	var size int
	for _, text := range texts {
		size += len(text)
	}
	for _, name := range tokenize.Names() {
		b.Run(name, func(b *testing.B) {
			tokenizer := newTokenizer(b, name, 20)
			b.SetBytes(int64(size / len(texts)))
			b.ReportAllocs()
			var e tokenize.Encoding
			for i := 0; b.Loop(); i++ {
				tokenizer.EncodeInto(&e, texts[i%len(texts)])
			}
		})
	}
}

func readExpressions(b *testing.B) []string {
	b.Helper()
	text, err := os.ReadFile("testdata/expressions.txt")
	if err != nil {
		b.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// 32 expressions of 33 bytes on average: 185 ns for BERT and 212 ns for CLIP on an
// AMD EPYC, where the floor is 34 ns. Beside Hugging Face's encode() in one
// run: 64 and 68 times as fast (benchmarks/phrases.py).
func BenchmarkEncodeExpression(b *testing.B) {
	benchmarkEncode(b, readExpressions(b)...)
}

// BenchmarkFloor is the least work that a hash table needs for an expression: to
// hash its bytes, where each multiplication waits for the one before, and to write
// 20 ids and mask values.
func BenchmarkFloor(b *testing.B) {
	texts := readExpressions(b)
	var ids, mask [20]int32
	var h uint64
	for i := 0; b.Loop(); i++ {
		for _, c := range []byte(texts[i%len(texts)]) {
			h = (h ^ uint64(c)) * 0x100000001b3
		}
		for k := range ids {
			ids[k], mask[k] = int32(h), 1
		}
	}
	_, _ = ids, mask
}

// One phrase of 55 bytes, 14 words and parts of words: 252 and 284 ns.
func BenchmarkEncodePhrase(b *testing.B) {
	benchmarkEncode(b, "second-to-last woman's red umbrella, 3rd from the right")
}

// Composed and decomposed accents, which are not on the fast path: 0.75 and 1.6 us.
func BenchmarkEncodeAccents(b *testing.B) {
	benchmarkEncode(b, "le cafe\u0301 crème à gauche d'une façade naïve")
}

// BERT gives up on it after one pass, 20 us; CLIP merges it with a heap, 1.2 ms.
func BenchmarkEncodeLongWord(b *testing.B) {
	benchmarkEncode(b, strings.Repeat("a", 10_000))
}
