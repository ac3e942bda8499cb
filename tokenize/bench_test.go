package tokenize_test

import (
	"strings"
	"testing"

	"github.com/refersam/refersam/tokenize"
)

func benchmarkEncode(b *testing.B, text string) {
	for _, name := range tokenize.Names() {
		b.Run(name, func(b *testing.B) {
			tokenizer := newTokenizer(b, name, 20)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				tokenizer.Encode(text)
			}
		})
	}
}

func BenchmarkEncodePhrase(b *testing.B) {
	benchmarkEncode(b, "second-to-last woman's red umbrella, 3rd from the right")
}

func BenchmarkEncodeAccents(b *testing.B) {
	benchmarkEncode(b, "le cafe\u0301 crème à gauche d'une façade naïve")
}

func BenchmarkEncodeLongWord(b *testing.B) {
	benchmarkEncode(b, strings.Repeat("a", 10_000))
}
