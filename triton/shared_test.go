package triton_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/refersam/refersam/tests/await"
	"github.com/refersam/refersam/triton"
	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// cpuOf is how much CPU time the processes of a server have taken.
func cpuOf(t testing.TB, s server) time.Duration {
	t.Helper()
	var ticks int
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		command, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
		stat, err := os.ReadFile(filepath.Join(folder, "stat"))
		if err != nil || !strings.Contains(string(command), s.prefix) {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[11:13] { // utime, stime
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100
}

func ownCPU(t testing.TB) time.Duration {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// region returns the name of the only region that a server knows; "" if there
// is none.
func region(t testing.TB, address string) string {
	t.Helper()
	names := registered(t, address)
	if len(names) > 1 {
		t.Fatalf("the server knows %q", names)
	}
	return strings.Join(names, "")
}

// registered lists the regions that a server knows.
func registered(t testing.TB, address string) []string {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := pb.NewGRPCInferenceServiceClient(conn).SystemSharedMemoryStatus(t.Context(), &pb.SystemSharedMemoryStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Collect(maps.Keys(answer.GetRegions()))
}

func exists(name string) bool {
	_, err := os.Stat(filepath.Join("/dev/shm", name))
	return err == nil
}

const pictureBytes = 3 * imageSize * imageSize

// Rows get their own answers, however their pictures lie in the region or
// outside, and many callers at once.
func TestSharedMemory(t *testing.T) {
	local := startMarker(t, imageSize, 0)
	cfg := triton.DefaultConfig()
	cfg.SharedMemoryBytes = 1 << 20 // 341 pictures
	fleet := newFleet(t, cfg)
	if err := fleet.Add(local.Address()); err != nil {
		t.Fatal(err)
	}
	model := contract(t, fleet)
	replica := fleet.Replicas()[0]
	infer := func(rows []triton.Row) {
		t.Helper()
		answers, err := replica.Infer(t.Context(), model, rows)
		if err != nil {
			t.Error(err)
			return
		}
		for i, row := range rows {
			checkMarker(t, row, answers[i])
		}
	}
	var wait sync.WaitGroup
	for caller := range 8 {
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(caller), 1))
			var held []triton.Row
			for range 150 {
				for range rng.IntN(8) {
					held = append(held, markerRow(fleet.NewPixels(pictureBytes), uint8(rng.UintN(256)), rng.Int32N(30000)))
				}
				if len(held) > 60 { // eight times that do not fit: some are on the heap
					rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
					for _, row := range held[40:] {
						row.Pixels.Release()
					}
					held = held[:40]
				}
				if len(held) == 0 {
					continue
				}
				rows := make([]triton.Row, 1+rng.IntN(8))
				for i := range rows {
					rows[i] = held[rng.IntN(len(held))] // a picture may come twice
				}
				if first := rng.IntN(len(held)); rng.IntN(2) == 0 {
					rows = slices.Clone(held[first:min(first+8, len(held))])
				}
				infer(rows)
			}
			for _, row := range held {
				row.Pixels.Release()
			}
		})
	}
	wait.Wait()

	// All of the region is free again, in one piece.
	const most = 1 << 20 / pictureBytes
	for range 2 {
		var held []*triton.Pixels
		for i := range most + 1 {
			p := fleet.NewPixels(pictureBytes)
			if p.Shared() != (i < most) {
				t.Fatalf("picture %d of the %d for which there is room is in shared memory: %v", i+1, most, p.Shared())
			}
			held = append(held, p)
		}
		for _, p := range held {
			p.Release()
		}
	}
	whole := fleet.NewPixels(1 << 20)
	if !whole.Shared() {
		t.Error("the region is in pieces")
	}
	whole.Release()

	name := region(t, local.Address())
	if !exists(name) {
		t.Errorf("the server knows the region %q, which is not there", name)
	}
	info, err := os.Stat(filepath.Join("/dev/shm", name))
	if err != nil {
		t.Fatal(err)
	}
	if stat := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != 0o600 || stat.Blocks*512 < 1<<20 {
		t.Errorf("mode %v and %d bytes taken, want a private file whose memory is there", info.Mode(), stat.Blocks*512)
	}

	// A call that is given up might be read still.
	fleet.SetSettleTime(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := replica.Probe(ctx, model); err == nil {
		t.Error("a cancelled probe succeeds")
	}
	if err := fleet.Close(); err != nil {
		t.Error(err)
	}
	if exists(name) {
		t.Errorf("%s is left behind", name)
	}
	if region(t, local.Address()) != name {
		t.Error("a region was unregistered that the server may be reading")
	}

	// The next one clears that up, and leaves nothing itself.
	fleet = newFleet(t, cfg)
	fleet.SetSettleTime(10 * time.Millisecond)
	if err := fleet.Add(local.Address()); err != nil {
		t.Fatal(err)
	}
	if err := fleet.Probe(t.Context(), model); err != nil {
		t.Fatal(err)
	}
	await.Until(t, 5*time.Second, func() error {
		if all := registered(t, local.Address()); slices.Contains(all, name) {
			return fmt.Errorf("a region that is gone stays registered: %q in %q", name, all)
		}
		return nil
	})
	if own := region(t, local.Address()); !exists(own) {
		t.Errorf("the second region %q is not there", own)
	}
	if err := fleet.Close(); err != nil {
		t.Error(err)
	}
	if left := region(t, local.Address()); left != "" {
		t.Errorf("%s is left registered", left)
	}
}

// The region is registered again with a server that was killed and restarted at
// the same address; no call fails meanwhile.
func TestSharedMemoryAfterRestart(t *testing.T) {
	cfg := localConfig(t)
	cfg.Repository = markerRepository(t, imageSize, 0)
	cfg.SocketDir = filepath.Join(t.TempDir(), "socket")
	first := startLocal(t, cfg)
	fleet := newFleet(t, triton.DefaultConfig())
	if err := fleet.Add(first.Address()); err != nil {
		t.Fatal(err)
	}
	model := contract(t, fleet)
	replica := fleet.Replicas()[0]
	row := markerRow(fleet.NewPixels(pictureBytes), 7, 9)
	if _, err := replica.Infer(t.Context(), model, []triton.Row{row}); err != nil {
		t.Fatal(err)
	}
	name := region(t, first.Address())

	if err := syscall.Kill(serverOf(t, os.Getpid()).pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	startLocal(t, cfg)
	for i := range 3 {
		if i == 0 {
			// The connection is made again, then it is found that the region is unknown.
			await.Until(t, 5*time.Second, func() error { return replica.Probe(t.Context(), model) })
		}
		answers, err := replica.Infer(t.Context(), model, []triton.Row{row})
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		checkMarker(t, row, answers[0])
	}
	if got := region(t, first.Address()); got == "" || got != name {
		t.Errorf("after the restart the server knows %q, before %q", got, name)
	}
}

// The next process removes the region of a killed process, but not the region
// of a live process.
func TestStaleRegions(t *testing.T) {
	local := startMarker(t, imageSize, 0)
	child := func() (*exec.Cmd, string) {
		cmd, line := startChild(t, nil, childFleet+"="+local.Address())
		_, rest, _ := strings.Cut(line, "regions: [")
		regions, _, _ := strings.Cut(rest, "]")
		if !strings.HasPrefix(line, "probed: <nil>") {
			t.Fatal(line)
		}
		for region := range strings.FieldsSeq(regions) { // others on this machine have theirs
			if name := filepath.Base(region); strings.HasPrefix(name, fmt.Sprintf("refersam-pixels-%d-", cmd.Process.Pid)) {
				return cmd, name
			}
		}
		t.Fatal(line)
		return nil, ""
	}
	killed, stale := child()
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait() // it was killed
	if !exists(stale) {
		t.Fatalf("%s has gone by itself", stale)
	}
	_, alive := child()
	if exists(stale) {
		t.Errorf("%s is left behind", stale)
	}
	newFleet(t, triton.DefaultConfig())
	if !exists(alive) || alive == stale {
		t.Errorf("the region %s of a process that lives was removed", alive)
	}
}

// Without room in /dev/shm, and without leave, pictures go as bytes.
func TestSharedMemoryRefused(t *testing.T) {
	t.Run("full", func(t *testing.T) {
		local := startMarker(t, imageSize, 0)
		own := syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			own.Cloneflags |= syscall.CLONE_NEWUSER
			own.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		}
		_, line := startChild(t, &own, childFleet+"="+local.Address(), childSharedMemory+"=300m")
		if !strings.Contains(line, "probed: <nil> regions: []") || strings.Count(line, "/dev/shm has 300 MiB free, want 256 and 128") != 1 {
			t.Error(line)
		}
		// The server does not see that /dev/shm: it cannot open the region.
		_, line = startChild(t, &own, childFleet+"="+local.Address(), childSharedMemory+"=400m")
		if !strings.Contains(line, "probed: <nil> regions: [/dev/shm/") || strings.Count(line, "it does not take shared memory") != 1 {
			t.Error(line)
		}
	})
	for _, code := range []codes.Code{codes.Unimplemented, codes.InvalidArgument, codes.Unavailable} {
		t.Run(code.String(), func(t *testing.T) {
			var asked atomic.Int32
			address := serveFake(t, "127.0.0.1:0", &fakeServer{
				infer: func(_ context.Context, request *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
					if len(request.GetRawInputContents()) != 3 {
						return nil, status.Error(codes.Internal, "no bytes")
					}
					return goodAnswer(1), nil
				},
				register: func() error { asked.Add(1); return status.Error(code, "not here") },
			})
			expectBytes(t, address)
			if n := asked.Load(); n != 1 {
				t.Errorf("the server was asked %d times", n)
			}
		})
	}
	t.Run("never remembered", func(t *testing.T) {
		var asked atomic.Int32
		address := serveFake(t, "127.0.0.1:0", &fakeServer{
			infer: func(_ context.Context, request *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
				if region := request.GetInputs()[0].GetParameters()["shared_memory_region"].GetStringParam(); region != "" {
					return nil, status.Errorf(codes.NotFound, "Unable to find shared memory region: '%s'", region)
				}
				return goodAnswer(1), nil
			},
			register: func() error { asked.Add(1); return nil },
		})
		expectBytes(t, address)
		if n := asked.Load(); n != 3 {
			t.Errorf("the server was asked %d times, want 3", n)
		}
	})
}

// A server that hangs blocks no call beyond the deadline, whether it hangs
// during the registration of the region or during inference. When the server
// goes on, calls succeed again.
func TestServerHangs(t *testing.T) {
	local := startMarker(t, imageSize, 0)
	fleet := newFleet(t, triton.DefaultConfig())
	if err := fleet.Add(local.Address()); err != nil {
		t.Fatal(err)
	}
	model := contract(t, fleet)
	pid := serverOf(t, os.Getpid()).pid
	row := markerRow(fleet.NewPixels(pictureBytes), 1, 1)
	for _, state := range []string{"region unknown", "region known"} {
		stopProcess(t, pid)
		var wait sync.WaitGroup
		for range 4 {
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				began := time.Now()
				_, err := fleet.Replicas()[0].Infer(ctx, model, []triton.Row{row})
				if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
					t.Errorf("%s: %v after %v, deadline 200 ms", state, err, took)
				}
			})
		}
		wait.Wait()
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond) // a replica registers its region again once a second, with a call of inference
		answers, err := fleet.Replicas()[0].Infer(t.Context(), model, []triton.Row{row})
		if err != nil {
			t.Fatal(err)
		}
		checkMarker(t, row, answers[0])
		if region(t, local.Address()) == "" {
			t.Errorf("%s: the server was not told of the region afterwards", state)
		}
	}
}

