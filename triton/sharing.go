package triton

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/refersam/refersam/triton/inferencepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Pictures go to servers on this machine through shared memory: one region of
// this process, because the replica is not known when a picture is written.
//
// Servers only read it, and that decides when a place may be used again: as
// soon as our call has returned. A call that was cancelled or timed out may
// still be read by its server, which then sees another picture; but what it
// makes of it is the answer of a call that nobody waits for, and rows of a
// batch do not touch one another. So no place needs to rest. Two things would
// break this. Answers in shared memory: a late one would be written over
// somebody's picture; they come as bytes, 256 KiB for a picture of 3 MiB. And
// Triton's response cache, which would keep the late answer as that of the
// first picture: models with response_cache want REFERSAM_SHARED_MEMORY=off.
//
// Unmapping is another matter. Tritonserver 24.10 unmaps a region at once when
// it is unregistered, under the hands of a model that reads it, and dies. So a
// region is unregistered only when every call has been answered, or settleTime
// after the last that was not.

// settleTime is how long a server may go on with a call that we have given up:
// the execution under way, since Triton drops cancelled calls from its queues.
const settleTime = 10 * time.Second

// registerTimeout bounds a call about a region, which takes a server less than
// a millisecond.
const registerTimeout = time.Second

// maxForgotten is how often in a row a server may not know a region that it
// has just registered.
const maxForgotten = 3

// sharing is the region of a fleet, once there is one.
type sharing struct {
	size   int
	settle time.Duration // settleTime
	log    *slog.Logger
	start  sync.Once
	region atomic.Pointer[region]
}

// newSharing clears up after processes that have died.
func newSharing(cfg *Config, log *slog.Logger) *sharing {
	removed, err := removeStaleRegions()
	if len(removed) > 0 || err != nil {
		log.Info("removed shared memory of processes that have died", "regions", removed, "error", err)
	}
	return &sharing{size: cfg.SharedMemoryBytes, settle: settleTime, log: log}
}

// begin makes the region, when the first server on this machine is known.
func (s *sharing) begin() {
	s.start.Do(func() {
		g, err := newRegion(s.size)
		if err != nil {
			s.log.Warn("pictures go to Triton as bytes: no shared memory", "cause", err)
			return
		}
		s.region.Store(g)
	})
}

func (s *sharing) close() error {
	s.start.Do(func() {})
	if g := s.region.Swap(nil); g != nil {
		return g.close()
	}
	return nil
}

// registration is what a server on this machine knows of the region.
type registration struct {
	sharing *sharing // nil: the server is elsewhere, or memory is not shared

	// known is how often the region was registered, or 0 when the server does
	// not know it.
	known      atomic.Int64
	unanswered atomic.Int64 // when a call last ended without an answer, in ns

	forgotten atomic.Int32 // in a row

	mu      sync.Mutex // held while the server is asked
	count   int64
	refused bool
	retry   time.Time // not before
	cleanup *time.Timer
}

// shared returns the region if the server knows it or can be told of it, and
// how often it was told. While it is being told it is nil.
func (r *Replica) shared(ctx context.Context) (*region, int64) {
	reg := &r.registration
	if reg.sharing == nil {
		return nil, 0
	}
	g := reg.sharing.region.Load()
	if g == nil {
		return nil, 0
	}
	if known := reg.known.Load(); known > 0 {
		return g, known
	}
	if !reg.mu.TryLock() {
		return nil, 0
	}
	defer reg.mu.Unlock()
	if known := reg.known.Load(); known > 0 {
		return g, known
	}
	if reg.refused || time.Now().Before(reg.retry) || !r.register(ctx, g) {
		return nil, 0
	}
	reg.count++
	reg.known.Store(reg.count)
	return g, reg.count
}

// register tells the server of the region.
func (r *Replica) register(ctx context.Context, g *region) bool {
	reg := &r.registration
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	_, err := r.stub().SystemSharedMemoryRegister(ctx, &pb.SystemSharedMemoryRegisterRequest{
		Name: g.name, Key: "/" + g.name, ByteSize: uint64(len(g.memory)),
	})
	switch code := status.Code(err); {
	case err == nil, code == codes.AlreadyExists:
		r.unregisterStale(ctx)
		return true
	case ctx.Err() != nil, code == codes.Unavailable, code == codes.DeadlineExceeded, code == codes.Canceled:
		// The server is away; or a later one says by this that it does not
		// want to, then it is not asked at every call.
		reg.retry = time.Now().Add(registerTimeout)
	default:
		r.refuse(err)
	}
	return false
}

// refuse gives shared memory up for this server.
func (r *Replica) refuse(cause error) {
	r.registration.refused = true
	r.registration.known.Store(0)
	r.registration.sharing.log.Info("pictures go to this triton server as bytes: it does not take shared memory"+
		" (it must see the same /dev/shm and, since 26.05, be started with --allow-client-shm=true)", "address", r.name, "cause", cause)
}

// forgot reports whether a call that was told where pictures lie failed because
// the server does not know the region, as one that was restarted does not: its
// error then names it. The next call registers it anew.
func (r *Replica) forgot(g *region, known int64, failure error) bool {
	reg := &r.registration
	if failure == nil {
		if reg.forgotten.Load() != 0 {
			reg.forgotten.Store(0)
		}
		return false
	}
	if !strings.Contains(status.Convert(failure).Message(), g.name) {
		return false
	}
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if reg.known.CompareAndSwap(known, 0) && reg.forgotten.Add(1) >= maxForgotten { // else another call has noticed before
		r.refuse(failure)
	}
	return true
}

// unregisterStale frees what the server still maps for processes that have
// died, once their last calls have ended.
func (r *Replica) unregisterStale(ctx context.Context) {
	answer, err := r.stub().SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{})
	if err != nil {
		return // it costs memory only, and the next process tries again
	}
	var stale []string
	for name := range answer.GetRegions() {
		if staleRegion(name) {
			stale = append(stale, name)
		}
	}
	if len(stale) == 0 {
		return
	}
	r.registration.cleanup = time.AfterFunc(r.registration.sharing.settle, func() {
		for _, name := range stale {
			r.unregister(name)
		}
	})
}

func (r *Replica) unregister(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), registerTimeout)
	defer cancel()
	_, err := r.stub().SystemSharedMemoryUnregister(ctx, &pb.SystemSharedMemoryUnregisterRequest{Name: name})
	if err != nil {
		r.registration.sharing.log.Debug("unregistering shared memory", "address", r.name, "region", name, "cause", err)
	}
}

// endSharing unregisters the region if no call can be using it. Else the next
// process that registers one does it.
func (r *Replica) endSharing() {
	reg := &r.registration
	if reg.sharing == nil {
		return
	}
	reg.mu.Lock()
	defer reg.mu.Unlock()
	reg.refused = true
	if reg.cleanup != nil {
		reg.cleanup.Stop()
	}
	known := reg.known.Swap(0)
	g := reg.sharing.region.Load()
	settled := time.Since(time.Unix(0, reg.unanswered.Load())) > reg.sharing.settle
	if known > 0 && g != nil && settled && r.calls.Load() == 0 {
		r.unregister(g.name)
	}
}
