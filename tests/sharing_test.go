package tests_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refersam/refersam/triton"
)

// The repository of sharingRepository has these variants.
const (
	sharingOne = "pair_one"
	sharingTwo = "pair_two"
)

// sharingRepository is testModels' bert as two variants that share all stages but the
// text stage.
func sharingRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const from = "refersam_bert"
	add := func(source, model string, replace ...string) {
		t.Helper()
		err := os.CopyFS(filepath.Join(dir, model), os.DirFS(filepath.Join(repositoryRoot, testModels, source)))
		if err != nil {
			t.Fatal(err)
		}
		names := strings.NewReplacer(append(replace, from+"_", "refersam_pair_")...)
		err = filepath.WalkDir(filepath.Join(dir, model), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".pbtxt" {
				return err
			}
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path, []byte(names.Replace(string(text))), 0o644))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, stage := range []string{"image", "vli", "vlp", "decoder"} {
		add(from+"_"+stage, "refersam_pair_"+stage)
	}
	for _, variant := range []string{sharingOne, sharingTwo} {
		text := triton.ModelPrefix + variant + "_text"
		add(from+"_text", text, from+"_text", text)
		add(from, triton.ModelPrefix+variant, from+"_text", text, `"`+from+`"`, `"`+triton.ModelPrefix+variant+`"`, `"bert"`, `"`+variant+`"`)
	}
	return dir
}

// truncate cuts a file of a repository off after half of its bytes.
func truncate(t *testing.T, repository, name string) {
	t.Helper()
	path := filepath.Join(repository, name)
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()/2)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// remove removes a model from a repository.
func remove(t *testing.T, repository, model string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(repository, model)); err != nil {
		t.Fatal(err)
	}
}

// reweigh makes the graph of a stage say that its weights have the checkpoint 00…,
// as if the stage were of another export.
func reweigh(t *testing.T, repository, model string) {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(repository, model, "config.pbtxt"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := triton.ParseConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := hex.DecodeString(parsed.GetParameters()["checkpoint"].GetStringValue())
	if err != nil || len(digest) < 8 {
		t.Fatalf("checkpoint %x, %v", digest, err)
	}
	stamp := make([]byte, 8)
	binary.LittleEndian.PutUint32(stamp, binary.BigEndian.Uint32(digest))
	binary.LittleEndian.PutUint32(stamp[4:], binary.BigEndian.Uint32(digest[4:]))
	path := filepath.Join(repository, model, "1", "model.onnx")
	graph, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(graph, stamp) != 1 {
		t.Fatalf("%s has the stamp %d times, want it once", path, bytes.Count(graph, stamp))
	}
	if err := os.WriteFile(path, bytes.Replace(graph, stamp, make([]byte, 8), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}

// launchModels starts a service with a folder of models.
func launchModels(t *testing.T, repository string) *service {
	t.Helper()
	s, err := launch(t.TempDir(), nil, "up", "--repository", repository)
	if err != nil {
		t.Fatal(err)
	}
	cleanUp(t, s)
	return s
}

// Two variants around the same stages are two variants for every client.
func TestVariantsThatShareStages(t *testing.T) {
	s := launchModels(t, sharingRepository(t))
	if err := s.waitReady(); err != nil {
		t.Fatal(err)
	}
	scene := scenes(t)[0]
	ask := func(s *service, variant string) bitmap {
		a := s.segment(t, "", part{"image", string(scene.picture(t))}, part{"phrase", scene.Questions[0].Phrase}, part{"variant", variant})
		if a.Model.Variant != variant || a.Model.Name != triton.ModelPrefix+variant {
			t.Errorf("asked for %s, answered by %+v", variant, a.Model)
		}
		return mustDecode(t, *a.Results[0].Masks.RLE)
	}
	want := ask(shared.get(t), "bert")
	for _, variant := range []string{sharingOne, sharingTwo} {
		if agreement := iou(ask(s, variant), want); agreement != 1 {
			t.Errorf("%s: IoU %v with the variant that has the same weights alone", variant, agreement)
		}
	}
}

// What is wrong with a stage that all variants share is named by the start, which
// fails.
func TestSharedStageIsBroken(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, repository string)
		want  []string
	}{
		"truncated graph": {
			func(t *testing.T, repository string) { truncate(t, repository, "refersam_pair_vli/1/model.onnx") },
			[]string{"model refersam_pair_one: its stage refersam_pair_vli is not loaded", "model refersam_pair_two: its stage refersam_pair_vli is not loaded", "INVALID_PROTOBUF"},
		},
		"no stage": {
			func(t *testing.T, repository string) { remove(t, repository, "refersam_pair_vli") },
			[]string{"has no model refersam_pair_vli, which is a stage of the ensemble refersam_pair_one: export the variant again"},
		},
		"other weights": {
			func(t *testing.T, repository string) { reweigh(t, repository, "refersam_pair_vli") },
			[]string{"its stage refersam_pair_vli answered with the checkpoint 00000000, and refersam_pair_one has the checkpoint", "and refersam_pair_two has the checkpoint"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			repository := sharingRepository(t)
			tc.spoil(t, repository)
			out, err := failing(t, []string{"REFERSAM_ADMIN_LISTEN=off"}, "up", "--repository", repository, "--listen", "127.0.0.1:0", "--data", t.TempDir())
			if err == nil {
				t.Error("the start succeeded")
			}
			last := out[strings.LastIndex(out, "\nrefersam: ")+1:] // what a person reads at the end
			for _, want := range tc.want {
				if !strings.Contains(last, want) {
					t.Errorf("the error does not say %q:\n%s", want, last)
				}
			}
		})
	}
}

// What is wrong with a variant's own stage takes that variant alone out of service.
func TestOwnStageBesideSharedStagesIsBroken(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, repository string)
		want  string
	}{
		"truncated graph": {
			func(t *testing.T, repository string) { truncate(t, repository, "refersam_pair_two_text/1/model.onnx") },
			"variant pair_two cannot be used: its stage refersam_pair_two_text is not loaded",
		},
		"no stage": {
			func(t *testing.T, repository string) { remove(t, repository, "refersam_pair_two_text") },
			"variant pair_two cannot be used: it is not loaded",
		},
		"other weights": {
			func(t *testing.T, repository string) { reweigh(t, repository, "refersam_pair_two_text") },
			"variant pair_two cannot be used: the model server has loaded another model",
		},
	} {
		t.Run(name, func(t *testing.T) {
			repository := sharingRepository(t)
			tc.spoil(t, repository)
			s := launchModels(t, repository)
			if err := s.waitReady(); err != nil {
				t.Fatal(err)
			}
			if status, body := s.get(t, "/readyz"); status != http.StatusOK || !strings.Contains(body, tc.want) {
				t.Errorf("readyz: status %d: %s, want %q", status, body, tc.want)
			}
			if !strings.Contains(s.logs.all(), "refersam_pair_two_text") {
				t.Errorf("the log does not name the stage:\n%s", s.logs)
			}
			picture, phrase := part{"image", string(scenes(t)[0].picture(t))}, part{"phrase", "a dog"}
			if a := s.segment(t, "", picture, phrase, part{"variant", sharingOne}); a.Model.Variant != sharingOne {
				t.Errorf("answered by %s", a.Model.Variant)
			}
			contentType, body := form(t, picture, phrase, part{"variant", sharingTwo})
			s.post(t, contentType, body).expectProblem(t, http.StatusServiceUnavailable, "not_ready")
		})
	}
}
