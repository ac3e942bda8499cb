package tests_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/ensembles"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
)

// behaviour answers an inference of n rows.
type behaviour func(ctx context.Context, n int) (*pb.ModelInferResponse, error)

// fakeTriton speaks Triton's protocol and answers inferences with a behaviour that
// no real server can be made to show.
type fakeTriton struct {
	pb.UnimplementedGRPCInferenceServiceServer
	address string
	config  *pb.ModelConfig
	infer   atomic.Pointer[behaviour]
}

// startFake starts a fakeTriton that works.
func startFake(t *testing.T) *fakeTriton {
	t.Helper()
	repository := t.TempDir()
	if err := ensembles.WriteNull(repository); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(repository, "refersam_"+ensembles.NullVariant, "config.pbtxt"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeTriton{config: &pb.ModelConfig{}}
	if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, f.config); err != nil {
		t.Fatal(err)
	}
	f.behave(well)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = ln.Addr().String()
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	pb.RegisterGRPCInferenceServiceServer(server, f)
	go func() { _ = server.Serve(ln) }() // it ends with Stop
	t.Cleanup(server.Stop)
	return f
}

func (f *fakeTriton) behave(b behaviour) { f.infer.Store(&b) }

func (f *fakeTriton) ModelReady(context.Context, *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	return &pb.ModelReadyResponse{Ready: true}, nil
}

func (f *fakeTriton) RepositoryIndex(context.Context, *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	return &pb.RepositoryIndexResponse{Models: []*pb.RepositoryIndexResponse_ModelIndex{
		{Name: f.config.GetName(), Version: "1", State: "READY"},
	}}, nil
}

func (f *fakeTriton) ModelConfig(context.Context, *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	return &pb.ModelConfigResponse{Config: f.config}, nil
}

func (f *fakeTriton) ModelStatistics(context.Context, *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	return &pb.ModelStatisticsResponse{ModelStats: []*pb.ModelStatistics{{Name: f.config.GetName(), Version: "1"}}}, nil
}

func (f *fakeTriton) ModelInfer(ctx context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	n := int(r.GetInputs()[0].GetShape()[0])
	answer, err := (*f.infer.Load())(ctx, n)
	if err != nil {
		return nil, err
	}
	checkpoint, err := hex.DecodeString(f.config.GetParameters()["checkpoint"].GetStringValue())
	if err != nil {
		return nil, err
	}
	stamp := make([]byte, 0, 8*n)
	for range n {
		for i := 0; i < 8; i += 4 {
			stamp = binary.LittleEndian.AppendUint32(stamp, binary.BigEndian.Uint32(checkpoint[i:]))
		}
	}
	answer.Outputs = append(answer.Outputs, &pb.ModelInferResponse_InferOutputTensor{Name: "whole_stamp", Datatype: "INT32", Shape: []int64{int64(n), 2}})
	answer.RawOutputContents = append(answer.RawOutputContents, stamp)
	return answer, nil
}

const cells = ensembles.ImageSize / 4

// answerOf is an answer with a tensor of this shape and these raw contents.
func answerOf(raw []byte, shape ...int64) *pb.ModelInferResponse {
	return &pb.ModelInferResponse{
		ModelName: "refersam_" + ensembles.NullVariant, ModelVersion: "1",
		Outputs: []*pb.ModelInferResponse_InferOutputTensor{
			{Name: "mask_logits", Datatype: "FP32", Shape: shape},
		},
		RawOutputContents: [][]byte{raw},
	}
}

func well(_ context.Context, n int) (*pb.ModelInferResponse, error) {
	return answerOf(fill(n*cells*cells, math.Float32bits(1)), int64(n), cells, cells), nil
}

func slow(ctx context.Context, n int) (*pb.ModelInferResponse, error) {
	select {
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-time.After(10 * time.Second):
		return well(ctx, n)
	}
}

func wrongShape(_ context.Context, n int) (*pb.ModelInferResponse, error) {
	return answerOf(fill(n*100, math.Float32bits(1)), int64(n), 10, 10), nil
}

func notNumbers(_ context.Context, n int) (*pb.ModelInferResponse, error) {
	nan := math.Float32bits(float32(math.NaN()))
	return answerOf(fill(n*cells*cells, nan), int64(n), cells, cells), nil
}

func garbage(_ context.Context, n int) (*pb.ModelInferResponse, error) {
	return answerOf([]byte(strings.Repeat("garbage", n)), int64(n), cells, cells), nil
}

func huge(_ context.Context, n int) (*pb.ModelInferResponse, error) {
	return answerOf(make([]byte, 64<<20), int64(n), cells, cells), nil
}

func failure(context.Context, int) (*pb.ModelInferResponse, error) {
	return nil, status.Error(codes.Internal, "a stub died")
}
