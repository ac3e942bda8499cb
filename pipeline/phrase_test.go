package pipeline_test

import (
	"strings"
	"testing"
	"unicode"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/pipeline/pipelinetest"
	"github.com/refersam/refersam/tokenize"
)

// The model gets the ids that it was trained on, also of phrases that another
// Unicode normalises in another way.
func TestSegment_TokensOfThePhraseAsItIs(t *testing.T) {
	phrases := []string{
		"red cafe\u0301",
		"red \u1112\u1161\u11ab",
		"red o" + strings.Repeat("\u0327", 40),
		"red \U00011935\U00011930", // one character since Unicode 13
		"\u3000red\u0085",
	}
	s := start(t, pipelinetest.NewColourModel("bert", "clip"))
	for variant, tokenizer := range tokenizers(t) {
		req := ask(phrases...)
		req.Variant = variant
		resp, err := s.Segment(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for i, phrase := range phrases {
			if want := tokenizer.Encode(phrase).Tokens; resp.Results[i].Tokens != want {
				t.Errorf("%s: %+q has %d tokens, want %d", variant, phrase, resp.Results[i].Tokens, want)
			}
		}
	}
}

// tokenizers returns what the variants of the models in these tests read
// phrases with.
func tokenizers(t *testing.T) map[string]*tokenize.Tokenizer {
	t.Helper()
	all := make(map[string]*tokenize.Tokenizer)
	for variant, name := range map[string]string{"bert": "bert-base-uncased", "clip": "clip-vit-large-patch14"} {
		tokenizer, err := tokenize.New(name, 0)
		if err != nil {
			t.Fatal(err)
		}
		all[variant] = tokenizer
	}
	return all
}

// A phrase means what a reader sees of it: characters that do not show change
// neither the tokens nor the key of the cached answer.
func TestSegment_InvisibleCharacters(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert", "clip"))
	segment := func(variant, text string) *refersam.Result {
		t.Helper()
		req := ask(text)
		req.Variant = variant
		resp, err := s.Segment(t.Context(), req)
		if err != nil {
			t.Fatalf("%s: %+q: %v", variant, text, err)
		}
		return &resp.Results[0]
	}
	same := func(variant, text string, tokens int) {
		t.Helper()
		if r := segment(variant, text); r.Tokens != tokens || r.Origin != refersam.OriginCache {
			t.Errorf("%s: %+q has %d tokens and its answer is from %q, want %d and %q", variant, text, r.Tokens, r.Origin, tokens, refersam.OriginCache)
		}
	}
	const phrase = "the red square"
	for _, variant := range []string{"bert", "clip"} {
		tokens := segment(variant, phrase).Tokens
		for name, c := range map[string]string{
			"a byte order mark": "\uFEFF", "a zero-width space": "\u200B", "a zero-width non-joiner": "\u200C", "a zero-width joiner": "\u200D",
			"a word joiner": "\u2060", "a soft hyphen": "\u00AD", "a mark from left to right": "\u200E", "one from right to left": "\u200F",
			"an Arabic letter mark": "\u061C", "an embedding": "\u202B", "an override": "\u202E", "an isolate": "\u2068", "variation selector 1": "\uFE00",
			"variation selector 16": "\uFE0F", "variation selector 17": "\U000E0100", "a grapheme joiner": "\u034F", "a Hangul filler": "\u3164",
			"half a Hangul filler": "\uFFA0", "an invisible plus": "\u2064", "an annotation": "\uFFF9", "an object": "\uFFFC", "a tag": "\U000E0061",
			"NUL": "\x00", "backspace": "\b", "escape": "\x1b", "delete": "\x7f", "a control of 8 bits": "\u0090", "a noncharacter": "\uFFFE",
			"a Mongolian separator": "\u180E", "several": "\u200B\u200D\uFEFF\u200C",
		} {
			t.Run(variant+" "+name, func(t *testing.T) {
				same(variant, c+"the r"+c+"ed"+c+" "+c+"square"+c, tokens)
			})
		}
		for r := range rune(unicode.MaxRune) {
			switch {
			case unicode.IsSpace(r) || r == '\u2800':
				same(variant, string(r)+"the"+string(r)+" red"+string(r)+"square"+string(r), tokens)
			case r >= 0xE0080 && r < 0xE0FF0: // thousands like the others of their plane
			case unicode.Is(unicode.Prepended_Concatenation_Mark, r) || r >= 0x13430 && r <= 0x1343F: // which show
			case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
				same(variant, string(r)+"the r"+string(r)+"ed square"+string(r), tokens)
			}
		}
	}
}

// An invisible character that changes what a reader sees goes to the model.
func TestSegment_VisibleSequences(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert", "clip"))
	for variant, tokenizer := range tokenizers(t) {
		for _, phrase := range []string{
			"the \U0001F468\u200D\U0001F469\u200D\U0001F467 on the left", // a family
			"a red \u2764\uFE0F", "a red \u2764\uFE0E", "\u203C\uFE0F", // as pictures, and as text
			"\U0001F469\U0001F3FD\u200D\U0001F680",                                 // an astronaut of some skin
			"the \U0001F3F3\uFE0F\u200D\U0001F308", "\u2764\uFE0F\u200D\U0001F525", // a rainbow flag, a burning heart
			"key 1\uFE0F\u20E3",
			"\U0001F3F4\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F flag", // Scotland's
			"\u0645\u06CC\u200C\u062E\u0648\u0627\u0647\u0645",                            // Persian
			"\u0915\u094D\u200D\u0937", "\u0DC1\u0DCA\u200D\u0DBB\u0DD3",                  // Devanagari, Sinhala
			"\u0600\u06F1", // a number sign, which shows though it is a format character
		} {
			req := ask(phrase)
			req.Variant = variant
			resp, err := s.Segment(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if want := tokenizer.Encode(phrase).Tokens; resp.Results[0].Tokens != want {
				t.Errorf("%s: %+q has %d tokens, want %d", variant, phrase, resp.Results[0].Tokens, want)
			}
		}
		// The rest of an incomplete sequence does not show.
		for phrase, shown := range map[string]string{
			"a \U0001F468\u200D duck":           "a \U0001F468 duck",
			"a duck\u200D\U0001F467":            "a duck\U0001F467",
			"1\uFE0F duck":                      "1 duck",
			"\U0001F3F4\U000E0067\U000E0062 x":  "\U0001F3F4 x",
			"\u0645\u200C \u0645":               "\u0645 \u0645",
			"\u0645\u200C\u200D\u200C\u0645":    "\u0645\u200C\u0645",
			"the\u2764\uFE0F\uFE0F\uFE0F heart": "the\u2764\uFE0F heart",
		} {
			req := ask(phrase)
			req.Variant = variant
			resp, err := s.Segment(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if want := tokenizer.Encode(shown).Tokens; resp.Results[0].Tokens != want {
				t.Errorf("%s: %+q has %d tokens, want the %d of %+q", variant, phrase, resp.Results[0].Tokens, want, shown)
			}
		}
	}
}

// A phrase without anything to see is as empty as one without characters.
func TestSegment_InvisiblePhrase(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"))
	for _, phrase := range []string{"\uFEFF", " \u200B\u00A0", "\u3164\u2800", "\u202E\u202C", "\u200D\uFE0F", "\x00", "\U000E0067\U000E007F"} {
		if _, err := s.Segment(t.Context(), ask(phrase)); refersam.ErrorCode(err) != refersam.CodePhraseEmpty {
			t.Errorf("%+q: %v", phrase, err)
		}
	}
}

// How accents are written makes no phrase too long.
func TestSegment_LengthOfPhrases(t *testing.T) {
	s := start(t, pipelinetest.NewColourModel("bert"))
	for _, tc := range []struct {
		text string
		code refersam.Code
	}{
		{strings.Repeat("é", 500), ""},
		{strings.Repeat("e\u0301", 500), ""},
		{strings.Repeat("\u1112\u1161\u11ab", 333), ""},
		{strings.Repeat("é", 501), refersam.CodePhraseTooLong},
		{strings.Repeat("e\u0301", 501), refersam.CodePhraseTooLong},
	} {
		_, err := s.Segment(t.Context(), ask(tc.text))
		if tc.code == "" && err != nil || tc.code != "" && refersam.ErrorCode(err) != tc.code {
			t.Errorf("%d bytes of %.6q: %v", len(tc.text), tc.text, err)
		}
	}
}
