// Package ensembles writes model repositories that satisfy the gateway's contract
// and cost a known time, so that measurements with them measure the gateway. A real
// tritonserver loads them.
//
// Each answer spells the row that it answers; see Marks.
package ensembles

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The sizes of every ensemble, equal to the sizes of tests/models'.
const (
	ImageSize = 224
	MaxTokens = 20
	MaxBatch  = 8
	Tokenizer = "bert-base-uncased"
	side      = ImageSize / 4
)

// The names of the ensembles on the server.
const (
	NullVariant       = "null"
	CalibratedVariant = "calibrated"
)

//go:embed model.py
var model []byte

// Cost is how long a batch of n rows takes: Fixed + n·Row.
type Cost struct {
	Fixed, Row time.Duration
}

func (c Cost) share(percent int) Cost {
	return Cost{c.Fixed * time.Duration(percent) / 100, c.Row * time.Duration(percent) / 100}
}

// stage is one model of an ensemble. A tensor has the same name in every model
// that reads or writes it.
type stage struct {
	name            string
	inputs, outputs []string
	percent         int // of the ensemble's cost
}

// dims are the tensors' types and shapes without the batch.
var dims = map[string]string{
	"image":          fmt.Sprintf("data_type: TYPE_UINT8 dims: [%d, %d, 3]", ImageSize, ImageSize),
	"input_ids":      fmt.Sprintf("data_type: TYPE_INT32 dims: [%d]", MaxTokens),
	"attention_mask": fmt.Sprintf("data_type: TYPE_INT32 dims: [%d]", MaxTokens),
	"image_mark":     "data_type: TYPE_INT32 dims: [1]",
	"text_mark":      "data_type: TYPE_INT32 dims: [1]",
	"marks":          "data_type: TYPE_INT32 dims: [2]",
	"prompts":        "data_type: TYPE_INT32 dims: [2]",
	"mask_logits":    fmt.Sprintf("data_type: TYPE_FP32 dims: [%d, %d]", side, side),
	"coarse_logits":  fmt.Sprintf("data_type: TYPE_FP32 dims: [%d, %d]", side, side),
}

// dimsOf returns a tensor's type and shape without the batch.
func dimsOf(tensor string) string {
	if strings.HasSuffix(tensor, "_stamp") {
		return "data_type: TYPE_INT32 dims: [2]"
	}
	return dims[tensor]
}

// stamped returns stages that name their checkpoint in every answer.
func stamped(stages []stage) []stage {
	stages = slices.Clone(stages)
	for i, s := range stages {
		stages[i].outputs = append(slices.Clone(s.outputs), s.stamp())
	}
	return stages
}

func (s stage) stamp() string { return s.name + "_stamp" }

// whole is the null ensemble in one step, because every further step adds a cost
// that is not the gateway's.
var whole = []stage{
	{"whole", []string{"image", "input_ids", "attention_mask"}, []string{"mask_logits", "coarse_logits"}, 100},
}

// stages are connected like the stages of ReferSAM and have the same parts of the
// time.
var stages = []stage{
	{"text", []string{"input_ids", "attention_mask"}, []string{"text_mark"}, 5},
	{"image", []string{"image"}, []string{"image_mark"}, 60},
	{"vli", []string{"image_mark", "text_mark"}, []string{"marks"}, 15},
	{"vlp", []string{"marks"}, []string{"prompts", "coarse_logits"}, 10},
	{"decoder", []string{"prompts"}, []string{"mask_logits"}, 10},
}

// WriteNull writes an ensemble that takes almost no time into dir.
func WriteNull(dir string) error { return write(dir, NullVariant, whole, Cost{}, sharedDevice) }

// WriteCalibrated writes an ensemble into dir that takes cost per batch and no CPU
// for it, as if on a GPU: its stages work on different batches at the same time,
// but only one of them has the GPU. Each server needs its own dir, which stands for
// its GPU.
func WriteCalibrated(dir string, cost Cost) error {
	return write(dir, CalibratedVariant, stages, cost, sharedDevice)
}

// WriteParallel writes the same ensemble, but as if each instance of a stage had
// its own GPU.
func WriteParallel(dir string, cost Cost) error {
	return write(dir, CalibratedVariant, stages, cost, ownDevice)
}

