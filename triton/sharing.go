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
// Servers only read it. A place may therefore be used again as soon as our call
// has returned. The server of a call that was cancelled or timed out may still
// read the place and then sees another picture. This does no harm, because
// nobody waits for the answer of that call and rows of a batch do not affect
// one another. Two things would break this. The first is answers in shared
// memory, because a late answer would overwrite another picture. Answers
// therefore come as bytes, 256 KiB for a picture of 3 MiB. The second is
// Triton's response cache, because it would store the late answer as the answer
// to the first picture. Models with response_cache need
// REFERSAM_SHARED_MEMORY=off.
//
// Unmapping is another matter. Tritonserver 24.10 unmaps a region at once when
// it is unregistered, even while a model reads it, and dies. A region is
// therefore unregistered only when every call has been answered, or settleTime
// after the last call without an answer.

// settleTime is how long a server may go on with a call that we have given up:
// the execution under way, since Triton drops cancelled calls from its queues.
const settleTime = 10 * time.Second

// registerTimeout bounds a call about a region, which takes a server less than
// a millisecond.
const registerTimeout = time.Second

// maxForgotten is how many times in succession a server may not know a region
// that it has just registered.
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

// shared returns the region if the server knows it or the region can be
// registered, and how often it was registered. While another call registers it,
// shared returns nil.
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

// register registers the region with the server and reports whether it
// succeeded.
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

// forgot reports whether a call with pictures in the region failed because the
// server does not know the region. A restarted server does not know it, and its
// error names it. The next call registers the region again.
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
	// A timer or the end of the Replica causes it, and neither has a context.
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
