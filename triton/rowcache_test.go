package triton_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
)

// randomRepository is testModel's repository with an image stage that adds another
// random number to each of its 64 features each time it runs. kept is the stage's
// row_cache_bytes, "" for none; a row of its results has 256 bytes.
func randomRepository(t *testing.T, kept string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "models")
	stage := filepath.Join(root, testModel+"_image")
	err := os.CopyFS(root, os.DirFS(filepath.Join("testdata", "model_repository")))
	graph, readErr := os.ReadFile(filepath.Join("testdata", "random_image.onnx"))
	if err := errors.Join(err, readErr); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(stage, "configs", "cpu.pbtxt")
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if kept != "" {
		config = fmt.Appendf(config, "parameters { key: \"row_cache_bytes\" value { string_value: %q } }\n", kept)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(stage, "1", "model.onnx"), graph, 0o644), os.WriteFile(path, config, 0o644)); err != nil {
		t.Fatal(err)
	}
	return root
}

// The random numbers show which rows the image stage has computed anew.
func TestRowCache(t *testing.T) {
	for _, test := range []struct {
		name, kept string
		shared     bool // equal rows of one batch are computed once
		remembered bool // a row is kept for the next batch
		evicted    bool // three other rows later it is not
	}{
		{"none", "", false, false, true},
		{"no bytes", "0", false, false, true},
		{"less than one row", "100", true, false, true},
		{"two rows", "512", true, true, true},
		{"all rows", "100000", true, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := localConfig(t)
			cfg.Repository = randomRepository(t, test.kept)
			fleet := fleetOf(t, startLocal(t, cfg).Address())
			model := contract(t, fleet)
			pictures := triton.BlankRows(model, 4)
			infer := func(rows ...triton.Row) []refersam.Logits {
				t.Helper()
				answers, err := fleet.Replicas()[0].Infer(t.Context(), model, rows)
				if err != nil {
					t.Fatal(err)
				}
				return answers
			}
			other := pictures[0]
			other.IDs = []int32{50, 0, 0, 0, 0, 0} // adds one half to each logit
			first := infer(pictures[0], pictures[1], other, pictures[0])
			if same := equal(first[0], first[3], 0); same != test.shared {
				t.Errorf("equal rows of a batch have equal results: %t", same)
			}
			if same := equal(first[0], first[2], 0.5); same != test.shared {
				t.Errorf("rows of a batch with one picture and other phrases have results of the same picture: %t", same)
			}
			if equal(first[0], first[1], 0) {
				t.Error("two pictures have the same results")
			}
			second := infer(pictures[1], pictures[0])
			if same := equal(first[0], second[1], 0) && equal(first[1], second[0], 0); same != test.remembered {
				t.Errorf("rows have the results of the batch before: %t", same)
			}
			infer(pictures[2], pictures[3])
			if same := equal(second[1], infer(pictures[0])[0], 0); same == test.evicted {
				t.Errorf("a row has its results of two batches before: %t", same)
			}
		})
	}
}

// equal reports whether b is a with more on each logit, but for rounding.
func equal(a, b refersam.Logits, more float32) bool {
	for i := range a.Values {
		if d := b.Values[i] - a.Values[i] - more; d > 1e-5 || d < -1e-5 {
			return false
		}
	}
	return true
}

func TestRowCacheThatIsNoNumber(t *testing.T) {
	cfg := localConfig(t)
	cfg.Repository = randomRepository(t, "128MB")
	_, err := local.Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "parameter row_cache_bytes is '128MB'; it must be a whole number") {
		t.Errorf("error %v", err)
	}
}
