package tests_test

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
	"github.com/refersam/refersam/tests/ensembles"
)

// quick is a model that two replicas run three times as fast as the tests need.
var quick = ensembles.Cost{Fixed: 5 * time.Millisecond, Row: 5 * time.Millisecond}

// faultDeadline is the deadline of the tests' requests. faultGrace is how much
// later their answers may be read on busy cores.
const (
	faultDeadline = time.Second
	faultGrace    = 300 * time.Millisecond
	faultRate     = 60 // requests per second
)

// underLoad runs events while requests arrive, and returns the outcomes of the
// requests. Before that, it lets the gateway measure its replicas, and measures how
// busy the cores are: slack is five times what the slowest request took beyond
// 100 ms, and is added to the requests' deadline. On idle cores it is 0.
func underLoad(t *testing.T, s *service, duration time.Duration, events func(slack time.Duration)) (outcomes []load.Outcome, slack time.Duration) {
	t.Helper()
	target := load.NewTarget(s.url)
	defer target.Close()
	random := rand.New(rand.NewPCG(1, 1))
	source := load.NewSource(random, 8, 320, 240, 1)
	calm := source.With(load.Request{Deadline: 10 * time.Second})
	for _, o := range target.Open(t.Context(), random, load.Steady(faultRate/2), 2*time.Second, calm.Next) {
		slack = max(slack, 5*(o.Latency-100*time.Millisecond))
	}
	if slack > 0 {
		t.Logf("the cores are busy: deadlines and bounds are %v longer", slack)
	}
	faulty := calm.With(load.Request{Deadline: faultDeadline + slack})
	happened := make(chan struct{})
	go func() {
		defer close(happened)
		events(slack)
	}()
	outcomes = target.Open(t.Context(), random, load.Steady(faultRate), duration, faulty.Next)
	<-happened
	return outcomes, slack
}

// If a replica dies under load, no request fails. The replica is left out within a
// second, and used again within five seconds of its return.
func TestReplicaKilled(t *testing.T) {
	one, other := startCalibrated(t, quick), startCalibrated(t, quick)
	g := serveBefore(t, nil, one.address, other.address)
	const duration = 12 * time.Second
	outcomes, _ := underLoad(t, g.service, duration, func(slack time.Duration) {
		time.Sleep(2 * time.Second) // load with both replicas
		other.signal(t, syscall.SIGKILL)
		t.Logf("left out after %v", g.waitUsable(t, other.address, false, time.Second+slack))
		other.kill(t) // until no process is left
		other.start(t)
		t.Logf("back after %v", g.waitUsable(t, other.address, true, 5*time.Second+slack))
	})
	if s := load.Summarize(outcomes, 0, duration); s.OK != s.Requests {
		t.Errorf("want all answered: %v", s)
	}
}

// A replica that hangs, its connections open, holds no request beyond its deadline.
func TestReplicaHangs(t *testing.T) {
	one, other := startCalibrated(t, quick), startCalibrated(t, quick)
	g := serveBefore(t, nil, one.address, other.address)
	const duration = 10 * time.Second
	outcomes, slack := underLoad(t, g.service, duration, func(slack time.Duration) {
		time.Sleep(2 * time.Second) // load with both replicas
		other.signal(t, syscall.SIGSTOP)
		t.Logf("left out after %v", g.waitUsable(t, other.address, false, 3*time.Second+slack))
		time.Sleep(3 * time.Second) // load with one replica
		other.signal(t, syscall.SIGCONT)
	})
	g.waitUsable(t, other.address, true, 10*time.Second)
	s := load.Summarize(outcomes, 0, duration)
	for _, o := range outcomes {
		if o.Err != nil || o.Latency > faultDeadline+slack+faultGrace {
			t.Errorf("a request took %v, with a deadline of %v: status %d, %v", o.Latency, faultDeadline+slack, o.Status, o.Err)
		}
	}
	// Requests that were sent to it before the gateway could notice may fail, but
	// no others.
	if failed := s.Requests - s.OK; failed > faultRate/2 {
		t.Errorf("%d of %d requests were not answered", failed, s.Requests)
	}
}

