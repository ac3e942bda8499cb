// Package triton speaks to NVIDIA Triton: it reads the contract of the
// ensembles that a server has loaded, runs them, and starts a server on this
// machine where none is given.
package triton

//go:generate ./generate.sh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refersam/refersam"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// maxAttempts is how many servers one call may try. Inference changes nothing,
// so a call may be repeated elsewhere when a server is away; two and not all,
// so that a request that brings servers down cannot take every one with it.
const maxAttempts = 2

// Client runs the ensembles of one or more Triton servers that serve the same
// models. It is safe for concurrent use.
//
// Errors that may pass are a *refersam.Error: CodeUnavailable when no server
// could be reached or the connection broke, CodeNotReady when the model is not
// loaded, CodeDeadlineExceeded when the context's deadline came first. Any
// other error means that the servers and this program do not fit together, or
// that the model failed.
type Client struct {
	metadataTimeout time.Duration
	replicas        []*replica
	next            atomic.Uint32
}

// replica is one server.
type replica struct {
	address string
	conns   []*grpc.ClientConn
	next    atomic.Uint32
}

// Row is one picture and one phrase for an ensemble.
type Row struct {
	// Pixels is the picture at the contract's size S: S×S pixels of R, G and B,
	// row by row.
	Pixels []uint8
	// IDs are the phrase's MaxTokens token ids, special tokens and padding
	// included; Mask is 1 where an id is real and 0 where it is padding, and
	// has at least one 1.
	IDs, Mask []int32
}

// Dial makes a Client. It connects when the first call needs it, so the
// servers need not run yet.
func Dial(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	// A dead idle connection is found by TCP's own probes, and one with unsent
	// data by the TCP_USER_TIMEOUT that gRPC derives from keepalive's Timeout.
	// Pings of HTTP/2 do neither here: Triton hangs up on clients that send
	// them more often than every 5 minutes, or without a call under way.
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 15 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second,
			},
			MinConnectTimeout: cfg.ConnectTimeout,
		}),
		grpc.WithIdleTimeout(0),
	}
	c := &Client{metadataTimeout: cfg.MetadataTimeout}
	for _, address := range cfg.Addresses {
		r := &replica{address: address}
		c.replicas = append(c.replicas, r)
		for range cfg.Connections {
			conn, err := grpc.NewClient("dns:///"+address, options...)
			if err != nil {
				return nil, errors.Join(fmt.Errorf("triton server %s: %w", address, err), c.Close())
			}
			r.conns = append(r.conns, conn)
		}
	}
	return c, nil
}

// Close ends every connection; calls under way fail.
func (c *Client) Close() error {
	var errs []error
	for _, r := range c.replicas {
		for _, conn := range r.conns {
			errs = append(errs, conn.Close())
		}
	}
	return errors.Join(errs...)
}

// Contracts describes every ensemble that is loaded and named "refersam_"
// something, sorted by name. Servers that cannot be reached or have none
// loaded are passed over as long as one has; it is an error when two servers
// differ about an ensemble.
func (c *Client) Contracts(ctx context.Context) ([]Contract, error) {
	type answer struct {
		contracts []Contract
		err       error
	}
	answers := make([]answer, len(c.replicas))
	var wait sync.WaitGroup
	for i, r := range c.replicas {
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.metadataTimeout)
			defer cancel()
			answers[i].contracts, answers[i].err = r.contracts(ctx)
		})
	}
	wait.Wait()

	var (
		found   []Contract
		servers []string // servers[i] told us found[i]
		failure error
	)
	for i, a := range answers {
		if a.err != nil {
			if refersam.ErrorCode(a.err) == refersam.CodeInternal {
				return nil, a.err
			}
			failure = a.err
		}
		for _, contract := range a.contracts {
			j := slices.IndexFunc(found, func(other Contract) bool { return other.Model == contract.Model })
			switch {
			case j < 0:
				found = append(found, contract)
				servers = append(servers, c.replicas[i].address)
			case found[j] != contract:
				return nil, fmt.Errorf("triton servers %s and %s differ about model %s: %+v and %+v",
					servers[j], c.replicas[i].address, contract.Model, found[j], contract)
			}
		}
	}
	if len(found) == 0 {
		return nil, failure
	}
	slices.SortFunc(found, func(a, b Contract) int { return strings.Compare(a.Model, b.Model) })
	return found, nil
}

