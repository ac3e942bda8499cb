package triton_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// An answer with stamps of another checkpoint is not used. Infer asks the
// server for nothing else than the answer.
func TestStamps(t *testing.T) {
	config := stampedConfig()
	wanted := contractOf(config)
	for _, test := range []struct {
		name   string
		change func(*pb.ModelInferResponse)
		fault  triton.Fault
		want   string
	}{
		{"right", func(*pb.ModelInferResponse) {}, "", ""},
		{"other weights in a stage", func(r *pb.ModelInferResponse) { r.RawOutputContents[2][8] ^= 1 }, triton.Replaced,
			"its stage refersam_fake_decoder answered with the checkpoint 0f0f0f0e, and refersam_fake has the checkpoint 0f0f0f0f"},
		{"no stamp of a stage", func(r *pb.ModelInferResponse) {
			r.Outputs, r.RawOutputContents = r.Outputs[:2], r.RawOutputContents[:2]
		}, triton.BadAnswer, "answer of 2 tensors and 2 contents lacks decoder_stamp"},
		{"stamps of another type", func(r *pb.ModelInferResponse) { r.Outputs[1].Datatype = "INT64" }, triton.BadAnswer, `image_stamp is "INT64" [2 2]`},
		{"a stamp for one row of two", func(r *pb.ModelInferResponse) { r.RawOutputContents[1] = r.RawOutputContents[1][:8] }, triton.BadAnswer, "in 8 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked []string
			server := &fakeServer{infer: func(_ context.Context, request *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
				for _, output := range request.GetOutputs() {
					asked = append(asked, output.GetName())
				}
				answer := goodAnswer(2)
				for _, name := range []string{"image_stamp", "decoder_stamp"} {
					answer.Outputs = append(answer.Outputs, &pb.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "INT32", Shape: []int64{2, 2}})
					answer.RawOutputContents = append(answer.RawOutputContents, bytes.Repeat([]byte{0x0f}, 16))
				}
				test.change(answer)
				return answer, nil
			}}
			rng := rand.New(rand.NewPCG(1, 1))
			_, err := replicaAt(t, serveFake(t, "127.0.0.1:0", server)).Infer(t.Context(), wanted, []triton.Row{randomRow(rng), randomRow(rng)})
			if diff := cmp.Diff([]string{"mask_logits", "image_stamp", "decoder_stamp"}, asked); diff != "" {
				t.Errorf("outputs asked for (-want +got):\n%s", diff)
			}
			if server.configs != 0 {
				t.Errorf("%d looks at the model, want none", server.configs)
			}
			var fault *triton.ReplicaError
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (!errors.As(err, &fault) || fault.Fault != test.fault || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want the fault %q that says %q", err, test.fault, test.want)
			}
		})
	}
}

// A server that refuses a request because it has loaded a model of other sizes is
// at fault, not the request.
func TestStampsOfOtherSizes(t *testing.T) {
	wanted, config := contractOf(stampedConfig()), stampedConfig()
	config.Parameters["max_tokens"].StringValue = "9"
	config.Input[0].Dims, config.Input[1].Dims = []int64{9}, []int64{9}
	server := &fakeServer{config: config, stage: &pb.ModelConfig{}, infer: func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
		return nil, status.Error(codes.InvalidArgument, "unexpected shape for input 'input_ids'")
	}}
	rng := rand.New(rand.NewPCG(1, 1))
	_, err := replicaAt(t, serveFake(t, "127.0.0.1:0", server)).Infer(t.Context(), wanted, []triton.Row{randomRow(rng)})
	var fault *triton.ReplicaError
	if !errors.As(err, &fault) || fault.Fault != triton.Replaced {
		t.Errorf("error %v, want the fault %q", err, triton.Replaced)
	}
}

// stampedConfig is fakeConfig with two stages that have stamps.
func stampedConfig() *pb.ModelConfig {
	config := fakeConfig(imageSize)
	for _, stage := range []string{"image", "decoder"} {
		stamp := stage + "_stamp"
		config.Output = append(config.Output, &pb.ModelOutput{Name: stamp, DataType: pb.DataType_TYPE_INT32, Dims: []int64{2}})
		config.EnsembleScheduling.Step = append(config.EnsembleScheduling.Step, &pb.ModelEnsembling_Step{
			ModelName: config.Name + "_" + stage, OutputMap: map[string]string{stamp: stamp},
		})
	}
	return config
}