// Without any replica requests are refused at once. When one is back, the same
// gateway answers again.
func TestAllReplicasDown(t *testing.T) {
	one, other := startNull(t), startNull(t)
	g := serveBefore(t, nil, one.address, other.address)
	one.kill(t)
	other.kill(t)
	contentType, body := form(t, part{"image", string(load.Picture(rand.New(rand.NewPCG(1, 1)), 64, 64))}, part{"phrase", "a dog"})
	g.post(t, contentType, body) // it fails, and the failure reports the loss
	g.waitUsable(t, one.address, false, 2*time.Second)
	g.waitUsable(t, other.address, false, 2*time.Second)
	for range 20 {
		begin := time.Now()
		reply := g.post(t, contentType, body)
		took := time.Since(begin)
		if reply.status != http.StatusServiceUnavailable || reply.header.Get("Retry-After") == "" {
			t.Errorf("status %d, Retry-After %q, want 503 and when to retry", reply.status, reply.header.Get("Retry-After"))
		}
		if took > 50*time.Millisecond {
			t.Errorf("refused after %v, want at most 50ms", took)
		}
	}
	one.start(t)
	g.waitUsable(t, one.address, true, 10*time.Second)
	if err := g.waitReady(); err != nil {
		t.Fatal(err)
	}
	g.post(t, contentType, body).answer(t)
}

// badAnswers are the answers of a broken replica to an inference.
var badAnswers = map[string]behaviour{
	"slow":    slow,
	"shapes":  wrongShape,
	"NaNs":    notNumbers,
	"garbage": garbage,
	"huge":    huge,
	"fails":   failure,
}

// If a replica answers nonsense, clients get a clear error in time, and masks again
// as soon as the replica works. Meanwhile the gateway sends it no requests. A
// replica that is only slow stays in use: a slow replica is better than none.
func TestReplicaTalksNonsense(t *testing.T) {
	for name, bad := range badAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := startFake(t)
			g := serveBefore(t, nil, fake.address)
			target := load.NewTarget(g.url)
			defer target.Close()
			source := load.NewSource(rand.New(rand.NewPCG(1, 1)), 1, 64, 48, 1).With(load.Request{Deadline: faultDeadline})
			ask := func() load.Outcome {
				now := time.Now()
				return target.Do(t.Context(), source.Next(), now, now)
			}
			if o := ask(); !o.OK() {
				t.Fatalf("before: status %d, %v", o.Status, o.Err)
			}
			fake.behave(bad)
			for range 5 {
				if o := ask(); o.Status < http.StatusBadGateway || o.Err != nil || o.Latency > faultDeadline+faultGrace {
					t.Fatalf("status %d after %v, %v", o.Status, o.Latency, o.Err)
				}
			}
			if name != "slow" {
				g.waitUsable(t, fake.address, false, time.Second)
			}
			fake.behave(well)
			g.waitUsable(t, fake.address, true, 10*time.Second)
			if o := ask(); !o.OK() {
				t.Errorf("afterwards: status %d, %v", o.Status, o.Err)
			}
		})
	}
}

// If another replica works, a replica that answers nonsense or does not answer
// makes no request fail.
func TestNonsenseIsAskedElsewhere(t *testing.T) {
	healthy := startNull(t)
	for _, name := range []string{"slow", "NaNs"} {
		t.Run(name, func(t *testing.T) {
			fake := startFake(t)
			g := serveBefore(t, nil, fake.address, healthy.address)
			const duration = 6 * time.Second
			outcomes, _ := underLoad(t, g.service, duration, func(slack time.Duration) {
				time.Sleep(time.Second) // load with both replicas
				fake.behave(badAnswers[name])
				g.waitUsable(t, fake.address, false, 3*time.Second+slack)
			})
			if s := load.Summarize(outcomes, 0, duration); s.OK != s.Requests {
				t.Errorf("want all answered: %v", s)
			}
		})
	}
}

