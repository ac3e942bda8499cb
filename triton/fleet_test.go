package triton_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc/peer"
)

// fakeDNS answers for one host.
type fakeDNS struct {
	mu      sync.Mutex
	ips     []netip.Addr
	err     error
	lookups int
}

func (d *fakeDNS) set(err error, ips ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err, d.ips = err, nil
	for _, ip := range ips {
		d.ips = append(d.ips, netip.MustParseAddr(ip))
	}
}

func (d *fakeDNS) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookups++
	if network != "ip" || host != "triton.test" {
		return nil, &net.DNSError{Err: "no such host", Name: host}
	}
	return d.ips, d.err
}

// awaitLookups waits until the host was looked up twice more, so that what the
// first of them said has had its effect.
func (d *fakeDNS) awaitLookups(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	want := d.lookups + 2
	d.mu.Unlock()
	await.Until(t, 10*time.Second, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.lookups < want {
			return fmt.Errorf("%d lookups, want %d", d.lookups, want)
		}
		return nil
	})
}

// runFleet runs a fleet of host triton.test until the test ends. Each set that
// it reports goes to the channel.
func runFleet(t *testing.T, dns *fakeDNS, addresses ...string) (*triton.Fleet, <-chan []*triton.Replica) {
	t.Helper()
	cfg := triton.DefaultConfig()
	cfg.Addresses = addresses
	cfg.Resolver = dns
	cfg.ResolveInterval = 2 * time.Millisecond
	fleet := newFleet(t, cfg)
	sets := make(chan []*triton.Replica, 100)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- fleet.Run(ctx, func(set []*triton.Replica) { sets <- set }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return fleet, sets
}

func names(replicas []*triton.Replica) []string {
	var list []string
	for _, r := range replicas {
		list = append(list, r.Name())
	}
	return list
}

func expectSet(t *testing.T, sets <-chan []*triton.Replica, want ...string) []*triton.Replica {
	t.Helper()
	select {
	case set := <-sets:
		if diff := cmp.Diff(want, names(set)); diff != "" {
			t.Fatalf("replicas (-want +got):\n%s", diff)
		}
		return set
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing was told, want %v", want)
		return nil
	}
}

func expectSilence(t *testing.T, sets <-chan []*triton.Replica) {
	t.Helper()
	select {
	case set := <-sets:
		t.Fatalf("told of %v", names(set))
	default:
	}
}

func TestFleetFollowsDNS(t *testing.T) {
	var dns fakeDNS
	dns.set(nil, "10.0.0.2", "10.0.0.1")
	fleet, sets := runFleet(t, &dns, "triton.test:8001", "127.0.0.1:9", "[::1]:9")
	first := expectSet(t, sets, "10.0.0.1:8001", "10.0.0.2:8001", "127.0.0.1:9", "[::1]:9")

	dns.set(nil, "10.0.0.1", "10.0.0.2") // another order is no change
	dns.awaitLookups(t)
	expectSilence(t, sets)

	dns.set(nil, "10.0.0.3", "10.0.0.2", "10.0.0.3")
	second := expectSet(t, sets, "10.0.0.2:8001", "10.0.0.3:8001", "127.0.0.1:9", "[::1]:9")
	if first[1] != second[0] || first[2] != second[2] {
		t.Error("a replica that stays was made anew")
	}

	// Neither an outage nor an empty answer empties the fleet.
	dns.set(&net.DNSError{Err: "server misbehaving", IsTemporary: true})
	dns.awaitLookups(t)
	dns.set(nil)
	dns.awaitLookups(t)
	expectSilence(t, sets)
	if got := fleet.Replicas(); !slices.Equal(got, second) {
		t.Errorf("after an outage %v, want %v", names(got), names(second))
	}

	// A server with addresses of both families is one server.
	dns.set(nil, "fd00::4", "::ffff:10.0.0.4")
	expectSet(t, sets, "10.0.0.4:8001", "127.0.0.1:9", "[::1]:9")
	dns.set(nil, "fd00::4")
	expectSet(t, sets, "127.0.0.1:9", "[::1]:9", "[fd00::4]:8001")

	if err := fleet.Add("127.0.0.1:7"); err != nil {
		t.Fatal(err)
	}
	expectSet(t, sets, "127.0.0.1:7", "127.0.0.1:9", "[::1]:9", "[fd00::4]:8001")
}

func TestFleetWithoutReplicas(t *testing.T) {
	fleet := newFleet(t, triton.DefaultConfig())
	if _, err := fleet.Contracts(t.Context()); refersam.ErrorCode(err) != refersam.CodeNotReady {
		t.Errorf("contracts of nobody: %v, want code %s", err, refersam.CodeNotReady)
	}
	if err := fleet.Probe(t.Context(), fakeContract()); refersam.ErrorCode(err) != refersam.CodeNotReady {
		t.Errorf("probe of nobody: %v, want code %s", err, refersam.CodeNotReady)
	}

	var dns fakeDNS
	dns.set(errors.New("no such host"))
	fleet, sets := runFleet(t, &dns, "triton.test:8001")
	expectSet(t, sets)
	if _, err := fleet.Contracts(t.Context()); refersam.ErrorCode(err) != refersam.CodeUnavailable || !strings.Contains(err.Error(), "triton.test") {
		t.Errorf("contracts without DNS: %v, want code %s", err, refersam.CodeUnavailable)
	}
	if err := fleet.Resolve(t.Context()); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("resolve without DNS: %v", err)
	}
	dns.set(nil, "10.0.0.1")
	expectSet(t, sets, "10.0.0.1:8001")
}

