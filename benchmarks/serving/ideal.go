package main

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
	"github.com/refersam/refersam/tests/ensembles"
	"github.com/refersam/refersam/tokenize"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// ideal is a client of Triton that has no other work: its batches are made
// beforehand and always full. It is the upper bound for a gateway.
type ideal struct {
	connections []*grpc.ClientConn
	model       string
}

const idealConnections = 4

func newIdeal(address, variant string) (*ideal, error) {
	i := &ideal{model: "refersam_" + variant}
	for range idealConnections {
		connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			i.close()
			return nil, err
		}
		i.connections = append(i.connections, connection)
	}
	return i, nil
}

func (i *ideal) close() {
	for _, connection := range i.connections {
		connection.Close()
	}
}

// batch makes a request of n rows of noise and phrases.
func (i *ideal) batch(n int) (*pb.ModelInferRequest, error) {
	tokens, err := tokenize.New(ensembles.Tokenizer, ensembles.MaxTokens)
	if err != nil {
		return nil, err
	}
	random := newRandom()
	pixels := make([]byte, n*3*ensembles.ImageSize*ensembles.ImageSize)
	for j := range pixels {
		pixels[j] = byte(random.Uint32())
	}
	var ids, mask []byte
	for row := range n {
		e := tokens.Encode(load.Phrase(row))
		for j := range e.IDs {
			ids = binary.LittleEndian.AppendUint32(ids, uint32(e.IDs[j]))
			mask = binary.LittleEndian.AppendUint32(mask, uint32(e.Mask[j]))
		}
	}
	rows := int64(n)
	return &pb.ModelInferRequest{
		ModelName: i.model,
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "image", Datatype: "UINT8", Shape: []int64{rows, ensembles.ImageSize, ensembles.ImageSize, 3}},
			{Name: "input_ids", Datatype: "INT32", Shape: []int64{rows, ensembles.MaxTokens}},
			{Name: "attention_mask", Datatype: "INT32", Shape: []int64{rows, ensembles.MaxTokens}},
		},
		Outputs:          []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "mask_logits"}},
		RawInputContents: [][]byte{pixels, ids, mask},
	}, nil
}

func (i *ideal) send(ctx context.Context, connection int, request *pb.ModelInferRequest) error {
	stub := pb.NewGRPCInferenceServiceClient(i.connections[connection%len(i.connections)])
	_, err := stub.ModelInfer(ctx, request)
	return err
}

// rate keeps this number of full batches in flight and returns the rows per second
// after the first batches.
func (i *ideal) rate(ctx context.Context, inFlight int, duration time.Duration) (float64, error) {
	request, err := i.batch(ensembles.MaxBatch)
	if err != nil {
		return 0, err
	}
	var (
		wait  sync.WaitGroup
		rows  atomic.Int64
		first error
		once  sync.Once
	)
	begin := time.Now()
	warm := warmUp(duration)
	for worker := range inFlight {
		wait.Go(func() {
			for time.Since(begin) < duration {
				if err := i.send(ctx, worker, request); err != nil {
					once.Do(func() { first = err })
					return
				}
				if done := time.Since(begin); done >= warm && done < duration {
					rows.Add(ensembles.MaxBatch)
				}
			}
		})
	}
	wait.Wait()
	return float64(rows.Load()) / (duration - warm).Seconds(), first
}

// warmUp is the part of a measurement that does not count.
func warmUp(duration time.Duration) time.Duration { return duration / 5 }

// bestInFlight is the number of batches in flight with the best rate, or the
// smaller of two numbers that differ by less than one in a hundred.
func (i *ideal) bestInFlight(ctx context.Context, duration time.Duration) (int, error) {
	best, at := 0.0, 0
	for _, inFlight := range []int{1, 2, 3, 4, 6, 8} {
		rate, err := i.rate(ctx, inFlight, duration)
		if err != nil {
			return 0, err
		}
		if rate > best*1.01 {
			best, at = rate, inFlight
		}
	}
	return at, nil
}
