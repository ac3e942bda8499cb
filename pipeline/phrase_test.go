package pipeline_test

import (
	"strings"
	"testing"

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
	for variant, name := range map[string]string{"bert": "bert-base-uncased", "clip": "clip-vit-large-patch14"} {
		tokenizer, err := tokenize.New(name, 0)
		if err != nil {
			t.Fatal(err)
		}
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