func TestHostileAnswers(t *testing.T) {
	logit := func(i int, value float64) func(*pb.ModelInferResponse) {
		return func(r *pb.ModelInferResponse) {
			binary.LittleEndian.PutUint32(r.RawOutputContents[0][4*i:], math.Float32bits(float32(value)))
		}
	}
	output := func(change func(*pb.ModelInferResponse_InferOutputTensor)) func(*pb.ModelInferResponse) {
		return func(r *pb.ModelInferResponse) { change(r.Outputs[0]) }
	}
	tests := []struct {
		name   string
		change func(*pb.ModelInferResponse)
		want   string
	}{
		{"nothing", func(r *pb.ModelInferResponse) { r.Reset() }, "answer of 0 tensors and 0 contents lacks mask_logits"},
		{"no outputs", func(r *pb.ModelInferResponse) { r.Outputs = nil }, "answer of 0 tensors and 1 contents lacks mask_logits"},
		{"no contents", func(r *pb.ModelInferResponse) { r.RawOutputContents = nil }, "answer of 1 tensors and 0 contents lacks mask_logits"},
		{"name", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Name = "mask" }), "lacks mask_logits"},
		{"type", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Datatype = "FP16" }), `mask_logits is "FP16"`},
		{"long type", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Datatype = strings.Repeat("F", 60000) }), `is "FFFFFFFFFFFFFFFF" [`},
		{"one row less", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Shape[0]-- }), "[1 8 8]"},
		{"other side", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Shape[2] = 16 }), "[2 8 16]"},
		{"huge shape", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Shape = []int64{1 << 62, 1 << 62, 1 << 62} }), "want FP32 [2 8 8]"},
		{"negative shape", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Shape[0] = -2 }), "[-2 8 8]"},
		{"no shape", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Shape = nil }), "0 axes"},
		{"many axes", output(func(o *pb.ModelInferResponse_InferOutputTensor) { o.Shape = make([]int64, 60000) }), "60000 axes"},
		{"short", func(r *pb.ModelInferResponse) { r.RawOutputContents[0] = r.RawOutputContents[0][1:] }, "in 511 bytes"},
		{"long", func(r *pb.ModelInferResponse) { r.RawOutputContents[0] = append(r.RawOutputContents[0], 0) }, "in 513 bytes"},
		{"NaN", logit(70, math.NaN()), "row 1: logit 6 is NaN"},
		{"infinite", logit(0, math.Inf(1)), "row 0: logit 0 is +Inf"},
		{"minus infinite", logit(127, math.Inf(-1)), "row 1: logit 63 is -Inf"},
		{"too large", func(r *pb.ModelInferResponse) { r.RawOutputContents[0] = make([]byte, 4<<20) }, "larger than max"},
	}
	var change func(*pb.ModelInferResponse)
	replica := replicaAt(t, serveFake(t, "127.0.0.1:0", &fakeServer{
		infer: func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
			answer := goodAnswer(2)
			change(answer)
			return answer, nil
		},
	}))
	rng := rand.New(rand.NewPCG(1, 1))
	rows := []triton.Row{randomRow(rng), randomRow(rng)}
	for _, test := range tests {
		change = test.change
		_, err := replica.Infer(t.Context(), fakeContract(), rows)
		checkFault(t, test.name, err, replica, triton.BadAnswer, test.want)
	}
	change = logit(3, math.MaxFloat32)
	answers, err := replica.Infer(t.Context(), fakeContract(), rows)
	if err != nil || answers[0].Values[3] != math.MaxFloat32 {
		t.Errorf("a good answer after bad ones: %v", err)
	}
}

// checkFault expects an error that blames a replica.
func checkFault(t *testing.T, name string, err error, replica *triton.Replica, fault triton.Fault, want string) {
	t.Helper()
	var got *triton.ReplicaError
	if !errors.As(err, &got) || got.Fault != fault || got.Replica != replica.Name() || got.Model != "refersam_fake" {
		t.Errorf("%s: error %v, want fault %q", name, err, fault)
		return
	}
	for _, want := range []string{replica.Name(), "refersam_fake", want} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error lacks %q: %.300v", name, want, err)
		}
	}
	if len(err.Error()) > 500 {
		t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
	}
}

func TestErrorClasses(t *testing.T) {
	var answer func(context.Context) error
	replica := replicaAt(t, serveFake(t, "127.0.0.1:0", &fakeServer{
		infer: func(ctx context.Context, _ *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
			return nil, answer(ctx)
		},
	}))
	rows := []triton.Row{randomRow(rand.New(rand.NewPCG(1, 1)))}
	for _, test := range []struct {
		code  codes.Code
		fault triton.Fault
		shown refersam.Code
	}{
		{codes.Unavailable, triton.Unreachable, refersam.CodeUnavailable},
		{codes.Canceled, triton.Unreachable, refersam.CodeUnavailable},
		{codes.NotFound, triton.NotReady, refersam.CodeNotReady},
		{codes.Internal, triton.Failed, refersam.CodeInternal},
		{codes.Unknown, triton.Failed, refersam.CodeInternal},
		{codes.InvalidArgument, triton.Failed, refersam.CodeInternal},
		{codes.DeadlineExceeded, triton.Failed, refersam.CodeInternal},
		{codes.Code(77), triton.Failed, refersam.CodeInternal},
	} {
		answer = func(context.Context) error { return status.Error(test.code, "because") }
		_, err := replica.Infer(t.Context(), fakeContract(), rows)
		checkFault(t, test.code.String(), err, replica, test.fault, "because")
		if code := refersam.ErrorCode(err); code != test.shown {
			t.Errorf("%v: code %s, want %s", test.code, code, test.shown)
		}
	}

	answer = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	var fault *triton.ReplicaError
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := replica.Infer(ctx, fakeContract(), rows); !errors.Is(err, context.Canceled) || errors.As(err, &fault) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := replica.Infer(ctx, fakeContract(), rows)
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &fault) || refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (rawCodec) Name() string                         { return "proto" }

// Whatever the bytes of an answer are, Infer returns finite logits of the right
// shape or blames the replica.
func FuzzAnswer(f *testing.F) {
	var answer []byte
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		return stream.SendMsg(&answer)
	}))
	replica := replicaAt(f, serveGRPC(f, "127.0.0.1:0", server))
	rows := []triton.Row{randomRow(rand.New(rand.NewPCG(1, 1)))}
	for _, n := range []int{1, 2} {
		good, err := proto.Marshal(goodAnswer(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(good)
	}
	f.Add([]byte(nil))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		answer = data
		answers, err := replica.Infer(t.Context(), fakeContract(), rows)
		if err != nil {
			var fault *triton.ReplicaError
			if !errors.As(err, &fault) {
				t.Fatalf("nobody is blamed: %v", err)
			}
			return
		}
		if len(answers) != 1 || len(answers[0].Values) != side*side {
			t.Fatal(fmt.Sprint("not one answer of the right size: ", answers))
		}
		for _, v := range answers[0].Values {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatal("a logit is not finite")
			}
		}
	})
}
