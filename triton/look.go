package triton

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	pb "github.com/refersam/refersam/triton/inferencepb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Triton's answer does not say which weights made it: its model_version is the
// number that was asked for, its parameters are empty, and a server may load other
// weights under the same name and number at any moment. The ensembles of our export
// have stamps, which travel with the answer. For an ensemble without stamps, Infer
// looks at the ensemble and its stages before it sends rows and again after the
// answer has come, over the same TCP connection. Triton swaps a model in one step,
// and an ensemble takes hold of all its stages when a request begins. If both looks
// show the same contract and nothing of the stages has changed, then this contract
// made the answer. Otherwise the answer is thrown away. A look costs a batch 0.45 ms
// of CPU time in this process and 4 ms of waiting.
//
// This holds if
//   - weights are never loaded, replaced and loaded again between two looks,
//     which are the duration of a batch and at most lookAge apart;
//   - a TCP connection leads to one server process, so to Triton itself or to a
//     balancer of connections, not of requests;
//   - a model with other weights has another configuration too: another
//     parameter checkpoint in the ensemble, and in a stage if the stage has one.

// lookAge is how old the look before a batch may be. A server that loads other
// weights and the first ones again takes longer than that.
const lookAge = 100 * time.Millisecond

// look is what a server said of an ensemble over one connection at one moment.
type look struct {
	begun    time.Time
	dials    int64    // which TCP connection it was, see connection.dials
	contract Contract // of the ensemble
	stages   [sha256.Size]byte
	err      error
}

// follows returns nil if l shows the contract want and nothing has changed since
// the look before.
func (l *look) follows(before *look, want *Contract) error {
	switch {
	case l.contract != *want:
		return differs(want, &l.contract)
	case l.dials != before.dials:
		return fmt.Errorf("the connection was lost and made anew while %s ran", want.Model)
	case l.stages != before.stages:
		return fmt.Errorf("a stage of %s was loaded anew while it ran", want.Model)
	}
	return nil
}

// differs says how a contract differs from the wanted one.
func differs(want, got *Contract) error {
	if want.Checkpoint != got.Checkpoint {
		return fmt.Errorf("it has the checkpoint %s of %s, not %s", short(got.Checkpoint), got.Model, short(want.Checkpoint))
	}
	return fmt.Errorf("its contract of %s is %+v, not %+v", got.Model, *got, *want)
}

// short is the beginning of a checkpoint, as it stands in logs.
func short(checkpoint string) string { return fmt.Sprintf("%.8s", checkpoint) }

// looker makes the looks at one ensemble over one connection. Calls that need
// one at the same time share it.
type looker struct {
	replica *Replica
	conn    *connection
	want    *Contract

	mu      sync.Mutex
	last    *look
	running chan struct{} // closed when the look that is under way has ended; nil if none is
}

// maxLookers bounds for how many contracts a connection keeps a looker. A fleet
// serves a few at a time.
const maxLookers = 64

func (c *connection) looker(r *Replica, want *Contract) *looker {
	c.lookersMu.Lock()
	defer c.lookersMu.Unlock()
	l := c.lookers[*want]
	if l == nil {
		if c.lookers == nil || len(c.lookers) >= maxLookers {
			c.lookers = make(map[Contract]*looker)
		}
		contract := *want
		l = &looker{replica: r, conn: c, want: &contract}
		c.lookers[*want] = l
	}
	return l
}

// look returns a look at want's ensemble that began at since or later. It is an
// error, of the kinds that Infer documents, when the server cannot be asked;
// that it has another contract is not.
func (r *Replica) look(ctx context.Context, conn *connection, want *Contract, since time.Time) (*look, error) {
	l := conn.looker(r, want)
	called := time.Now()
	for {
		l.mu.Lock()
		// A server may be well again since an earlier look failed.
		if l.last != nil && !l.last.begun.Before(since) && (l.last.err == nil || !l.last.begun.Before(called)) {
			last := l.last
			l.mu.Unlock()
			return last, last.err
		}
		running := l.running
		if running == nil {
			running = make(chan struct{})
			l.running = running
			r.looks.Go(func() {
				next := l.see(context.WithoutCancel(ctx))
				l.mu.Lock()
				l.last, l.running = next, nil
				l.mu.Unlock()
				close(running)
			})
		}
		l.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return nil, r.failure(ctx, want.Model, "looking at the model", ctx.Err())
		}
	}
}