// Calls under way to a replica that leaves are answered; then it is closed.
func TestReplicaLeaves(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	address := serveFake(t, "127.0.0.2:0", &fakeServer{
		infer: func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
			close(began)
			<-finish
			return goodAnswer(1), nil
		},
	})
	_, port, _ := net.SplitHostPort(address)
	var dns fakeDNS
	dns.set(nil, "127.0.0.2")
	_, sets := runFleet(t, &dns, "triton.test:"+port)
	replica := expectSet(t, sets, address)[0]
	rows := []triton.Row{randomRow(rand.New(rand.NewPCG(1, 1)))}
	answered := make(chan error)
	go func() {
		_, err := replica.Infer(t.Context(), fakeContract(), rows)
		answered <- err
	}()
	<-began
	dns.set(nil, "127.0.0.3")
	expectSet(t, sets, "127.0.0.3:"+port)
	time.Sleep(100 * time.Millisecond) // time to close a real connection by mistake
	close(finish)
	if err := <-answered; err != nil {
		t.Errorf("call under way: %v", err)
	}
	await.Until(t, 5*time.Second, func() error {
		_, err := replica.Statistics(t.Context(), fakeContract())
		if err == nil || !strings.Contains(err.Error(), "closing") {
			return fmt.Errorf("a replica that left is not closed: %w", err)
		}
		checkFault(t, "call after the end", err, replica, triton.Unreachable, "closing")
		return nil
	})
}

// Calls go to the connection with the least under way.
func TestConnectionsShareLoad(t *testing.T) {
	const calls = 8
	var mu sync.Mutex
	busy := make(map[string]int) // calls by connection
	arrived, finish := make(chan struct{}, calls), make(chan struct{})
	cfg := triton.DefaultConfig()
	cfg.Connections = 4
	fleet := newFleet(t, cfg)
	err := fleet.Add(serveFake(t, "127.0.0.1:0", &fakeServer{
		infer: func(ctx context.Context, _ *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
			from, _ := peer.FromContext(ctx)
			mu.Lock()
			busy[from.Addr.String()]++
			mu.Unlock()
			arrived <- struct{}{}
			<-finish
			return goodAnswer(1), nil
		},
	}))
	if err != nil {
		t.Fatal(err)
	}
	row := randomRow(rand.New(rand.NewPCG(1, 1)))
	var wait sync.WaitGroup
	for range calls {
		wait.Go(func() {
			if _, err := fleet.Replicas()[0].Infer(t.Context(), fakeContract(), []triton.Row{row}); err != nil {
				t.Error(err)
			}
		})
		<-arrived
	}
	close(finish)
	wait.Wait()
	for address, n := range busy {
		if n != calls/4 || len(busy) != 4 {
			t.Errorf("connection %s of %d had %d calls at once, want %d of 4", address, len(busy), n, calls/4)
		}
	}
}