// expectBytes does ten inferences and expects at most one line about them.
func expectBytes(t *testing.T, address string) {
	t.Helper()
	var log logBuffer
	fleet, err := triton.NewFleet(triton.DefaultConfig(), log.logger())
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	if err := fleet.Add(address); err != nil {
		t.Fatal(err)
	}
	row := markerRow(fleet.NewPixels(pictureBytes), 1, 1)
	for range 10 {
		if _, err := fleet.Replicas()[0].Infer(t.Context(), fakeContract(), []triton.Row{row}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "pictures go to"); n > 1 {
		t.Errorf("%d lines: %s", n, &log)
	}
}

// BenchmarkInfer has pictures of 1024 × 1024 and a model that takes no time, on
// two cores of an EPYC that do all of the work. CPU of the gateway and of the
// server, and p50, a call:
//
//	bytes, 1 row       1.3 ms   2.1 ms    2.9 ms
//	bytes, 8 rows      8.4 ms  15.0 ms   22.4 ms
//	shared, 1 row      0.7 ms   0.7 ms    1.0 ms
//	shared, 8 rows     2.9 ms   3.7 ms    6.6 ms
//
// The server's share has one copy of the pictures in it, to the process of the
// model. The gateway's rest is the logits, 256 KiB a row.
func BenchmarkInfer(b *testing.B) {
	local := startMarker(b, 1024, 0)
	server := serverOf(b, os.Getpid())
	for _, memory := range []string{"off", "auto"} {
		for _, n := range []int{1, 8} {
			b.Run("shared="+memory+"/rows="+strconv.Itoa(n), func(b *testing.B) {
				cfg := triton.DefaultConfig()
				cfg.SharedMemory = memory
				fleet := newFleet(b, cfg)
				if err := fleet.Add(local.Address()); err != nil {
					b.Fatal(err)
				}
				model := contract(b, fleet)
				if err := fleet.Probe(b.Context(), model); err != nil {
					b.Fatal(err)
				}
				replica := fleet.Replicas()[0]
				var times []time.Duration
				gateway, theirs := ownCPU(b), cpuOf(b, server)
				for b.Loop() {
					rows := make([]triton.Row, n)
					for i := range rows {
						rows[i] = markerRow(fleet.NewPixels(3*1024*1024), uint8(i), int32(i))
					}
					began := time.Now()
					answers, err := replica.Infer(b.Context(), model, rows)
					if err != nil {
						b.Fatal(err)
					}
					times = append(times, time.Since(began))
					for i, row := range rows {
						checkMarker(b, row, answers[i])
						row.Pixels.Release()
					}
				}
				calls := float64(len(times))
				b.ReportMetric((ownCPU(b)-gateway).Seconds()*1e3/calls, "gateway-ms/call")
				b.ReportMetric((cpuOf(b, server)-theirs).Seconds()*1e3/calls, "server-ms/call")
				slices.Sort(times)
				b.ReportMetric(times[len(times)/2].Seconds()*1e3, "p50-ms")
			})
		}
	}
}

// stopProcess stops a process and waits until each of its threads has: one that
// runs just then may still answer.
func stopProcess(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await.Until(t, 10*time.Second, func() error {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(stats) == 0 {
			t.Fatalf("process %d has no threads: %v", pid, err)
		}
		for _, name := range stats {
			if stat, err := os.ReadFile(name); err == nil && !bytes.Contains(stat, []byte(") T ")) {
				return fmt.Errorf("process %d does not stop: %s", pid, stat)
			}
		}
		return nil
	})
}
