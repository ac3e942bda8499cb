package pipeline

import (
	"strings"
	"unicode"
)

const (
	zeroWidthNonJoiner = '\u200C'
	zeroWidthJoiner    = '\u200D'
	brailleBlank       = '\u2800' // a symbol without dots
	blackFlag          = '\U0001F3F4'
	tagFirst           = '\U000E0020'
	tagCancel          = '\U000E007F'
	keycap             = '\u20E3'
)

// withoutInvisible returns text as a reader sees it: without characters that do
// not show, and with one space where there is any white space.
//
// An invisible character changes nothing that a reader sees, and CLIP's tokenizer
// makes tokens of it, so it would change the mask. BERT's tokenizer drops it.
// Removed are control and format characters (byte order marks, zero-width
// spaces, soft hyphens, bidirectional marks, tags), variation selectors, fillers
// and the rest of Unicode's default ignorable characters. An invisible character
// that changes what is seen stays: see joinsVisibly.
func withoutInvisible(text string) string {
	if isPlain(text) {
		return text
	}
	runes := []rune(text)
	kept := make([]rune, 0, len(runes))
	space := false // whether white space came after the last of kept
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case unicode.IsSpace(r) || r == brailleBlank:
			space = true
			continue
		case invisible(r) && (space || !joinsVisibly(kept, runes[i:])):
			continue
		}
		if space && len(kept) > 0 {
			kept = append(kept, ' ')
		}
		space = false
		kept = append(kept, r)
		if n := flagTags(runes[i:]); n > 0 {
			kept = append(kept, runes[i+1:i+1+n]...)
			i += n
		}
	}
	return string(kept)
}

// isPlain reports whether text is printable ASCII with single spaces inside, so
// that it stays as it is.
func isPlain(text string) bool {
	for i := range len(text) {
		if b := text[i]; b < ' ' || b > '~' {
			return false
		}
	}
	return !strings.HasPrefix(text, " ") && !strings.HasSuffix(text, " ") && !strings.Contains(text, "  ")
}

// shownFormat are format characters with a shape of their own, or that lay out
// the characters around them.
var shownFormat = &unicode.RangeTable{R32: []unicode.Range32{{Lo: 0x13430, Hi: 0x1343F, Stride: 1}}} // Egyptian hieroglyphs

// invisible reports whether nothing shows where r stands.
func invisible(r rune) bool {
	switch {
	case r < 0x7F:
		return r < ' ' // white space has been seen to
	case unicode.Is(unicode.Cf, r):
		return !unicode.In(r, unicode.Prepended_Concatenation_Mark, shownFormat)
	case r == '\uFFFC': // stands for an object that was not copied
		return true
	}
	return unicode.In(r, unicode.Cc, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point)
}

// joiningScripts write letters in another shape before and after a joiner.
var joiningScripts = []*unicode.RangeTable{
	unicode.Arabic, unicode.Syriac, unicode.Nko, unicode.Mandaic, unicode.Mongolian, unicode.Phags_Pa, unicode.Adlam, unicode.Manichaean,
	unicode.Devanagari, unicode.Bengali, unicode.Gurmukhi, unicode.Gujarati, unicode.Oriya, unicode.Tamil, unicode.Telugu, unicode.Kannada,
	unicode.Malayalam, unicode.Sinhala, unicode.Khmer, unicode.Myanmar, unicode.Tibetan,
}

// joinsVisibly reports whether the first of rest, an invisible character behind
// before, changes how its neighbours look: a joiner inside a sequence of emoji or
// between letters that it gives another shape, or a selector that shows a symbol
// as a picture or as text.
func joinsVisibly(before, rest []rune) bool {
	if len(before) == 0 {
		return false
	}
	last, next := before[len(before)-1], rune(-1)
	if len(rest) > 1 {
		next = rest[1]
	}
	switch r := rest[0]; {
	case r == '\uFE0E' || r == '\uFE0F': // shows a symbol as text, as a picture
		return isSymbol(last) || next == keycap && (last >= '0' && last <= '9' || last == '#' || last == '*')
	case r == zeroWidthJoiner && isSymbol(next):
		return isSymbol(last) || last == '\uFE0F'
	case r == zeroWidthJoiner, r == zeroWidthNonJoiner:
		return (unicode.In(last, joiningScripts...) || unicode.Is(unicode.Inherited, last)) && unicode.In(next, joiningScripts...)
	case r >= '\u180B' && r <= '\u180F': // select a form of a Mongolian letter
		return unicode.Is(unicode.Mongolian, last)
	}
	return false
}

// isSymbol reports whether r may be shown as an emoji: nearly all are symbols to
// Unicode.
func isSymbol(r rune) bool {
	switch r {
	case '©', '®', '\u203C', '\u2049', '\u2139', '\u3030', '\u303D':
		return true
	case brailleBlank:
		return false
	}
	const modifierFirst, modifierLast = '\U0001F3FB', '\U0001F3FF' // of the skin's colour
	return r > '\u2100' && unicode.In(r, unicode.So, unicode.Sm) || r >= modifierFirst && r <= modifierLast
}

// flagTags returns how many tags stand behind the first of runes if that is a
// flag and they name its region, as in the flag of Scotland, and else 0.
func flagTags(runes []rune) int {
	const most = 7 // a country, a region of 1 to 3 letters or digits, and the end
	if runes[0] != blackFlag {
		return 0
	}
	for i, r := range runes[1:min(len(runes), most+1)] {
		switch letter := r - tagFirst + ' '; {
		case r == tagCancel && i >= 3:
			return i + 1
		case letter >= 'a' && letter <= 'z', letter >= '0' && letter <= '9':
		default:
			return 0
		}
	}
	return 0
}
