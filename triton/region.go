package triton

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/refersam/refersam/triton/internal/claim"
)

const (
	// SharedMemory is the folder where servers exchange tensors with their
	// clients on this machine, and with the processes of their Python models.
	SharedMemory = "/dev/shm"
	// MinSharedMemory is what must be free there for the Python models: what Docker
	// gives a container. Each model takes at least 1 MiB.
	MinSharedMemory = 64 << 20
	// leftForModels is what a region leaves there: a full batch of the shipped models
	// takes 105 MiB.
	leftForModels = 128 << 20
)

// regionPrefix starts the name of every region; process, time and something
// random follow.
const regionPrefix = "refersam-pixels-"

// regionUnit is what places in a region are multiples of: a cache line.
const regionUnit = 64

// region is memory that servers on this machine can map: a file in
// SharedMemory. All its pages are allocated when it is made, because a write to
// a page that cannot be allocated raises SIGBUS. The file is locked as long as
// this process lives. An unlocked region has no owner any more, whatever
// process namespace its owner had.
type region struct {
	name   string
	file   *os.File // holds the lock
	memory []byte

	mu   sync.Mutex
	free []span // by offset; no two touch
}

// span is a piece of a region.
type span struct{ offset, size int }

// newRegion makes a region of size bytes and leaves Triton's Python models
// what they need.
func newRegion(size int) (*region, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(SharedMemory, &stat); err != nil {
		return nil, fmt.Errorf("%s: %w", SharedMemory, err)
	}
	if free := int64(stat.Bavail) * stat.Bsize; stat.Blocks > 0 && free < int64(size)+leftForModels {
		return nil, fmt.Errorf("%s has %d MiB free, want %d and %d for Triton's Python models",
			SharedMemory, free>>20, size>>20, leftForModels>>20)
	}
	file, err := createLocked()
	if err != nil {
		return nil, err
	}
	g := &region{name: filepath.Base(file.Name()), file: file, free: []span{{0, size}}}
	if err = syscall.Fallocate(int(file.Fd()), 0, 0, int64(size)); err == nil {
		g.memory, err = syscall.Mmap(int(file.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%d MiB in %s: %w", size>>20, SharedMemory, err), os.Remove(file.Name()), file.Close())
	}
	return g, nil
}

// createLocked makes the file of a new region. Only its owner may open it,
// because the pictures are private.
func createLocked() (*os.File, error) {
	for {
		name := fmt.Sprintf("%s%d-%d-%s", regionPrefix, os.Getpid(), time.Now().Unix(), rand.Text()[:8])
		file, err := os.OpenFile(filepath.Join(SharedMemory, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		locked, err := claim.New(file)
		if err != nil {
			return nil, err
		}
		if locked {
			return file, nil
		}
	}
}

// removeStaleRegions removes the regions of processes that have died and
// returns their names.
func removeStaleRegions() ([]string, error) {
	removed, err := claim.RemoveOrphans(filepath.Join(SharedMemory, regionPrefix+"*"), os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, os.Remove)
	for i, path := range removed {
		removed[i] = filepath.Base(path)
	}
	return removed, err
}

// staleRegion reports whether a region that a server has registered is one of
// ours that no longer exists.
func staleRegion(name string) bool {
	if !strings.HasPrefix(name, regionPrefix) || name != filepath.Base(name) {
		return false
	}
	_, err := os.Stat(filepath.Join(SharedMemory, name))
	return errors.Is(err, os.ErrNotExist)
}

// close removes the file. The memory stays mapped if a part of it is still
// held, because an access to unmapped memory would kill the process.
func (g *region) close() error {
	err := errors.Join(os.Remove(g.file.Name()), g.file.Close())
	g.mu.Lock()
	defer g.mu.Unlock()
	unused := len(g.free) == 1 && g.free[0].size == len(g.memory)
	g.free = nil
	if unused {
		err = errors.Join(err, syscall.Munmap(g.memory))
	}
	return err
}

// take finds room for size bytes, the first there is: pictures that come one
// after another lie side by side when they can.
func (g *region) take(size int) (offset int, ok bool) {
	size = roundUp(size)
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.free {
		s := &g.free[i]
		if s.size < size {
			continue
		}
		offset = s.offset
		s.offset += size
		s.size -= size
		if s.size == 0 {
			g.free = slices.Delete(g.free, i, i+1)
		}
		return offset, true
	}
	return 0, false
}

// give makes what take has found free again.
func (g *region) give(offset, size int) {
	size = roundUp(size)
	g.mu.Lock()
	defer g.mu.Unlock()
	i, _ := slices.BinarySearchFunc(g.free, offset, func(s span, offset int) int { return s.offset - offset })
	g.free = slices.Insert(g.free, i, span{offset, size})
	if i+1 < len(g.free) && offset+size == g.free[i+1].offset {
		g.free[i].size += g.free[i+1].size
		g.free = slices.Delete(g.free, i+1, i+2)
	}
	if i > 0 && g.free[i-1].offset+g.free[i-1].size == offset {
		g.free[i-1].size += g.free[i].size
		g.free = slices.Delete(g.free, i, i+1)
	}
}

func roundUp(size int) int { return (size + regionUnit - 1) / regionUnit * regionUnit }

// pixels returns a place of size bytes, held once, or nil when there is none.
func (g *region) pixels(size int) *Pixels {
	offset, ok := g.take(size)
	if !ok {
		return nil
	}
	p := &Pixels{
		bytes:  g.memory[offset : offset+size : offset+size],
		region: g,
		offset: offset,
		free:   func(p *Pixels) { g.give(p.offset, len(p.bytes)) },
	}
	p.refs.Store(1)
	return p
}

// placement is where a batch of pictures lies, one after another.
type placement struct {
	region       *region
	offset, size int
	// order[k] is the row of the k-th picture.
	order []int
	// copied says that the place is the batch's own.
	copied bool
}

// place finds where the pictures of rows lie side by side, in any order, or
// else copies them to such a place. It is nil when there is no room for that.
func (g *region) place(rows []Row) *placement {
	each := len(rows[0].Pixels.bytes)
	p := &placement{region: g, size: len(rows) * each, order: make([]int, len(rows))}
	for i := range rows {
		p.order[i] = i
	}
	if g.adjacent(rows, p.order, each) {
		p.offset = rows[p.order[0]].Pixels.offset
		return p
	}
	offset, ok := g.take(p.size)
	if !ok {
		return nil
	}
	p.offset, p.copied = offset, true
	for i := range rows {
		p.order[i] = i
		copy(g.memory[offset+i*each:], rows[i].Pixels.bytes)
	}
	return p
}

// adjacent sorts order by the places of the rows' pictures and reports whether
// they lie side by side in g.
func (g *region) adjacent(rows []Row, order []int, each int) bool {
	for _, row := range rows {
		if row.Pixels.region != g {
			return false
		}
	}
	slices.SortFunc(order, func(a, b int) int { return rows[a].Pixels.offset - rows[b].Pixels.offset })
	for k := 1; k < len(order); k++ {
		if rows[order[k]].Pixels.offset != rows[order[k-1]].Pixels.offset+each {
			return false
		}
	}
	return true
}

// release gives back what place has taken.
func (p *placement) release() {
	if p.copied {
		p.region.give(p.offset, p.size)
	}
}

// isLocal reports whether a server at an address, ip:port or unix:/path, is on
// this machine.
func isLocal(address string) bool {
	if _, ok := socketPath(address); ok {
		return true
	}
	endpoint, err := netip.ParseAddrPort(address)
	if err != nil {
		return false
	}
	if endpoint.Addr().IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		network, ok := a.(*net.IPNet)
		return ok && network.IP.Equal(endpoint.Addr().AsSlice())
	})
}
