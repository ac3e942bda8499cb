package triton_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
)

// markerRepository makes a repository with the ensemble refersam_marker. Its
// answers identify the rows; see testdata/marker.py.
func markerRepository(t testing.TB, imageSize int, delay time.Duration) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "models")
	write := func(path string, text string) {
		path = filepath.Join(root, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tensors := fmt.Sprintf(`
max_batch_size: 8
input { name: "image" data_type: TYPE_UINT8 dims: [%[1]d, %[1]d, 3] }
input { name: "input_ids" data_type: TYPE_INT32 dims: [%[2]d] }
input { name: "attention_mask" data_type: TYPE_INT32 dims: [%[2]d] }
output { name: "mask_logits" data_type: TYPE_FP32 dims: [%[3]d, %[3]d] }
output { name: "coarse_logits" data_type: TYPE_FP32 dims: [%[3]d, %[3]d] }
`, imageSize, maxTokens, imageSize/4)
	var parameters strings.Builder
	for _, p := range [][2]string{
		{"contract", "1"}, {"variant", "marker"}, {"tokenizer", "bert-base-uncased"}, {"max_tokens", fmt.Sprint(maxTokens)},
		{"image_size", fmt.Sprint(imageSize)}, {"resize", "stretch"}, {"upsample", "bilinear_align_corners"},
		{"threshold", "0.5"}, {"checkpoint", strings.Repeat("0", 64)}, {"precision", "fp32"},
	} {
		fmt.Fprintf(&parameters, "parameters { key: %q value { string_value: %q } }\n", p[0], p[1])
	}
	model, err := os.ReadFile(filepath.Join("testdata", "marker.py"))
	if err != nil {
		t.Fatal(err)
	}
	step := func(name string, maps ...string) string {
		write(name+"/1/model.py", string(model))
		return fmt.Sprintf("step { model_name: %q model_version: -1 %s }\n", name, strings.Join(maps, " "))
	}
	in := func(name, value string) string { return fmt.Sprintf("input_map { key: %q value: %q }", name, value) }
	out := func(name string) string { return fmt.Sprintf("output_map { key: %q value: %q }", name, name) }
	const python = "backend: \"python\" instance_group { kind: KIND_CPU count: 1 } dynamic_batching {}\n"

	steps, ids := "", "input_ids"
	if delay > 0 {
		ids = "waited_ids"
		steps = step("refersam_marker_wait", in("input_ids", "input_ids"), out(ids))
		write("refersam_marker_wait/config.pbtxt", python+fmt.Sprintf(`name: "refersam_marker_wait" max_batch_size: 8
input { name: "input_ids" data_type: TYPE_INT32 dims: [%[1]d] }
output { name: "waited_ids" data_type: TYPE_INT32 dims: [%[1]d] }
parameters { key: "delay" value { string_value: "%[2]g" } }
`, maxTokens, delay.Seconds()))
	}
	steps += step("refersam_marker_all", in("image", "image"), in("input_ids", ids), in("attention_mask", "attention_mask"),
		out("mask_logits"), out("coarse_logits"))
	write("refersam_marker_all/config.pbtxt", `name: "refersam_marker_all" `+python+tensors)
	write("refersam_marker/config.pbtxt", `name: "refersam_marker" platform: "ensemble"`+tensors+parameters.String()+
		"ensemble_scheduling {\n"+steps+"}\n")
	if err := os.MkdirAll(filepath.Join(root, "refersam_marker", "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// startMarker starts a server with markerRepository.
func startMarker(t testing.TB, imageSize int, delay time.Duration) *local.Server {
	t.Helper()
	cfg := localConfig(t)
	cfg.Repository = markerRepository(t, imageSize, delay)
	return startLocal(t, cfg)
}

// markerRow makes a row with a known answer of the marker model.
func markerRow(pixels *triton.Pixels, sample uint8, id int32) triton.Row {
	pixels.Bytes()[0] = sample
	row := triton.Row{Pixels: pixels, IDs: make([]int32, maxTokens), Mask: make([]int32, maxTokens)}
	row.IDs[0], row.Mask[0] = id, 1
	return row
}

// checkMarker holds an answer of the marker model against its row.
func checkMarker(t testing.TB, row triton.Row, got refersam.Logits) {
	t.Helper()
	want := float32(row.Pixels.Bytes()[0]) + 256*float32(row.IDs[0])
	for _, i := range []int{0, len(got.Values) - 1} {
		if got.Values[i] != want {
			t.Errorf("logit %d is %v, want %v: the answer of another row", i, got.Values[i], want)
		}
	}
}