// Servers that fail, and servers with an ensemble that breaks the contract, are
// skipped while another server has the ensemble. Between several contracts most
// servers decide, then the pinned checkpoint.
func TestContractsOfSeveralServers(t *testing.T) {
	failing := serveFake(t, "127.0.0.1:0", &fakeServer{})
	good := serveFake(t, "127.0.0.1:0", &fakeServer{config: ensembleConfig()})
	twin := serveFake(t, "127.0.0.1:0", &fakeServer{config: ensembleConfig()})
	config := ensembleConfig()
	config.Parameters["threshold"].StringValue = "0.4"
	other := serveFake(t, "127.0.0.1:0", &fakeServer{config: config})
	config = ensembleConfig()
	config.Parameters["threshold"].StringValue = "2"
	broken := serveFake(t, "127.0.0.1:0", &fakeServer{config: config})
	for _, test := range []struct {
		name    string
		servers []string
		want    string // of the error
	}{
		{"alike", []string{good, twin, failing, "127.0.0.1:1"}, ""},
		{"all fail", []string{failing}, "listing models"},
		{"most agree", []string{good, other, twin}, ""},
		{"one breaks the contract", []string{good, broken}, ""},
		{"all break the contract", []string{broken}, `parameter "threshold" is "2", allowed: a number`},
	} {
		contracts, err := fleetOf(t, test.servers...).Contracts(t.Context())
		switch {
		case test.want == "" && (err != nil || len(contracts) != 1 || contracts[0].Threshold != 0.35):
			t.Errorf("%s: %v, error %v", test.name, contracts, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error %v, want one that says %q", test.name, err, test.want)
		}
	}
}

// Pixels are let go once, whatever becomes of their call, and not before gRPC
// has stopped to read them: the race detector sees to that.
func TestPixelsAreLetGo(t *testing.T) {
	answer := &fakeServer{infer: func(_ context.Context, r *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
		if len(r.GetRawInputContents()[0])%2 != 0 || len(r.GetRawInputContents()[0]) == 0 {
			return nil, errors.New("no picture")
		}
		time.Sleep(time.Millisecond) // some calls end before their answer, some after it
		return nil, errors.New("no answer either")
	}}
	cfg := triton.DefaultConfig()
	cfg.SharedMemory = "off"
	fleet := newFleet(t, cfg)
	for range 2 {
		if err := fleet.Add(serveFake(t, "127.0.0.1:0", answer)); err != nil {
			t.Fatal(err)
		}
	}
	answer.config = fakeConfig(1024)
	large := contractOf(answer.config)
	var wait sync.WaitGroup
	for caller := range 4 {
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(caller), 1))
			for range 100 {
				rows := make([]triton.Row, 1+rng.IntN(3))
				for i := range rows {
					rows[i] = markerRow(fleet.NewPixels(3*1024*1024), 1, 1)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(8000))*time.Microsecond)
				_, err := fleet.Replicas()[rng.IntN(2)].Infer(ctx, large, rows)
				cancel()
				if err == nil {
					t.Error("an answer that nobody gave")
				}
				for _, row := range rows {
					released := func() error {
						if n := row.Pixels.Held(); n > 1 {
							return fmt.Errorf("a picture is held %d times after its call", n)
						}
						return nil
					}
					if late := await.Within(5*time.Second, released); late != nil {
						t.Errorf("%v: %v", late, err)
						return
					}
					clear(row.Pixels.Bytes())
					row.Pixels.Release()
				}
			}
		})
	}
	wait.Wait()
}

