package tokenize

import (
	"cmp"
	"slices"
	"sort"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Hugging Face normalises by Unicode 9.0: characters assigned later neither
// decompose, compose nor move. Package norm knows newer ones and breaks runs of
// more than 30 combining marks with U+034F, so it composes and decomposes only
// single characters and pairs here.

// firstDecomposable is the lowest character that normalisation may change.
const firstDecomposable = 0xc0

// The Hangul syllables, which decompose by arithmetic.
const firstHangul, lastHangul = 0xac00, 0xd7a3

// appendDecomposed appends the canonical decomposition of r. Text decomposed this
// way becomes NFD once it has been put in order.
func appendDecomposed(runes []rune, r rune) []rune {
	if r < firstDecomposable {
		return append(runes, r)
	}
	if firstHangul <= r && r <= lastHangul { // The Unicode Standard, section 3.12
		r -= firstHangul
		runes = append(runes, 0x1100+r/(21*28), 0x1161+r/28%21)
		if r%28 != 0 {
			runes = append(runes, 0x11a7+r%28)
		}
		return runes
	}
	if !unicode.Is(decomposable, r) {
		return append(runes, r)
	}
	var space [utf8.UTFMax]byte
	char := utf8.AppendRune(space[:0], r)
	for parts := norm.NFD.Properties(char).Decomposition(); len(parts) > 0; {
		part, size := utf8.DecodeRune(parts)
		runes = append(runes, part)
		parts = parts[size:]
	}
	return runes
}

// order sorts every run of combining marks by their classes.
func order(runes []rune) {
	for i := 0; i < len(runes); i++ {
		start := i
		for i < len(runes) && combiningClass(runes[i]) > 0 {
			i++
		}
		if i-start > 1 {
			slices.SortStableFunc(runes[start:i], func(a, b rune) int {
				return cmp.Compare(combiningClass(a), combiningClass(b))
			})
		}
	}
}

// appendComposed appends the canonical composition (NFC) of text.
func appendComposed(runes []rune, text string) []rune {
	// Text that is in order by a newer Unicode is also in order by 9.0, where later
	// characters are starters that no mark passes.
	if norm.NFC.IsNormalString(text) {
		for _, r := range text {
			runes = append(runes, r)
		}
		return runes
	}
	for _, r := range text {
		runes = appendDecomposed(runes, r)
	}
	order(runes)
	out := runes[:0]
	starter := -1   // index in out of the last character of class 0
	var class uint8 // of the last character of out
	for _, r := range runes {
		c := combiningClass(r)
		// A character reaches its starter unless one of the same or a higher
		// class, or another starter, stands between them.
		if starter >= 0 && (starter == len(out)-1 || class < c) {
			if composed, ok := composePair(out[starter], r); ok {
				out[starter] = composed
				continue
			}
		}
		if c == 0 {
			starter = len(out)
		}
		class = c
		out = append(out, r)
	}
	return out
}

// composePair returns the character that a and b make up, if there is one.
func composePair(a, b rune) (rune, bool) {
	if b < utf8.RuneSelf {
		return 0, false
	}
	composed := norm.NFC.String(string([]rune{a, b}))
	r, size := utf8.DecodeRuneInString(composed)
	return r, size == len(composed) && isDecomposable(r)
}

func isDecomposable(r rune) bool {
	return r >= firstDecomposable && (unicode.Is(decomposable, r) || firstHangul <= r && r <= lastHangul)
}

// combiningClass returns the canonical combining class of r.
func combiningClass(r rune) uint8 {
	if r < 0x300 || !unicode.Is(nonstarters, r) {
		return 0
	}
	return norm.NFD.PropertiesString(string(r)).CCC()
}

// lowerRun maps first, first+stride, … last to the character delta further on.
type lowerRun struct{ first, last, stride, delta rune }

// toLower returns the lower case of a single character, without regard to its
// neighbours. It returns U+0130 unchanged, because its lower case is two
// characters.
func toLower(r rune) rune {
	if r < utf8.RuneSelf {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	i := sort.Search(len(lowerRuns), func(i int) bool { return r <= lowerRuns[i].last })
	if i < len(lowerRuns) {
		if run := lowerRuns[i]; r >= run.first && (r-run.first)%run.stride == 0 {
			return r + run.delta
		}
	}
	return r
}
