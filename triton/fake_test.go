package triton_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// fakeServer is a server that misbehaves as a test requires. It implements
// nothing else.
type fakeServer struct {
	pb.UnimplementedGRPCInferenceServiceServer
	infer    func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error)
	register func() error
	index    []*pb.RepositoryIndexResponse_ModelIndex // of models beside config's

	mu       sync.Mutex      // of what follows
	stage    *pb.ModelConfig // of models that are called otherwise than config's; nil: config
	versions []string        // of refersam_fake_image
	config   *pb.ModelConfig // of the only model; nil: fakeConfig, which the index does not list
	configs  int             // how often a configuration was asked for
}

func (s *fakeServer) RepositoryIndex(context.Context, *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	if s.config == nil {
		return nil, status.Error(codes.Internal, "no repository")
	}
	return &pb.RepositoryIndexResponse{Models: append([]*pb.RepositoryIndexResponse_ModelIndex{
		{Name: s.config.GetName(), Version: "1", State: "READY"},
	}, s.index...)}, nil
}

func (s *fakeServer) ModelConfig(_ context.Context, request *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configs++
	if s.stage != nil && request.GetName() != s.config.GetName() {
		return &pb.ModelConfigResponse{Config: proto.CloneOf(s.stage)}, nil
	}
	if s.config == nil {
		return &pb.ModelConfigResponse{Config: fakeConfig(imageSize)}, nil
	}
	return &pb.ModelConfigResponse{Config: proto.CloneOf(s.config)}, nil
}

func (s *fakeServer) ModelStatistics(context.Context, *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	response := &pb.ModelStatisticsResponse{}
	for _, version := range s.versions {
		response.ModelStats = append(response.ModelStats, &pb.ModelStatistics{Name: "refersam_fake_image", Version: version})
	}
	return response, nil
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

// fakeConfig is the configuration of a fake server's model.
func fakeConfig(size int64) *pb.ModelConfig {
	config := ensembleConfig()
	config.Name = "refersam_fake"
	config.MaxBatchSize = 8
	config.Parameters["variant"].StringValue = "fake"
	config.Parameters["image_size"].StringValue = fmt.Sprint(size)
	config.Parameters["max_tokens"].StringValue = fmt.Sprint(maxTokens)
	config.Input[0].Dims, config.Input[1].Dims, config.Input[2].Dims = []int64{maxTokens}, []int64{maxTokens}, []int64{size, size, 3}
	config.Output[0].Dims, config.Output[1].Dims = []int64{size / 4, size / 4}, []int64{size / 4, size / 4}
	config.EnsembleScheduling.Step = nil
	return config
}

// fakeContract is the contract of fake servers.
func fakeContract() *triton.Contract { return contractOf(fakeConfig(imageSize)) }

func contractOf(config *pb.ModelConfig) *triton.Contract {
	c, err := triton.ParseContract(config)
	if err != nil {
		panic(err) // it is written for the tests
	}
	c.Version = "1"
	return &c
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