// A server that is restarted is back with the first probe, although gRPC would
// wait before it connects again.
func TestProbeReconnects(t *testing.T) {
	answer := func(context.Context, *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
		return goodAnswer(1), nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	replica := replicaAt(t, address)
	// After 1.5 s of failed calls gRPC waits a second and more before it connects
	// again. Its clock cannot be set.
	for deadline := time.Now().Add(1500 * time.Millisecond); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := replica.Infer(ctx, fakeContract(), []triton.Row{randomRow(rand.New(rand.NewPCG(1, 1)))})
		cancel()
		if err == nil {
			t.Fatal("nobody has answered")
		}
	}
	serveFake(t, address, &fakeServer{infer: answer})
	began := time.Now()
	if err := replica.Probe(t.Context(), fakeContract()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 300*time.Millisecond {
		t.Errorf("the first probe took %v", took)
	}
}

// settled returns the statistics of a server once they stay the same: it counts
// a moment after it has answered.
func settled(t *testing.T, replica *triton.Replica, model *triton.Contract) triton.Statistics {
	t.Helper()
	var last triton.Statistics
	for range 100 {
		now, err := replica.Statistics(t.Context(), model)
		if err != nil {
			t.Fatal(err)
		}
		if cmp.Equal(now, last) {
			return now
		}
		last = now
		time.Sleep(50 * time.Millisecond) // the server's moment
	}
	t.Fatal("the statistics do not settle")
	return last
}

func TestStatistics(t *testing.T) {
	local := startLocal(t, localConfig(t))
	fleet := fleetOf(t, local.Address())
	model := contract(t, fleet)
	replica := fleet.Replicas()[0]
	before := settled(t, replica, model)
	rng := rand.New(rand.NewPCG(1, 1))
	const calls, n = 5, 3
	for range calls {
		if _, err := replica.Infer(t.Context(), model, []triton.Row{randomRow(rng), randomRow(rng), randomRow(rng)}); err != nil {
			t.Fatal(err)
		}
	}
	now := settled(t, replica, model)
	done := now.Since(before)
	if len(done.Steps) != 2 || done.Steps[0].Model != "refersam_tiny_image" || done.Steps[1].Model != "refersam_tiny_decoder" {
		t.Fatalf("steps %+v", done.Steps)
	}
	for _, m := range append(done.Steps, done.Ensemble) {
		if m.Rows != calls*n || m.Succeeded.Count != calls || m.Failed.Count != 0 || m.Succeeded.Mean() <= 0 {
			t.Errorf("%s: %+v, want %d rows in %d requests", m.Model, m, calls*n, calls)
		}
	}
	for _, m := range done.Steps {
		// The batcher waits 5 ms for more.
		if m.Executions != calls || m.Queue.Count != calls || m.Queue.Mean() < time.Millisecond || m.Compute.Total <= 0 {
			t.Errorf("%s: %+v", m.Model, m)
		}
	}
	if again := before.Since(now); again.Steps[0] != before.Steps[0] || again.Ensemble != before.Ensemble {
		t.Errorf("a server that was restarted: %+v, want what it has done since, %+v", again, before)
	}
	other := *model
	other.Steps = "refersam_absent"
	if _, err := replica.Statistics(t.Context(), &other); refersam.ErrorCode(err) != refersam.CodeNotReady {
		t.Errorf("statistics of an unknown step: %v", err)
	}
}

// A cancelled call ends at once. Triton receives the cancellation and begins no
// further step for the call. Tritonserver 24.10 does not take the call out of
// the queue of a step, where it waits here.
func TestCancellationReachesTriton(t *testing.T) {
	const delay = 400 * time.Millisecond
	fleet := newFleet(t, triton.DefaultConfig())
	if err := fleet.Add(startMarker(t, imageSize, delay).Address()); err != nil {
		t.Fatal(err)
	}
	model := contract(t, fleet)
	replica := fleet.Replicas()[0]
	before := settled(t, replica, model)
	row := markerRow(fleet.NewPixels(3*imageSize*imageSize), 3, 5)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { // keeps the only instance busy
		if _, err := replica.Infer(t.Context(), model, []triton.Row{row}); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(50 * time.Millisecond) // the server works on the first call by now
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	_, err := replica.Infer(ctx, model, []triton.Row{row})
	if took := time.Since(began); !errors.Is(err, context.Canceled) || took > delay/2 {
		t.Errorf("cancelled after 50 ms: %v after %v", err, took)
	}
	wait.Wait()
	answers, err := replica.Infer(t.Context(), model, []triton.Row{row})
	if err != nil {
		t.Fatal(err)
	}
	checkMarker(t, row, answers[0])
	// 24.10 counts a failure of an ensemble twice.
	done := settled(t, replica, model).Since(before)
	if done.Ensemble.Succeeded.Count != 2 || done.Ensemble.Failed.Count < 1 {
		t.Errorf("%d calls have succeeded and %d failed, want 2 and the one that was cancelled",
			done.Ensemble.Succeeded.Count, done.Ensemble.Failed.Count)
	}
	if done.Steps[0].Rows != 3 || done.Steps[1].Rows != 2 {
		t.Errorf("%d and %d rows in the steps, want 3 and, without the cancelled one, 2", done.Steps[0].Rows, done.Steps[1].Rows)
	}
}

// Priorities, timeouts and bounds of queues are the gateway's: an ensemble
// starts the timeout anew in every step, and tritonserver 24.10 never answers
// when a step's queue is full. And a response cache would keep answers to
// pictures that have been written over in shared memory.
func TestRepositoryLeavesQueuesAlone(t *testing.T) {
	var paths []string
	for _, pattern := range []string{"*/config.pbtxt", "*/configs/*.pbtxt"} {
		found, err := filepath.Glob(filepath.Join("..", "tests", "models", filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	if len(paths) < 30 {
		t.Fatalf("%d configurations, want three of each of ten stages: %v", len(paths), paths)
	}
	for _, path := range paths {
		checkQueues(t, path)
	}
}

func checkQueues(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"priority", "queue_policy", "timeout", "max_queue_size", "rate_limiter", "response_cache", "preserve_ordering"} {
		if strings.Contains(string(text), word) {
			t.Errorf("%s has %s", path, word)
		}
	}
	if !strings.Contains(string(text), "ensemble_scheduling") && !strings.Contains(string(text), "dynamic_batching") {
		t.Errorf("%s: no batches of several gateways' requests without dynamic_batching", path)
	}
}
