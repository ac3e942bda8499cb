package triton_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
)

// ensembleConfig is a configuration that keeps the contract.
func ensembleConfig() *pb.ModelConfig {
	parameters := make(map[string]*pb.ModelParameter)
	for key, value := range map[string]string{
		"contract":   "1",
		"variant":    "clip",
		"label":      "demo",
		"tokenizer":  "clip-vit-large-patch14",
		"max_tokens": "22",
		"image_size": "1024",
		"resize":     "stretch",
		"upsample":   "bilinear_align_corners",
		"threshold":  "0.35",
		"checkpoint": strings.Repeat("0f", 32),
		"precision":  "fp16",
		"unknown":    "of a later version",
	} {
		parameters[key] = &pb.ModelParameter{StringValue: value}
	}
	return &pb.ModelConfig{
		Name:         "refersam_clip",
		MaxBatchSize: 16,
		Input: []*pb.ModelInput{
			{Name: "input_ids", DataType: pb.DataType_TYPE_INT32, Dims: []int64{22}},
			{Name: "attention_mask", DataType: pb.DataType_TYPE_INT32, Dims: []int64{22}},
			{Name: "image", DataType: pb.DataType_TYPE_UINT8, Dims: []int64{1024, 1024, 3}},
		},
		Output: []*pb.ModelOutput{
			{Name: "mask_logits", DataType: pb.DataType_TYPE_FP32, Dims: []int64{256, 256}},
			{Name: "coarse_logits", DataType: pb.DataType_TYPE_FP32, Dims: []int64{256, 256}},
			{Name: "features", DataType: pb.DataType_TYPE_FP16, Dims: []int64{-1}},
		},
		Parameters: parameters,
		EnsembleScheduling: &pb.ModelEnsembling{Step: []*pb.ModelEnsembling_Step{
			{ModelName: "refersam_clip_image"}, {ModelName: "refersam_clip_decoder"},
		}},
	}
}

