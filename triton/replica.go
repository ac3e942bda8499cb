package triton

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/refersam/refersam"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// reconnectDelay is the most that gRPC waits between two attempts to connect:
// a server that is back must not go unnoticed for longer.
const reconnectDelay = time.Second

// reconnectPatience is how long Probe waits for a connection that was lost.
const reconnectPatience = 500 * time.Millisecond

// Replica is one server, which has one GPU or none. It is safe for concurrent
// use.
type Replica struct {
	name  string
	conns []*connection
	calls atomic.Int64 // inferences under way

	looks       sync.WaitGroup
	lookTimeout time.Duration

	registration registration
}

// connection is one HTTP/2 connection. It has one writer and one flow-control
// window, so a large request waits behind those before it.
type connection struct {
	grpc *grpc.ClientConn
	load atomic.Int64 // bytes of the requests under way
	// dials counts the TCP connections that were made for it, one after the
	// other. A server that was restarted is on the other end of another one.
	dials atomic.Int64

	lookersMu sync.Mutex
	lookers   map[Contract]*looker
}

// callLoad is what a call weighs beside its bytes, so that small calls spread
// over the connections too.
const callLoad = 1024

// maxHeaders bounds what a server can say in headers, messages of errors
// included.
const maxHeaders = 32 << 10

// dialer makes a TCP connection.
type dialer func(ctx context.Context, address string) (net.Conn, error)

// newDialer makes the dialer of every connection.
func newDialer() dialer {
	// A dead idle connection is found by TCP's own probes, and one with unsent
	// data by the TCP_USER_TIMEOUT that gRPC derives from keepalive's Timeout.
	// Pings of HTTP/2 do neither here: Triton hangs up on clients that send
	// them more often than every 5 minutes, or without a call under way.
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	}
}

// counted returns a dialer that counts the connections of c.
func (d dialer) counted(c *connection) dialer {
	return func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := d(ctx, address)
		if err == nil {
			c.dials.Add(1)
		}
		return conn, err
	}
}

// dialOptions are the options of every connection, but for its dialer.
func dialOptions(connectTimeout time.Duration) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 6 * time.Minute, Timeout: 15 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectDelay,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(maxHeaders),
	}
}

// newReplica makes a Replica of the server at an address, ip:port or unix:/path.
// It connects when the first call needs it, so the server need not run yet.
func newReplica(address string, cfg *Config) (*Replica, error) {
	r := &Replica{name: address, lookTimeout: cfg.MetadataTimeout}
	target, options, dial := "passthrough:///"+address, dialOptions(cfg.ConnectTimeout), newDialer()
	if path, ok := socketPath(address); ok {
		target = "passthrough:///localhost" // what the server is called in requests
		dial = func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	for range cfg.Connections {
		c := &connection{}
		conn, err := grpc.NewClient(target, append(options[:len(options):len(options)], grpc.WithContextDialer(dial.counted(c)))...)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("triton server %s: %w", address, err), r.close())
		}
		c.grpc = conn
		r.conns = append(r.conns, c)
	}
	return r, nil
}

// Name is the server's address, ip:port or unix:/path.
func (r *Replica) Name() string { return r.name }

// close ends every connection; calls under way fail.
func (r *Replica) close() error {
	r.endSharing()
	var errs []error
	for _, conn := range r.conns {
		errs = append(errs, conn.grpc.Close())
	}
	r.looks.Wait()
	return errors.Join(errs...)
}

// connection returns the connection with the least under way, one that works
// if there is one.
func (r *Replica) connection() *connection {
	return slices.MinFunc(r.conns, func(a, b *connection) int {
		if a.failing() != b.failing() {
			if b.failing() {
				return -1
			}
			return 1
		}
		return int(a.load.Load() - b.load.Load())
	})
}

// failing reports whether the last attempt to connect has failed.
func (c *connection) failing() bool { return c.grpc.GetState() == connectivity.TransientFailure }

// stub is for small calls.
func (r *Replica) stub() pb.GRPCInferenceServiceClient {
	return pb.NewGRPCInferenceServiceClient(r.connection().grpc)
}

// Infer runs rows, 1 to c.MaxBatch of them, as one batch on this server and
// returns one Logits of S/4 × S/4 per row, in order. All of them are finite. They
// were made with c's weights, even if the server has loaded other weights under
// the same name: by their stamps, or by looks if c has no stamps. Infer reads ids
// and masks only while it runs. It holds Pixels by itself for as long as it reads
// them, which is a moment longer when a call is given up.
//
// Its errors are of these classes:
//   - *ReplicaError: this replica is at fault. Another may be asked.
//   - errors.Is(err, context.Canceled): the caller has cancelled. Nothing is to
//     be repeated, and nothing is said about the replica.
//   - errors.Is(err, context.DeadlineExceeded), with CodeDeadlineExceeded: the
//     deadline of ctx has passed. There is no time to repeat anything; that
//     the replica is slow or hangs is possible.
//   - any other: rows that do not fit the contract, which no replica can run.
func (r *Replica) Infer(ctx context.Context, c *Contract, rows []Row) ([]refersam.Logits, error) {
	return r.infer(ctx, c, rows, c.Stamps == "")
}