// With a full /dev/shm pictures are sent as bytes.
func TestSharedMemoryIsFull(t *testing.T) {
	server := startNull(t)
	by := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		by = append(by, "--map-root-user")
	}
	by = append(by, "sh", "-c", `mount -t tmpfs -o size=64k tmpfs /dev/shm && head -c 60000 /dev/zero > /dev/shm/full && exec "$0" "$@"`)
	g := serveBy(t, by, nil, server.address)
	const duration = 3 * time.Second
	outcomes, _ := underLoad(t, g.service, duration, func(time.Duration) {})
	if s := load.Summarize(outcomes, 0, duration); s.OK != s.Requests {
		t.Errorf("want all answered: %v", s)
	}
	if !strings.Contains(g.logs.String(), "as bytes") {
		t.Error("the log does not say that pictures go as bytes")
	}
}

// soakRequests is how many requests TestSoak makes; make soak sets more.
const soakRequests = "SOAK_REQUESTS"

// Many requests leak neither memory nor goroutines.
func TestSoak(t *testing.T) {
	total := 4000
	if text := os.Getenv(soakRequests); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	g := serveBefore(t, []string{"REFERSAM_CACHE_BYTES=0"}, startNull(t).address)
	target := load.NewTarget(g.url)
	source := load.NewSource(rand.New(rand.NewPCG(1, 1)), 16, 64, 48, 1)
	ask := func(n int) {
		outcomes := askTimes(t.Context(), target, source, n)
		if s := load.Summarize(outcomes, 0, time.Hour); s.OK != n {
			t.Fatalf("want all answered: %v", s)
		}
	}
	ask(total / 4) // until caches and pools have their size
	memory, goroutines := g.settled(t, target)
	ask(total)
	memoryAfter, goroutinesAfter := g.settled(t, target)
	t.Logf("%d requests: heap %.1f MB, then %.1f MB; goroutines %.0f, then %.0f", total, memory/1e6, memoryAfter/1e6, goroutines, goroutinesAfter)
	if memoryAfter > memory+4e6 {
		t.Errorf("the heap grew from %.1f to %.1f MB", memory/1e6, memoryAfter/1e6)
	}
	if goroutinesAfter > goroutines+10 {
		t.Errorf("%.0f goroutines became %.0f", goroutines, goroutinesAfter)
	}
}

// settled returns the heap after the last collection, and the smallest number of
// goroutines of an idle gateway, once the number has stopped growing: the
// goroutines that maintain the queue of jobs start one after the other, up to a
// second apart.
func (g *guarded) settled(t *testing.T, target *load.Target) (memory, goroutines float64) {
	t.Helper()
	target.Close()
	goroutines = g.leastGoroutines(t)
	for range 10 {
		before := goroutines
		if goroutines = g.leastGoroutines(t); goroutines <= before {
			break
		}
	}
	// The next collection runs when the heap has doubled.
	return g.metric(t, "go_memstats_next_gc_bytes", "") / 2, goroutines
}

func (g *guarded) leastGoroutines(t *testing.T) float64 {
	t.Helper()
	least := math.Inf(1)
	for range 20 {
		time.Sleep(100 * time.Millisecond) // samples over a while: goroutines come and go
		least = min(least, g.metric(t, "go_goroutines", ""))
	}
	return least
}

// askTimes makes n requests, a few at a time.
func askTimes(ctx context.Context, target *load.Target, source *load.Source, n int) []load.Outcome {
	const clients = 8
	left := n
	return target.ClosedWhile(ctx, clients, func() bool { left--; return left >= 0 }, source.Next)
}

// fill writes a float32 as often as it fits.
func fill(n int, bits uint32) []byte {
	raw := make([]byte, 0, 4*n)
	for range n {
		raw = binary.LittleEndian.AppendUint32(raw, bits)
	}
	return raw
}
