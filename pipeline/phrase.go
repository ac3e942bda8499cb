package pipeline

import (
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/refersam/refersam"
	"golang.org/x/text/unicode/norm"
)

// normalize returns the phrases as a reader sees them, or what is wrong with the
// bad ones.
func (s *Segmenter) normalize(phrases []refersam.Phrase) ([]refersam.Phrase, error) {
	if len(phrases) == 0 {
		return nil, &refersam.Error{
			Code:    refersam.CodeInvalidRequest,
			Message: "At least one phrase is needed.",
			At:      refersam.AtPhrases,
		}
	}
	if len(phrases) > s.cfg.MaxPhrases {
		return nil, &refersam.Error{
			Code:    refersam.CodeInvalidRequest,
			Message: fmt.Sprintf("%d phrases were given; at most %d are answered at once.", len(phrases), s.cfg.MaxPhrases),
			At:      refersam.AtPhrases,
		}
	}
	normal := make([]refersam.Phrase, len(phrases))
	var wrong refersam.Faults
	for i, p := range phrases {
		text, err := s.normalizeText(p.Text)
		if err != nil {
			err.At = refersam.AtPhrase(i)
			if len(phrases) > 1 { // forms have no places
				err.Message = fmt.Sprintf("Phrase %d of %d: %s", i+1, len(phrases), err.Message)
			}
			wrong.Add(err)
		}
		if p.Threshold != 0 && !(p.Threshold > 0 && p.Threshold < 1) || math.IsNaN(p.Threshold) {
			wrong.Add(&refersam.Error{
				Code:    refersam.CodeInvalidRequest,
				Message: "The threshold must be greater than 0 and less than 1.",
				At:      refersam.AtThreshold(i),
			})
		}
		normal[i] = p
		normal[i].Text = text
	}
	return normal, wrong.Err()
}

// normalizeText returns the phrase as a reader sees it, see withoutInvisible, and
// measures it in Unicode's form NFC, so that it does not matter how its accents
// are written. The phrase itself is not put into that form: the tokenizers
// normalise as the model's training did, by an older Unicode and without breaking
// up heaps of combining marks as package norm does.
func (s *Segmenter) normalizeText(text string) (string, *refersam.Error) {
	// A first look at the length, so that normalising costs little whatever
	// comes: NFC shrinks a text at most threefold (a Hangul syllable of three
	// letters, 9 bytes, becomes one of 3).
	if len(text) > 3*s.cfg.MaxPhraseBytes {
		return "", s.tooLong(len(text))
	}
	if !utf8.ValidString(text) {
		return "", refersam.Errorf(refersam.CodeInvalidRequest, "The phrase is not valid UTF-8.")
	}
	text = withoutInvisible(text)
	if !strings.ContainsFunc(text, unicode.IsGraphic) {
		return "", refersam.Errorf(refersam.CodePhraseEmpty, "The phrase is empty; say what to find, for example “the dog on the left”.")
	}
	if size := len(norm.NFC.String(text)); size > s.cfg.MaxPhraseBytes {
		return "", s.tooLong(size)
	}
	return text, nil
}

func (s *Segmenter) tooLong(size int) *refersam.Error {
	return refersam.Errorf(refersam.CodePhraseTooLong, "The phrase is %d bytes long; at most %d are read.", size, s.cfg.MaxPhraseBytes)
}