// infer is Infer. With looks it also looks at the model, before and after.
func (r *Replica) infer(ctx context.Context, c *Contract, rows []Row, looks bool) ([]refersam.Logits, error) {
	if err := checkRows(c, rows); err != nil {
		return nil, err
	}
	r.calls.Add(1)
	defer r.calls.Add(-1)
	conn := r.connection()
	conn.load.Add(callLoad)
	defer conn.load.Add(-callLoad)
	var before *look
	if looks {
		var err error
		if before, err = r.look(ctx, conn, c, time.Now().Add(-lookAge)); err != nil {
			return nil, err
		}
		if err := before.follows(before, c); err != nil {
			return nil, r.fault(Replaced, c.Model, err)
		}
	}
	response, order, err := r.send(ctx, conn, c, rows)
	if err != nil {
		r.registration.unanswered.Store(time.Now().UnixNano())
		return nil, r.inferFailure(ctx, conn, c, err)
	}
	if looks {
		after, err := r.look(ctx, conn, c, time.Now())
		if err != nil {
			return nil, err
		}
		if err := after.follows(before, c); err != nil {
			return nil, r.fault(Replaced, c.Model, err)
		}
	}
	if fault, err := checkStamps(response, c, len(rows)); err != nil {
		return nil, r.fault(fault, c.Model, err)
	}
	answers, err := logits(response, len(rows), c.LogitsSize())
	if err != nil {
		return nil, r.fault(BadAnswer, c.Model, err)
	}
	if order == nil {
		return answers, nil
	}
	ordered := make([]refersam.Logits, len(rows))
	for k, i := range order {
		ordered[i] = answers[k]
	}
	return ordered, nil
}

// send sends rows over conn, through shared memory if possible, and returns the
// response and its order: the k-th answer belongs to row order[k], or to row k
// if order is nil.
func (r *Replica) send(ctx context.Context, conn *connection, c *Contract, rows []Row) (response *pb.ModelInferResponse, order []int, err error) {
	if g, known := r.shared(ctx); g != nil {
		if place := g.place(rows); place != nil {
			defer place.release()
			response, err = conn.modelInfer(ctx, c, len(rows), sharedRequest(c, rows, place), 0)
			if !r.forgot(g, known, err) {
				return response, place.order, err
			}
		}
	}
	request := &bytesRequest{tokensRequest(c, len(rows), func(k int) *Row { return &rows[k] }), rows}
	response, err = conn.modelInfer(ctx, c, len(rows), request, len(rows)*c.pixels())
	return response, nil, err
}

// modelInfer sends one request of n rows. size is the number of picture bytes
// in the request.
func (c *connection) modelInfer(ctx context.Context, contract *Contract, n int, request any, size int) (*pb.ModelInferResponse, error) {
	c.load.Add(int64(size))
	defer c.load.Add(-int64(size))
	response := new(pb.ModelInferResponse)
	err := c.grpc.Invoke(traced(ctx), pb.GRPCInferenceService_ModelInfer_FullMethodName, request, response, grpc.ForceCodecV2(codec),
		grpc.MaxCallRecvMsgSize(numberBytes*n*contract.LogitsSize()*contract.LogitsSize()+maxResponseOverhead))
	return response, err
}

// Probe does one real inference, on a blank picture. A connection that was lost
// is made anew first, without waiting for gRPC to try again by itself: a server
// that was restarted is back at once. It returns the same errors as Infer.
func (r *Replica) Probe(ctx context.Context, c *Contract) error {
	r.reconnect(ctx)
	_, err := r.Infer(ctx, c, BlankRows(c, 1))
	return err
}

// BlankRows returns n rows for the model of c, with one token each. Their pictures
// are black except for the first pixels: these are random, because a server may
// compute equal pictures once. Equal rows would make a measurement shorter than
// the work for a new picture takes.
func BlankRows(c *Contract, n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		pixels := make([]uint8, c.pixels())
		binary.NativeEndian.PutUint64(pixels, rand.Uint64())
		rows[i] = Row{Pixels: PixelsOf(pixels, nil), IDs: make([]int32, c.MaxTokens), Mask: make([]int32, c.MaxTokens)}
		rows[i].Mask[0] = 1
	}
	return rows
}

// reconnect tries to make every connection that was lost, and waits at most
// reconnectPatience for that.
func (r *Replica) reconnect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reconnectPatience)
	defer cancel()
	var wait sync.WaitGroup
	for _, conn := range r.conns {
		if conn.failing() {
			conn.grpc.ResetConnectBackoff()
			wait.Go(func() { conn.grpc.WaitForStateChange(ctx, connectivity.TransientFailure) })
		}
	}
	wait.Wait()
}