// The values of the parameter that says what shares a GPU.
const (
	sharedDevice = "shared" // one stage at a time
	ownDevice    = "own"    // every instance
)

// WriteWeights writes the calibrated ensemble as if its weights had a number:
// every stage that reads a picture or a phrase adds weights to its mark. So an
// answer shows which weights made it, and whether stages have different weights.
// Its checkpoint is CheckpointOf(weights).
func WriteWeights(dir string, cost Cost, weights int) error {
	return writeWeights(dir, CalibratedVariant, stamped(stages), cost, sharedDevice, CheckpointOf(weights), weights)
}

// WriteUnstamped is WriteWeights for an ensemble with answers that do not name their
// weights.
func WriteUnstamped(dir string, cost Cost, weights int) error {
	return writeWeights(dir, CalibratedVariant, stages, cost, sharedDevice, CheckpointOf(weights), weights)
}

// CheckpointOf is the checkpoint of weights with a number.
func CheckpointOf(weights int) string {
	return fmt.Sprintf("%08x", weights) + strings.Repeat("0123456789abcdef", 4)[8:]
}

func write(dir, variant string, stages []stage, cost Cost, device string) error {
	return writeWeights(dir, variant, stamped(stages), cost, device, strings.Repeat("0123456789abcdef", 4), 0)
}

func writeWeights(dir, variant string, stages []stage, cost Cost, device, checkpoint string, weights int) error {
	ensemble := "refersam_" + variant
	if err := os.MkdirAll(filepath.Join(dir, ensemble, "1"), 0o755); err != nil {
		return err
	}
	var steps strings.Builder
	outputs := []string{"mask_logits", "coarse_logits"}
	for _, s := range stages {
		if slices.Contains(s.outputs, s.stamp()) {
			outputs = append(outputs, s.stamp())
		}
		name := ensemble + "_" + s.name
		if err := writeStage(dir, name, s, cost.share(s.percent), device, checkpoint, weights); err != nil {
			return err
		}
		fmt.Fprintf(&steps, "  step {\n    model_name: %q\n    model_version: -1\n%s%s  }\n",
			name, maps("input_map", s.inputs), maps("output_map", s.outputs))
	}
	config := fmt.Sprintf("name: %q\nplatform: \"ensemble\"\nmax_batch_size: %d\n", ensemble, MaxBatch) +
		tensors("input", []string{"image", "input_ids", "attention_mask"}) +
		tensors("output", outputs) +
		"ensemble_scheduling {\n" + steps.String() + "}\n" +
		parameters(
			"contract", "1", "variant", variant, "label", "answers spell their rows", "tokenizer", Tokenizer,
			"max_tokens", fmt.Sprint(MaxTokens), "image_size", fmt.Sprint(ImageSize), "resize", "stretch",
			"upsample", "bilinear_align_corners", "threshold", "0.5",
			"checkpoint", checkpoint, "precision", "fp32",
		)
	return os.WriteFile(filepath.Join(dir, ensemble, "config.pbtxt"), []byte(config), 0o644)
}

func writeStage(dir, name string, s stage, cost Cost, device, checkpoint string, weights int) error {
	version := filepath.Join(dir, name, "1")
	if err := os.MkdirAll(version, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(version, "model.py"), model, 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf("name: %q\nbackend: \"python\"\nmax_batch_size: %d\n", name, MaxBatch) +
		tensors("input", s.inputs) + tensors("output", s.outputs) +
		"instance_group { kind: KIND_CPU count: 1 }\ndynamic_batching {}\n" +
		parameters("function", s.name, "device", device, "checkpoint", checkpoint, "weights", fmt.Sprint(weights),
			"fixed_us", fmt.Sprint(cost.Fixed.Microseconds()), "row_us", fmt.Sprint(cost.Row.Microseconds()))
	return os.WriteFile(filepath.Join(dir, name, "config.pbtxt"), []byte(config), 0o644)
}

func tensors(kind string, names []string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s { name: %q %s }\n", kind, name, dimsOf(name))
	}
	return b.String()
}

func maps(kind string, names []string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "    %s { key: %q value: %q }\n", kind, name, name)
	}
	return b.String()
}

func parameters(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "parameters { key: %q value { string_value: %q } }\n", pairs[i], pairs[i+1])
	}
	return b.String()
}