// contracts describes the ensembles that r has loaded; it is CodeNotReady when
// there are none.
func (r *replica) contracts(ctx context.Context) ([]Contract, error) {
	stub := r.stub()
	index, err := stub.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{})
	if err != nil {
		return nil, r.failure("listing models", err)
	}
	newest := make(map[string]int)
	var unready []string
	for _, m := range index.GetModels() {
		if !strings.HasPrefix(m.GetName(), ModelPrefix) {
			continue
		}
		version, err := strconv.Atoi(m.GetVersion())
		if m.GetState() != "READY" || err != nil {
			unready = append(unready, strings.TrimSpace(fmt.Sprintf("%s %s %s", m.GetName(), m.GetState(), m.GetReason())))
			continue
		}
		newest[m.GetName()] = max(newest[m.GetName()], version)
	}
	var contracts []Contract
	for name, number := range newest {
		version := strconv.Itoa(number)
		config, err := stub.ModelConfig(ctx, &pb.ModelConfigRequest{Name: name, Version: version})
		if err != nil {
			return nil, r.failure("reading the configuration of "+name, err)
		}
		if config.GetConfig().GetEnsembleScheduling() == nil {
			continue
		}
		contract, err := ParseContract(config.GetConfig())
		if err != nil {
			return nil, fmt.Errorf("triton server %s: %w", r.address, err)
		}
		contract.Version = version
		contracts = append(contracts, contract)
	}
	if len(contracts) == 0 {
		return nil, &refersam.Error{
			Code:    refersam.CodeNotReady,
			Message: messageNotReady,
			Err: fmt.Errorf("triton server %s: no ensemble named %s* is ready; not ready: %s",
				r.address, ModelPrefix, strings.Join(unready, ", ")),
		}
	}
	return contracts, nil
}

// Infer runs rows, 1 to MaxBatch of them, as one batch and returns one Logits
// of S/4 × S/4 a row, in order. It reads the rows only while it runs.
func (c *Client) Infer(ctx context.Context, contract *Contract, rows []Row) ([]refersam.Logits, error) {
	if err := checkRows(contract, rows); err != nil {
		return nil, err
	}
	image := imagePool.Get().(*[]byte)
	defer imagePool.Put(image)
	request := inferRequest(contract, rows, image)
	side := contract.LogitsSize()
	limit := grpc.MaxCallRecvMsgSize(4*len(rows)*side*side + maxResponseOverhead)

	var err error
	for _, r := range c.candidates() {
		var response *pb.ModelInferResponse
		if response, err = r.stub().ModelInfer(ctx, request, limit); err == nil {
			return logits(response, len(rows), side)
		}
		err = r.inferFailure(ctx, contract, err)
		if code := refersam.ErrorCode(err); code != refersam.CodeUnavailable && code != refersam.CodeNotReady {
			return nil, err
		}
	}
	return nil, err
}

// Probe does one real inference, on a blank picture, and fails if its logits
// are not finite.
func (c *Client) Probe(ctx context.Context, contract *Contract) error {
	row := Row{
		Pixels: make([]uint8, 3*contract.ImageSize*contract.ImageSize),
		IDs:    make([]int32, contract.MaxTokens),
		Mask:   make([]int32, contract.MaxTokens),
	}
	row.Mask[0] = 1
	answers, err := c.Infer(ctx, contract, []Row{row})
	if err != nil {
		return err
	}
	for i, v := range answers[0].Values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("model %s: logit %d of a blank picture is %v", contract.Model, i, v)
		}
	}
	return nil
}

// candidates returns the servers to try for one call, best first: in turn, but
// those whose connection is failing after all others.
func (c *Client) candidates() []*replica {
	first := int(c.next.Add(1))
	ordered := make([]*replica, 0, len(c.replicas))
	var failing []*replica
	for i := range c.replicas {
		r := c.replicas[(first+i)%len(c.replicas)]
		if r.failing() {
			failing = append(failing, r)
		} else {
			ordered = append(ordered, r)
		}
	}
	ordered = append(ordered, failing...)
	return ordered[:min(len(ordered), maxAttempts)]
}

func (r *replica) failing() bool {
	return slices.ContainsFunc(r.conns, func(conn *grpc.ClientConn) bool {
		return conn.GetState() == connectivity.TransientFailure
	})
}

// stub returns the next connection of r.
func (r *replica) stub() pb.GRPCInferenceServiceClient {
	return pb.NewGRPCInferenceServiceClient(r.conns[int(r.next.Add(1))%len(r.conns)])
}

const (
	messageUnavailable = "The model server cannot be reached. Try again later."
	messageNotReady    = "The model is not loaded yet. Try again later."
	messageDeadline    = "The model server did not answer in time."
)

// failure turns the error of a call to r into one that Client documents.
func (r *replica) failure(doing string, err error) error {
	wrap := func(code refersam.Code, message string, cause error) error {
		return &refersam.Error{Code: code, Message: message, Err: fmt.Errorf("%s on triton server %s: %w", doing, r.address, cause)}
	}
	switch status.Code(err) {
	case codes.Unavailable:
		return wrap(refersam.CodeUnavailable, messageUnavailable, err)
	case codes.NotFound:
		return wrap(refersam.CodeNotReady, messageNotReady, err)
	case codes.DeadlineExceeded:
		return wrap(refersam.CodeDeadlineExceeded, messageDeadline, fmt.Errorf("%w: %w", context.DeadlineExceeded, err))
	case codes.Canceled:
		return fmt.Errorf("%s on triton server %s: %w: %w", doing, r.address, context.Canceled, err)
	default:
		return fmt.Errorf("%s on triton server %s: %w", doing, r.address, err)
	}
}

