package triton

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/refersam/refersam"
	pb "github.com/refersam/refersam/triton/inferencepb"
)

// Row is one picture and one phrase for an ensemble.
type Row struct {
	// Pixels is the picture at the contract's size S: S×S pixels of R, G and B,
	// row by row.
	Pixels *Pixels
	// IDs are the phrase's MaxTokens token ids, special tokens and padding
	// included; Mask is 1 where an id is real and 0 where it is padding, and
	// has at least one 1.
	IDs, Mask []int32
}

// maxResponseOverhead bounds what an answer holds beside the logits.
const maxResponseOverhead = 64 << 10

const (
	// numberBytes is the size of a logit, and of a number of a stamp.
	numberBytes = 4
	// notFinite is the exponent of infinities and NaNs.
	notFinite = 0x7f80_0000
)

// sharedRequest makes the request for rows with pictures in a region.
func sharedRequest(c *Contract, rows []Row, place *placement) *pb.ModelInferRequest {
	request := tokensRequest(c, len(rows), func(k int) *Row { return &rows[place.order[k]] })
	request.Inputs[0].Parameters = map[string]*pb.InferParameter{
		"shared_memory_region":    {ParameterChoice: &pb.InferParameter_StringParam{StringParam: place.region.name}},
		"shared_memory_offset":    {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: int64(place.offset)}},
		"shared_memory_byte_size": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: int64(place.size)}},
	}
	return request
}

// tokensRequest makes a request for n rows but for the contents of their
// pictures, which is the first input.
func tokensRequest(c *Contract, n int, row func(k int) *Row) *pb.ModelInferRequest {
	ids := make([]byte, 0, 4*n*c.MaxTokens)
	mask := make([]byte, 0, 4*n*c.MaxTokens)
	for k := range n {
		r := row(k)
		for i := range r.IDs {
			ids = binary.LittleEndian.AppendUint32(ids, uint32(r.IDs[i]))
			mask = binary.LittleEndian.AppendUint32(mask, uint32(r.Mask[i]))
		}
	}
	count, size, tokens := int64(n), int64(c.ImageSize), int64(c.MaxTokens)
	var outputs []*pb.ModelInferRequest_InferRequestedOutputTensor
	for _, name := range append([]string{tensorMaskLogits}, c.stampNames()...) {
		outputs = append(outputs, &pb.ModelInferRequest_InferRequestedOutputTensor{Name: name})
	}
	return &pb.ModelInferRequest{
		ModelName:    c.Model,
		ModelVersion: c.Version,
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: tensorImage, Datatype: "UINT8", Shape: []int64{count, size, size, 3}},
			{Name: tensorInputIDs, Datatype: "INT32", Shape: []int64{count, tokens}},
			{Name: tensorAttentionMask, Datatype: "INT32", Shape: []int64{count, tokens}},
		},
		Outputs:          outputs,
		RawInputContents: [][]byte{ids, mask},
	}
}

// checkRows reports rows that do not fit the contract.
func checkRows(contract *Contract, rows []Row) error {
	if len(rows) < 1 || len(rows) > contract.MaxBatch {
		return fmt.Errorf("model %s: %d rows in a batch, allowed: 1 to %d", contract.Model, len(rows), contract.MaxBatch)
	}
	for i, row := range rows {
		if got, want := len(row.Pixels.Bytes()), contract.pixels(); got != want {
			return fmt.Errorf("model %s: row %d has %d bytes of pixels, want %d", contract.Model, i, got, want)
		}
		if len(row.IDs) != contract.MaxTokens || len(row.Mask) != contract.MaxTokens {
			return fmt.Errorf("model %s: row %d has %d ids and a mask of %d, want %d",
				contract.Model, i, len(row.IDs), len(row.Mask), contract.MaxTokens)
		}
		if !slices.Contains(row.Mask, 1) {
			return fmt.Errorf("model %s: row %d has no real token", contract.Model, i)
		}
	}
	return nil
}

// contents returns the bytes of an output, which must have a type of 4 bytes per
// number and a shape.
func contents(response *pb.ModelInferResponse, name, datatype string, shape ...int64) ([]byte, error) {
	outputs, contents := response.GetOutputs(), response.GetRawOutputContents()
	i := slices.IndexFunc(outputs, func(o *pb.ModelInferResponse_InferOutputTensor) bool { return o.GetName() == name })
	if i < 0 || len(contents) != len(outputs) {
		return nil, fmt.Errorf("answer of %d tensors and %d contents lacks %s", len(outputs), len(contents), name)
	}
	raw, size := contents[i], numberBytes
	for _, n := range shape {
		size *= int(n)
	}
	if got := len(outputs[i].GetShape()); got != len(shape) {
		return nil, fmt.Errorf("%s has %d axes, want %s %v", name, got, datatype, shape)
	}
	if outputs[i].GetDatatype() != datatype || !slices.Equal(outputs[i].GetShape(), shape) || len(raw) != size {
		return nil, fmt.Errorf("%s is %.16q %v in %d bytes, want %s %v", name,
			outputs[i].GetDatatype(), outputs[i].GetShape(), len(raw), datatype, shape)
	}
	return raw, nil
}

// checkStamps returns an error and its Fault, Replaced, for a stage that made a row
// with the weights of another checkpoint than c's. The Fault is BadAnswer if the
// response has no stamps.
func checkStamps(response *pb.ModelInferResponse, c *Contract, n int) (Fault, error) {
	want, steps := c.stamp(), c.StepNames()
	for i, name := range c.stampNames() {
		raw, err := contents(response, name, "INT32", int64(n), stampBytes/numberBytes)
		if err != nil {
			return BadAnswer, err
		}
		for row := range n {
			if got := stampIn(raw[stampBytes*row:]); got != want {
				return Replaced, fmt.Errorf("its stage %s answered with the checkpoint %s, and %s has the checkpoint %s",
					steps[i], short(got.String()), c.Model, short(want.String()))
			}
		}
	}
	return "", nil
}

// logits takes the n masks of side × side logits out of a response.
func logits(response *pb.ModelInferResponse, n, side int) ([]refersam.Logits, error) {
	raw, err := contents(response, tensorMaskLogits, "FP32", int64(n), int64(side), int64(side))
	if err != nil {
		return nil, err
	}
	masks := make([]refersam.Logits, n)
	for i := range masks {
		// Memory of their own, because a caller that keeps one row must not keep the
		// whole batch in memory.
		values := make([]float32, side*side)
		for j := range values {
			bits := binary.LittleEndian.Uint32(raw[numberBytes*(i*side*side+j):])
			if bits&notFinite == notFinite {
				return nil, fmt.Errorf("row %d: logit %d is %v", i, j, math.Float32frombits(bits))
			}
			values[j] = math.Float32frombits(bits)
		}
		masks[i] = refersam.Logits{Width: side, Height: side, Values: values}
	}
	return masks, nil
}