// see looks at the ensemble. Several calls wait for it, so ctx must not end with
// one of them.
func (l *looker) see(ctx context.Context) *look {
	r, conn := l.replica, l.conn
	ctx, cancel := context.WithTimeout(ctx, r.lookTimeout)
	defer cancel()
	for {
		next := &look{begun: time.Now(), dials: conn.dials.Load()}
		next.err = l.describe(ctx, next)
		switch {
		case ctx.Err() != nil: // it is no caller's context
			next.err = r.fault(Unreachable, l.want.Model, fmt.Errorf("looking at the model: no answer in %v", r.lookTimeout))
			return next
		case next.err != nil || next.dials == conn.dials.Load():
			return next
		}
		// The first call makes the connection: what was seen may be of two.
	}
}

// describe fills in what the server says of the ensemble and its stages.
func (l *looker) describe(ctx context.Context, next *look) error {
	r, want := l.replica, l.want
	stub := pb.NewGRPCInferenceServiceClient(l.conn.grpc)
	steps := want.StepNames()
	configs := make([]*pb.ModelConfig, len(steps))
	var ensemble *pb.ModelConfig
	var versions map[string][]string
	g, ctx := errgroup.WithContext(ctx)
	read := func(into **pb.ModelConfig, name, version string) {
		g.Go(func() error {
			response, err := stub.ModelConfig(ctx, &pb.ModelConfigRequest{Name: name, Version: version})
			*into = response.GetConfig()
			return err
		})
	}
	read(&ensemble, want.Model, want.Version)
	for i, step := range steps {
		read(&configs[i], step, "")
	}
	g.Go(func() error {
		response, err := stub.ModelStatistics(ctx, &pb.ModelStatisticsRequest{})
		versions = make(map[string][]string)
		for _, m := range response.GetModelStats() {
			versions[m.GetName()] = append(versions[m.GetName()], m.GetVersion())
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return l.failure(ctx, stub, err)
	}
	contract, err := ParseContract(ensemble)
	if err != nil {
		return r.fault(Replaced, want.Model, err)
	}
	contract.Version = want.Version
	next.contract = contract
	digest := sha256.New()
	for i, step := range steps {
		if err := checkStage(&contract, step, configs[i]); err != nil {
			return r.fault(Replaced, want.Model, err)
		}
		// How many instances a stage has makes no difference to its answers.
		configs[i].InstanceGroup = nil
		config, err := proto.MarshalOptions{Deterministic: true}.Marshal(configs[i])
		if err != nil {
			return err
		}
		fmt.Fprintf(digest, "%q %q %d\n", step, newest(versions[step]), len(config))
		digest.Write(config)
	}
	digest.Sum(next.stages[:0])
	return nil
}

// checkStage reports a stage that names another checkpoint than its ensemble.
// While a server loads another checkpoint model by model, its stages differ.
func checkStage(c *Contract, step string, config *pb.ModelConfig) error {
	checkpoint, ok := config.GetParameters()["checkpoint"]
	if ok && checkpoint.GetStringValue() != c.Checkpoint {
		return fmt.Errorf("its stage %s has the checkpoint %s, and the ensemble has %s",
			step, short(checkpoint.GetStringValue()), short(c.Checkpoint))
	}
	return nil
}

// newest returns the highest version, the one that an ensemble runs.
func newest(versions []string) string {
	if len(versions) == 0 {
		return ""
	}
	return slices.MaxFunc(versions, func(a, b string) int {
		i, _ := strconv.Atoi(a)
		j, _ := strconv.Atoi(b)
		return cmp.Compare(i, j)
	})
}

// failure is Replica.failure for a look. Triton says Unavailable of a model that is
// not loaded and of itself when it stops, so it is asked which.
func (l *looker) failure(ctx context.Context, stub pb.GRPCInferenceServiceClient, err error) error {
	r, want := l.replica, l.want
	failure := r.failure(context.WithoutCancel(ctx), want.Model, "looking at the model", err)
	if status.Code(err) != codes.Unavailable {
		return failure
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, stopping := stub.ModelReady(ctx, &pb.ModelReadyRequest{Name: want.Model, Version: want.Version}); stopping == nil {
		return r.fault(NotReady, want.Model, err)
	}
	return failure
}