// inferFailure is failure for an inference. Triton says Unavailable both when
// a model is loading and when the server itself stops, so it is asked which.
func (r *replica) inferFailure(ctx context.Context, contract *Contract, err error) error {
	failure := r.failure("running "+contract.Model, err)
	if status.Code(err) != codes.Unavailable {
		return failure
	}
	answer, readyErr := r.stub().ModelReady(ctx, &pb.ModelReadyRequest{Name: contract.Model, Version: contract.Version})
	if readyErr == nil && !answer.GetReady() {
		return &refersam.Error{Code: refersam.CodeNotReady, Message: messageNotReady, Err: failure}
	}
	return failure
}

// imagePool holds the pixels of whole batches, 25 MB for 8 rows of 1024×1024:
// too much to clear for each request. A buffer is free again when the call
// returns, because gRPC encodes the request before it sends it.
var imagePool = sync.Pool{New: func() any { return new([]byte) }}

// maxResponseOverhead bounds what an answer holds beside the logits.
const maxResponseOverhead = 64 << 10

// inferRequest makes the request for rows, with image as scratch space.
func inferRequest(contract *Contract, rows []Row, image *[]byte) *pb.ModelInferRequest {
	pixels := (*image)[:0]
	ids := make([]byte, 0, 4*len(rows)*contract.MaxTokens)
	mask := make([]byte, 0, 4*len(rows)*contract.MaxTokens)
	for _, row := range rows {
		pixels = append(pixels, row.Pixels...)
		for i := range row.IDs {
			ids = binary.LittleEndian.AppendUint32(ids, uint32(row.IDs[i]))
			mask = binary.LittleEndian.AppendUint32(mask, uint32(row.Mask[i]))
		}
	}
	*image = pixels
	n, size, tokens := int64(len(rows)), int64(contract.ImageSize), int64(contract.MaxTokens)
	return &pb.ModelInferRequest{
		ModelName:    contract.Model,
		ModelVersion: contract.Version,
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: tensorImage, Datatype: "UINT8", Shape: []int64{n, size, size, 3}},
			{Name: tensorInputIDs, Datatype: "INT32", Shape: []int64{n, tokens}},
			{Name: tensorAttentionMask, Datatype: "INT32", Shape: []int64{n, tokens}},
		},
		Outputs:          []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: tensorMaskLogits}},
		RawInputContents: [][]byte{pixels, ids, mask},
	}
}

// checkRows reports rows that do not fit the contract.
func checkRows(contract *Contract, rows []Row) error {
	if len(rows) < 1 || len(rows) > contract.MaxBatch {
		return fmt.Errorf("model %s: %d rows in a batch, allowed: 1 to %d", contract.Model, len(rows), contract.MaxBatch)
	}
	for i, row := range rows {
		if want := 3 * contract.ImageSize * contract.ImageSize; len(row.Pixels) != want {
			return fmt.Errorf("model %s: row %d has %d bytes of pixels, want %d", contract.Model, i, len(row.Pixels), want)
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

// logits takes the n masks of side × side logits out of a response.
func logits(response *pb.ModelInferResponse, n, side int) ([]refersam.Logits, error) {
	outputs, contents := response.GetOutputs(), response.GetRawOutputContents()
	i := slices.IndexFunc(outputs, func(o *pb.ModelInferResponse_InferOutputTensor) bool { return o.GetName() == tensorMaskLogits })
	if i < 0 || len(contents) != len(outputs) {
		return nil, fmt.Errorf("model %s: answer of %d tensors and %d contents lacks %s",
			response.GetModelName(), len(outputs), len(contents), tensorMaskLogits)
	}
	raw, shape := contents[i], []int64{int64(n), int64(side), int64(side)}
	if outputs[i].GetDatatype() != "FP32" || !slices.Equal(outputs[i].GetShape(), shape) || len(raw) != 4*n*side*side {
		return nil, fmt.Errorf("model %s: %s is %s %v in %d bytes, want FP32 %v", response.GetModelName(),
			tensorMaskLogits, outputs[i].GetDatatype(), outputs[i].GetShape(), len(raw), shape)
	}
	values := make([]float32, n*side*side)
	for j := range values {
		values[j] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*j:]))
	}
	masks := make([]refersam.Logits, n)
	for j := range masks {
		masks[j] = refersam.Logits{Width: side, Height: side, Values: values[j*side*side : (j+1)*side*side : (j+1)*side*side]}
	}
	return masks, nil
}