func TestParseContract(t *testing.T) {
	got, err := triton.ParseContract(ensembleConfig())
	if err != nil {
		t.Fatal(err)
	}
	want := triton.Contract{
		Model:      "refersam_clip",
		Variant:    "clip",
		Tokenizer:  "clip-vit-large-patch14",
		MaxTokens:  22,
		ImageSize:  1024,
		MaxBatch:   16,
		Resize:     "stretch",
		Upsample:   "bilinear_align_corners",
		Threshold:  0.35,
		Checkpoint: strings.Repeat("0f", 32),
		Precision:  "fp16",
		Label:      "demo",
		Steps:      "refersam_clip_image,refersam_clip_decoder",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("contract (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"refersam_clip_image", "refersam_clip_decoder"}, got.StepNames()); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if size := got.LogitsSize(); size != 256 {
		t.Errorf("logits size %d, want 256", size)
	}
}

func TestParseContractErrors(t *testing.T) {
	set := func(key, value string) func(*pb.ModelConfig) {
		return func(c *pb.ModelConfig) { c.Parameters[key].StringValue = value }
	}
	remove := func(key string) func(*pb.ModelConfig) {
		return func(c *pb.ModelConfig) { delete(c.Parameters, key) }
	}
	const (
		sizes   = "a multiple of 32 from 32 to 4096"
		lengths = "a multiple of 1 from 3 to 512"
		between = "a number greater than 0 and less than 1"
		digest  = "the 64 lower case hexadecimal digits of a SHA-256"
	)
	tests := []struct {
		name   string
		change func(*pb.ModelConfig)
		want   []string // each error, without the model's name
	}{
		{"no contract", remove("contract"), []string{`parameter "contract" is missing, allowed: 1`}},
		{"later contract", set("contract", "2"), []string{`parameter "contract" is "2", allowed: 1`}},
		{"no variant", remove("variant"), []string{`parameter "variant" is missing, allowed: lower case letters, digits and '_'`}},
		{"variant in capitals", set("variant", "CLIP"), []string{`parameter "variant" is "CLIP", allowed: lower case letters, digits and '_'`}},
		{"variant of another model", set("variant", "bert"),
			[]string{`parameter "variant" is "bert", allowed: "clip", which is the model's name without "refersam_"`}},
		{"no tokenizer", remove("tokenizer"), []string{`parameter "tokenizer" is missing, allowed: bert-base-uncased, clip-vit-large-patch14`}},
		{"unknown tokenizer", set("tokenizer", "t5"), []string{`parameter "tokenizer" is "t5", allowed: bert-base-uncased, clip-vit-large-patch14`}},
		{"no token count", remove("max_tokens"), []string{`parameter "max_tokens" is missing, allowed: ` + lengths}},
		{"two tokens", set("max_tokens", "2"), []string{`parameter "max_tokens" is "2", allowed: ` + lengths}},
		{"tokens in words", set("max_tokens", "many"), []string{`parameter "max_tokens" is "many", allowed: ` + lengths}},
		{"no size", remove("image_size"), []string{`parameter "image_size" is missing, allowed: ` + sizes}},
		{"odd size", set("image_size", "1000"), []string{`parameter "image_size" is "1000", allowed: ` + sizes}},
		{"huge size", set("image_size", "8192"), []string{`parameter "image_size" is "8192", allowed: ` + sizes}},
		{"no resize rule", remove("resize"), []string{`parameter "resize" is missing, allowed: stretch, longest_side_pad`}},
		{"unknown resize rule", set("resize", "pad"), []string{`parameter "resize" is "pad", allowed: stretch, longest_side_pad`}},
		{"unknown upsampling", set("upsample", "bicubic"), []string{`parameter "upsample" is "bicubic", allowed: bilinear_align_corners`}},
		{"threshold 0", set("threshold", "0"), []string{`parameter "threshold" is "0", allowed: ` + between}},
		{"threshold NaN", set("threshold", "NaN"), []string{`parameter "threshold" is "NaN", allowed: ` + between}},
		{"short checkpoint", set("checkpoint", "0f"), []string{`parameter "checkpoint" is "0f", allowed: ` + digest}},
		{"checkpoint in capitals", set("checkpoint", strings.Repeat("0F", 32)),
			[]string{`parameter "checkpoint" is "` + strings.Repeat("0F", 32) + `", allowed: ` + digest}},
		{"unknown precision", set("precision", "fp4"), []string{`parameter "precision" is "fp4", allowed: fp32, fp16, bf16, fp8, int8`}},
		{"small batch", func(c *pb.ModelConfig) { c.MaxBatchSize = 7 }, []string{"max_batch_size is 7, allowed: 8 or more"}},
		{"missing input", func(c *pb.ModelConfig) { c.Input = c.Input[:2] },
			[]string{`input "image" is missing, allowed: TYPE_UINT8 [1024 1024 3]`}},
		{"input of another type", func(c *pb.ModelConfig) { c.Input[0].DataType = pb.DataType_TYPE_INT64 },
			[]string{`input "input_ids" is TYPE_INT64 [22], allowed: TYPE_INT32 [22]`}},
		{"input of another size", set("max_tokens", "77"), []string{
			`input "input_ids" is TYPE_INT32 [22], allowed: TYPE_INT32 [77]`,
			`input "attention_mask" is TYPE_INT32 [22], allowed: TYPE_INT32 [77]`,
		}},
		{"input too many", func(c *pb.ModelConfig) { c.Input = append(c.Input, &pb.ModelInput{Name: "points"}) },
			[]string{`input "points" is unknown, allowed: image, input_ids, attention_mask`}},
		{"missing output", func(c *pb.ModelConfig) { c.Output = c.Output[1:] },
			[]string{`output "mask_logits" is missing, allowed: TYPE_FP32 [256 256]`}},
		{"output of another type", func(c *pb.ModelConfig) { c.Output[1].DataType = pb.DataType_TYPE_FP16 },
			[]string{`output "coarse_logits" is TYPE_FP16 [256 256], allowed: TYPE_FP32 [256 256]`}},
		{"several", func(c *pb.ModelConfig) {
			set("resize", "pad")(c)
			remove("precision")(c)
		}, []string{
			`parameter "resize" is "pad", allowed: stretch, longest_side_pad`,
			`parameter "precision" is missing, allowed: fp32, fp16, bf16, fp8, int8`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := ensembleConfig()
			test.change(cfg)
			_, err := triton.ParseContract(cfg)
			if err == nil {
				t.Fatal("no error")
			}
			want := "model refersam_clip: " + strings.Join(test.want, "\nmodel refersam_clip: ")
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}
