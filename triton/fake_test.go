package triton_test

import (
	"context"
	"net"
	"testing"

	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fakeServer is a server that misbehaves as a test tells it. What it is not
// told it does not implement.
type fakeServer struct {
	pb.UnimplementedGRPCInferenceServiceServer
	infer    func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error)
	register func() error
	config   *pb.ModelConfig // of the only model
}

func (s *fakeServer) RepositoryIndex(context.Context, *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	if s.config == nil {
		return nil, status.Error(codes.Internal, "no repository")
	}
	return &pb.RepositoryIndexResponse{Models: []*pb.RepositoryIndexResponse_ModelIndex{
		{Name: s.config.GetName(), Version: "1", State: "READY"},
	}}, nil
}

func (s *fakeServer) ModelConfig(context.Context, *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	return &pb.ModelConfigResponse{Config: s.config}, nil
}

func (s *fakeServer) ModelInfer(ctx context.Context, request *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	return s.infer(ctx, request)
}

func (s *fakeServer) ModelReady(context.Context, *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	return &pb.ModelReadyResponse{Ready: true}, nil
}

func (s *fakeServer) SystemSharedMemoryRegister(
	context.Context, *pb.SystemSharedMemoryRegisterRequest,
) (*pb.SystemSharedMemoryRegisterResponse, error) {
	if s.register == nil {
		return nil, status.Error(codes.Unimplemented, "client shared memory is disabled")
	}
	return &pb.SystemSharedMemoryRegisterResponse{}, s.register()
}

// serveFake serves on the address given, or a free port of the loopback
// interface, until the test ends.
func serveFake(t testing.TB, address string, s *fakeServer) string {
	t.Helper()
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	pb.RegisterGRPCInferenceServiceServer(server, s)
	return serveGRPC(t, address, server)
}

func serveGRPC(t testing.TB, address string, server *grpc.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// fakeContract is a contract for fake servers.
func fakeContract() *triton.Contract {
	return &triton.Contract{Model: "refersam_fake", Version: "1", MaxBatch: 8, ImageSize: imageSize, MaxTokens: maxTokens}
}

// goodAnswer is what a server should say to n rows: 0 everywhere.
func goodAnswer(n int) *pb.ModelInferResponse {
	return &pb.ModelInferResponse{
		ModelName: "refersam_fake",
		Outputs: []*pb.ModelInferResponse_InferOutputTensor{
			{Name: "mask_logits", Datatype: "FP32", Shape: []int64{int64(n), side, side}},
		},
		RawOutputContents: [][]byte{make([]byte, 4*n*side*side)},
	}
}

// replicaAt returns the replica of a server.
func replicaAt(t testing.TB, address string) *triton.Replica {
	t.Helper()
	fleet := newFleet(t, triton.DefaultConfig())
	if err := fleet.Add(address); err != nil {
		t.Fatal(err)
	}
	return fleet.Replicas()[0]
}
