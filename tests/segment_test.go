package tests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"testing"

	"github.com/refersam/refersam/api"
)

// variants are the variants in testModels.
var variants = []string{"bert", "clip"}

// The quality that the shipped models must reach on scenes they have never seen.
const (
	minMeanIoU   = 0.8 // over the phrases that describe something
	minLeftEmpty = 0.8 // of the phrases that describe nothing
)

func TestSegmentAccuracy(t *testing.T) {
	s := shared.get(t)
	for _, variant := range variants {
		t.Run(variant, func(t *testing.T) {
			var sum float64
			var asked, leftEmpty, meaningless int
			for _, scene := range scenes(t) {
				parts := []part{{"image", string(scene.picture(t))}, {"variant", variant}}
				for _, q := range scene.Questions {
					parts = append(parts, part{"phrase", q.Phrase})
				}
				a := s.segment(t, "", parts...)
				if a.Model.Variant != variant || len(a.Results) != len(scene.Questions) {
					t.Fatalf("%s: variant %q and %d results for %d phrases", scene.File, a.Model.Variant, len(a.Results), len(scene.Questions))
				}
				for i, q := range scene.Questions {
					want, got := mustDecode(t, q.Mask), mustDecode(t, *a.Results[i].Masks.RLE)
					if want.area() == 0 {
						meaningless++
						if got.area() == 0 {
							leftEmpty++
						}
						continue
					}
					asked++
					sum += iou(want, got)
				}
			}
			meanIoU, empty := sum/float64(asked), float64(leftEmpty)/float64(meaningless)
			t.Logf("mean IoU %.3f over %d phrases, %d of %d phrases without target left empty", meanIoU, asked, leftEmpty, meaningless)
			if meanIoU < minMeanIoU {
				t.Errorf("mean IoU %.3f, want at least %.2f", meanIoU, minMeanIoU)
			}
			if empty < minLeftEmpty {
				t.Errorf("%.2f of the phrases without target left empty, want at least %.2f", empty, minLeftEmpty)
			}
		})
	}
}

// Everything that an answer says about a mask must follow from the mask, and the
// same question in another form must get the same mask.
func TestSegmentForms(t *testing.T) {
	s := shared.get(t)
	scene := scenes(t)[0]
	picture := scene.picture(t)
	phrase := scene.Questions[0].Phrase

	plain := s.segment(t, "", part{"image", string(picture)}, part{"phrase", phrase}, part{"variant", "bert"})
	if plain.RequestID == "" || plain.Model.Name != "refersam_bert" || plain.Model.Version == "" {
		t.Errorf("request %q, model %+v", plain.RequestID, plain.Model)
	}
	if plain.Image.Width != scene.Width || plain.Image.Height != scene.Height {
		t.Errorf("picture of %d × %d, want %d × %d", plain.Image.Width, plain.Image.Height, scene.Width, scene.Height)
	}
	result := plain.Results[0]
	mask := mustDecode(t, *result.Masks.RLE)
	if mask.width != scene.Width || mask.height != scene.Height {
		t.Errorf("mask of %d × %d, want the picture's %d × %d", mask.width, mask.height, scene.Width, scene.Height)
	}
	if result.Area != mask.area() || result.BBox != mask.box() {
		t.Errorf("area %d, box %v; the mask says %d, %v", result.Area, result.BBox, mask.area(), mask.box())
	}
	if result.Status != "ok" || result.Score <= 0.5 || result.Score > 1 {
		t.Errorf("status %q, score %v; a foreground pixel has at least one half", result.Status, result.Score)
	}

	t.Run("JSON", func(t *testing.T) {
		body, err := json.Marshal(map[string]any{
			"image":   map[string]any{"data": picture},
			"prompts": []map[string]string{{"id": "a", "text": phrase}, {"id": "b", "text": scene.Questions[1].Phrase}},
			"output":  map[string]any{"formats": []string{"coco_rle", "png"}},
			"variant": "bert",
		})
		if err != nil {
			t.Fatal(err)
		}
		a := s.post(t, "application/json", body).answer(t)
		if len(a.Results) != 2 || a.Results[0].PromptID != "a" || a.Results[1].PromptID != "b" {
			t.Fatalf("results %+v, want those of a and b", a.Results)
		}
		img, err := png.Decode(bytes.NewReader(a.Results[0].Masks.PNG))
		if err != nil {
			t.Fatal(err)
		}
		if got := iou(fromImage(img), mask); got != 1 {
			t.Errorf("the PNG has IoU %v with the form's mask, want 1", got)
		}
		if got := iou(mustDecode(t, *a.Results[0].Masks.RLE), mask); got != 1 {
			t.Errorf("the RLE has IoU %v with the form's mask, want 1", got)
		}
	})

	t.Run("PNG", func(t *testing.T) {
		contentType, body := form(t, part{"image", string(picture)}, part{"phrase", phrase}, part{"variant", "bert"})
		got := s.post(t, contentType, body, "Accept", "image/png")
		if got.status != http.StatusOK || got.header.Get("Content-Type") != "image/png" {
			t.Fatalf("status %d, type %q", got.status, got.header.Get("Content-Type"))
		}
		img, err := png.Decode(bytes.NewReader(got.body))
		if err != nil {
			t.Fatal(err)
		}
		if got := iou(fromImage(img), mask); got != 1 {
			t.Errorf("IoU %v with the form's mask, want 1", got)
		}
	})
}

func TestSegmentSticks(t *testing.T) {
	s := shared.get(t)
	scene := scenes(t)[0]
	ask := func(unit string) string {
		a := s.segment(t, unit, part{"image", string(scene.picture(t))}, part{"phrase", scene.Questions[0].Phrase})
		return a.Model.Variant
	}
	const units = 30
	count := make(map[string]int)
	for i := range units {
		unit := fmt.Sprintf("unit-%d", i)
		variant := ask(unit)
		count[variant]++
		if again := ask(unit); again != variant {
			t.Errorf("%s got %s, then %s", unit, variant, again)
		}
	}
	for _, variant := range variants {
		if count[variant] < units/4 {
			t.Errorf("%v of %d units with a split of half and half", count, units)
		}
	}
}

func TestModels(t *testing.T) {
	s := shared.get(t)
	resp, err := client.Get(s.url + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var models api.Models
	if err := json.NewDecoder(resp.Body).Decode(&models); err != nil {
		t.Fatal(err)
	}
	if len(models.Models) != len(variants) {
		t.Fatalf("models %+v, want %v", models, variants)
	}
	for i, variant := range variants {
		if m := models.Models[i]; m.Variant != variant || m.Name != "refersam_"+variant {
			t.Errorf("model %+v, want variant %s", m, variant)
		}
	}
}
