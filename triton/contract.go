package triton

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	pb "github.com/refersam/refersam/triton/inferencepb"
)

// ModelPrefix starts the name of every ensemble; the variant follows.
const ModelPrefix = "refersam_"

// The ensemble's tensors.
const (
	tensorImage         = "image"
	tensorInputIDs      = "input_ids"
	tensorAttentionMask = "attention_mask"
	tensorMaskLogits    = "mask_logits"
	tensorCoarseLogits  = "coarse_logits"
	// stampSuffix ends the name of a stage's stamp.
	stampSuffix = "_stamp"
)

// stampBytes is the size of a stamp: two INT32.
const stampBytes = 8

// stamp is the first 64 bits of a checkpoint.
type stamp [stampBytes]byte

func (s stamp) String() string { return hex.EncodeToString(s[:]) }

// stampIn reads a stamp from a tensor: two little-endian numbers. Each number is
// 32 bits of the checkpoint in big-endian order.
func stampIn(raw []byte) (s stamp) {
	for i := 0; i < stampBytes; i += numberBytes {
		binary.BigEndian.PutUint32(s[i:], binary.LittleEndian.Uint32(raw[i:]))
	}
	return s
}

// LogitsStride is how many pixels of the model's picture one logit covers
// along each axis.
const LogitsStride = 4

// minMaxBatch is the least max_batch_size of an ensemble.
const minMaxBatch = 8

// The values that a contract may have. Before a value is added here, the
// gateway must support it.
var (
	contractVersions = []string{"1"}
	tokenizers       = []string{"bert-base-uncased", "clip-vit-large-patch14"}
	resizeRules      = []string{"stretch", "longest_side_pad"}
	upsampleRules    = []string{"bilinear_align_corners"}
	precisions       = []string{"fp32", "fp16", "bf16", "fp8", "int8"}
)

// Contract is what the gateway must know of an ensemble, read from the
// ensemble's own configuration and checked.
//
// The ensemble takes image UINT8 [N, S, S, 3], input_ids INT32 [N, L] and
// attention_mask INT32 [N, L], and gives mask_logits and coarse_logits FP32
// [N, S/4, S/4], where S is ImageSize, L is MaxTokens and N is 1 to MaxBatch.
type Contract struct {
	// Model is the name of the ensemble, "refersam_" and the variant.
	Model string
	// Variant is the short name of the ensemble: lower case letters, digits
	// and '_'.
	Variant string
	// Version is the version of the model that is served, a decimal number.
	Version string
	// Tokenizer is "bert-base-uncased" or "clip-vit-large-patch14".
	Tokenizer string
	// MaxTokens is the length of a row's IDs, special tokens included.
	MaxTokens int
	// ImageSize is the side of the model's square picture in pixels, a
	// multiple of 32.
	ImageSize int
	// MaxBatch is how many rows one call may have, at least 8.
	MaxBatch int
	// Resize is how a picture becomes square: "stretch" or "longest_side_pad".
	Resize string
	// Upsample is how logits become as large as the picture:
	// "bilinear_align_corners".
	Upsample string
	// Threshold is the least foreground probability of a pixel in the mask, in
	// (0, 1).
	Threshold float64
	// Checkpoint is the SHA-256 of the weights, 64 hexadecimal digits.
	Checkpoint string
	// Precision is what the weights are computed in: "fp32", "fp16", "bf16",
	// "fp8" or "int8".
	Precision string
	// Label describes the weights to people. It may be empty.
	Label string
	// Steps are the names of the models that the ensemble is made of, in the
	// order of its configuration, with "," between them: a slice would not let
	// contracts be compared with ==.
	Steps string
	// Stamps are the outputs that hold the stamps of the stages, one for each of
	// Steps, joined like them. It is empty if a stage has none.
	//
	// A stamp, INT32 [N, 2], is the first 64 bits of the checkpoint of a stage, so
	// an answer with the stamps of all stages shows which weights made it.
	Stamps string
}

