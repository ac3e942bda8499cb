package tests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/refersam/refersam/tests/ensembles"
	"github.com/refersam/refersam/tokenize"
)

// Every answer belongs to its own picture and phrase, whatever else was in its
// batch, and arrives once.
func TestAnswersBelongToTheirRows(t *testing.T) {
	s := serveBefore(t, []string{"REFERSAM_MAX_IN_FLIGHT=256"}, startNull(t).address, startNull(t).address).service
	tokens, err := tokenize.New(ensembles.Tokenizer, ensembles.MaxTokens)
	if err != nil {
		t.Fatal(err)
	}
	const clients, requests = 24, 20
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(c)))
			for range requests {
				if err := askForMarks(s, tokens, random); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// askForMarks asks for a random picture and random phrases and compares the
// marks of the answers.
func askForMarks(s *service, tokens *tokenize.Tokenizer, random *rand.Rand) error {
	colour := color.NRGBA{uint8(random.Uint32()), uint8(random.Uint32()), uint8(random.Uint32()), 255}
	parts := []part{{"image", string(plainPicture(colour))}}
	var want []ensembles.Marks
	for range 1 + random.IntN(2*ensembles.MaxBatch) {
		phrase := fmt.Sprintf("thing number %d of %d", random.IntN(1e6), random.IntN(1e6))
		parts = append(parts, part{"phrase", phrase})
		e := tokens.Encode(phrase)
		want = append(want, ensembles.MarksOf(colour.R, colour.G, colour.B, e.IDs, e.Mask))
	}
	contentType, body, err := encodeForm(parts...)
	if err != nil {
		return err
	}
	resp, err := client.Post(s.url+"/v1/segment", contentType, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || len(a.Results) != len(want) {
		return fmt.Errorf("status %d with %d results for %d phrases", resp.StatusCode, len(a.Results), len(want))
	}
	for i, result := range a.Results {
		mask, err := decodeRLE(result.Masks.RLE)
		if err != nil {
			return err
		}
		got, ok := ensembles.ReadMarks(mask.width, mask.height, mask.at)
		if !ok || got != want[i] {
			return fmt.Errorf("phrase %d: the answer belongs to %+v, want %+v", i, got, want[i])
		}
	}
	return nil
}

// at reports whether the pixel is foreground.
func (b bitmap) at(x, y int) bool { return b.set[x*b.height+y] }

// plainPicture is a PNG of one colour, of the model's size.
func plainPicture(c color.NRGBA) []byte {
	img := image.NewPaletted(image.Rect(0, 0, ensembles.ImageSize, ensembles.ImageSize), color.Palette{c})
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		panic(err) // a buffer takes everything
	}
	return buf.Bytes()
}