// StepNames returns Steps one by one.
func (c *Contract) StepNames() []string { return splitList(c.Steps) }

// stampNames returns Stamps one by one.
func (c *Contract) stampNames() []string { return splitList(c.Stamps) }

func splitList(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// stamp is the stamp of Checkpoint.
func (c *Contract) stamp() (s stamp) {
	_, _ = hex.Decode(s[:], []byte(c.Checkpoint)[:2*stampBytes]) // ParseContract has checked it
	return s
}

// LogitsSize is the side of the model's square output.
func (c *Contract) LogitsSize() int { return c.ImageSize / LogitsStride }

// pixels is the size of a row's picture in bytes.
func (c *Contract) pixels() int { return 3 * c.ImageSize * c.ImageSize }

// ParseContract reads the contract of an ensemble from its configuration; it
// leaves Version empty, which is not part of a configuration. Its error lists
// everything that is missing or not allowed, and what would be.
func ParseContract(cfg *pb.ModelConfig) (Contract, error) {
	p := contractParser{model: cfg.GetName(), values: cfg.GetParameters()}
	c := Contract{
		Model:    p.model,
		MaxBatch: int(cfg.GetMaxBatchSize()),
		Variant:  p.text("variant", variantPattern.MatchString, "lower case letters, digits and '_'"),
		Label:    p.values["label"].GetStringValue(),
	}
	var steps, stamps []string
	for _, step := range cfg.GetEnsembleScheduling().GetStep() {
		steps = append(steps, step.GetModelName())
		if stamp := stampOf(step, cfg.GetOutput()); stamp != "" {
			stamps = append(stamps, stamp)
		}
	}
	c.Steps = strings.Join(steps, ",")
	if len(stamps) == len(steps) {
		c.Stamps = strings.Join(stamps, ",")
	}
	p.oneOf("contract", contractVersions)
	c.Tokenizer = p.oneOf("tokenizer", tokenizers)
	c.MaxTokens = p.integer("max_tokens", 3, 512, 1)
	c.ImageSize = p.integer("image_size", 32, 4096, 32)
	c.Resize = p.oneOf("resize", resizeRules)
	c.Upsample = p.oneOf("upsample", upsampleRules)
	c.Threshold = p.probability("threshold")
	c.Checkpoint = p.text("checkpoint", isSHA256, "the 64 lower case hexadecimal digits of a SHA-256")
	c.Precision = p.oneOf("precision", precisions)

	if c.Variant != "" && p.model != ModelPrefix+c.Variant {
		p.failf("parameter %q is %q, allowed: %q, which is the model's name without %q",
			"variant", c.Variant, strings.TrimPrefix(p.model, ModelPrefix), ModelPrefix)
	}
	if c.MaxBatch < minMaxBatch {
		p.failf("max_batch_size is %d, allowed: %d or more", c.MaxBatch, minMaxBatch)
	}
	if c.ImageSize != 0 && c.MaxTokens != 0 {
		p.tensors(cfg, &c)
	}
	if err := errors.Join(p.problems...); err != nil {
		return Contract{}, err
	}
	return c, nil
}

// stampOf returns the ensemble's output that holds the stamp of a step, or "" if
// the step has no stamp.
func stampOf(step *pb.ModelEnsembling_Step, outputs []*pb.ModelOutput) string {
	for own, name := range step.GetOutputMap() {
		if strings.HasSuffix(own, stampSuffix) && slices.ContainsFunc(outputs, func(o *pb.ModelOutput) bool {
			return o.GetName() == name && o.GetDataType() == pb.DataType_TYPE_INT32 && slices.Equal(o.GetDims(), []int64{stampBytes / numberBytes})
		}) {
			return name
		}
	}
	return ""
}

// contractParser collects what is wrong with a configuration. Its methods
// return the zero value for a parameter that is missing or not allowed.
type contractParser struct {
	model    string
	values   map[string]*pb.ModelParameter
	problems []error
}

func (p *contractParser) failf(format string, args ...any) {
	p.problems = append(p.problems, fmt.Errorf("model %s: "+format, append([]any{p.model}, args...)...))
}

func (p *contractParser) text(key string, allowed func(string) bool, description string) string {
	value, ok := p.values[key]
	switch {
	case !ok:
		p.failf("parameter %q is missing, allowed: %s", key, description)
	case !allowed(value.GetStringValue()):
		p.failf("parameter %q is %q, allowed: %s", key, value.GetStringValue(), description)
	default:
		return value.GetStringValue()
	}
	return ""
}

func (p *contractParser) oneOf(key string, allowed []string) string {
	return p.text(key, func(s string) bool { return slices.Contains(allowed, s) }, strings.Join(allowed, ", "))
}

func (p *contractParser) integer(key string, least, most, step int) int {
	var n int
	p.text(key, func(s string) bool {
		i, err := strconv.Atoi(s)
		if err != nil || i < least || i > most || i%step != 0 {
			return false
		}
		n = i
		return true
	}, fmt.Sprintf("a multiple of %d from %d to %d", step, least, most))
	return n
}

func (p *contractParser) probability(key string) float64 {
	var probability float64
	p.text(key, func(s string) bool {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || !(f > 0 && f < 1) {
			return false
		}
		probability = f
		return true
	}, "a number greater than 0 and less than 1")
	return probability
}

// tensors holds the tensors of cfg against those that c's sizes ask for. An
// output beyond those does no harm; an input would never be fed.
func (p *contractParser) tensors(cfg *pb.ModelConfig, c *Contract) {
	size, tokens, side := int64(c.ImageSize), int64(c.MaxTokens), int64(c.LogitsSize())
	inputs := []tensorSpec{
		{tensorImage, pb.DataType_TYPE_UINT8, []int64{size, size, 3}},
		{tensorInputIDs, pb.DataType_TYPE_INT32, []int64{tokens}},
		{tensorAttentionMask, pb.DataType_TYPE_INT32, []int64{tokens}},
	}
	outputs := []tensorSpec{
		{tensorMaskLogits, pb.DataType_TYPE_FP32, []int64{side, side}},
		{tensorCoarseLogits, pb.DataType_TYPE_FP32, []int64{side, side}},
	}
	for _, want := range inputs {
		checkTensor(p, "input", want, cfg.GetInput())
	}
	for _, want := range outputs {
		checkTensor(p, "output", want, cfg.GetOutput())
	}
	for _, in := range cfg.GetInput() {
		if !slices.ContainsFunc(inputs, func(want tensorSpec) bool { return want.name == in.GetName() }) {
			p.failf("input %q is unknown, allowed: %s, %s, %s", in.GetName(),
				tensorImage, tensorInputIDs, tensorAttentionMask)
		}
	}
}

// tensorSpec describes a tensor; dims leave the batch axis out.
type tensorSpec struct {
	name     string
	dataType pb.DataType
	dims     []int64
}

// checkTensor reports what is wrong with the tensor among got that has want's
// name.
func checkTensor[T interface {
	GetName() string
	GetDataType() pb.DataType
	GetDims() []int64
}](p *contractParser, kind string, want tensorSpec, got []T) {
	i := slices.IndexFunc(got, func(t T) bool { return t.GetName() == want.name })
	switch {
	case i < 0:
		p.failf("%s %q is missing, allowed: %s %v", kind, want.name, want.dataType, want.dims)
	case got[i].GetDataType() != want.dataType || !slices.Equal(got[i].GetDims(), want.dims):
		p.failf("%s %q is %s %v, allowed: %s %v", kind, want.name,
			got[i].GetDataType(), got[i].GetDims(), want.dataType, want.dims)
	}
}

var variantPattern = regexp.MustCompile(`^[a-z0-9_]+$`)

func isSHA256(s string) bool {
	digest, err := hex.DecodeString(s)
	return err == nil && len(digest) == 32 && s == strings.ToLower(s)
}
