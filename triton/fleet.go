// Package triton speaks to NVIDIA Triton: it finds the servers, reads the
// contract of the ensembles that they have loaded, runs them, and starts a
// server on this machine where none is given.
package triton

//go:generate ./generate.sh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/refersam/refersam"
)

// retireGrace is how long calls to a replica that has left the fleet may go on:
// as long as a request may take.
const retireGrace = 30 * time.Second

// Fleet is the set of Triton servers that serve the same models. It is safe
// for concurrent use.
type Fleet struct {
	cfg      Config
	pins     map[string]string // by variant, see Config.Checkpoints
	log      *slog.Logger
	resolver Resolver
	sharing  *sharing      // nil: off
	wake     chan struct{} // capacity 1: the set was changed by Add
	done     chan struct{} // closed by Close

	mu       sync.Mutex
	hosts    []*host
	added    []string            // by Add
	replicas map[string]*Replica // by name
	failure  error               // of the last attempt to resolve
	closed   bool
	retiring sync.WaitGroup
}

// host is one of the configured addresses.
type host struct {
	name, port string
	known      []string // ip:port or unix:/path, from the last time that it resolved
	failed     bool
}

// NewFleet makes a Fleet, which has no replicas before Run or Resolve has
// resolved the configured addresses, or Add has named one. It connects when
// the first call needs it, so the servers need not run yet.
func NewFleet(cfg Config, log *slog.Logger) (*Fleet, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &Fleet{
		cfg:      cfg,
		log:      log,
		resolver: cfg.Resolver,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		replicas: make(map[string]*Replica),
	}
	var err error
	if f.pins, err = parsePins(cfg.Checkpoints); err != nil {
		return nil, err
	}
	if f.resolver == nil {
		f.resolver = net.DefaultResolver
	}
	if cfg.SharedMemory != SharedMemoryOff {
		f.sharing = newSharing(&cfg, log)
	}
	for _, address := range cfg.Addresses {
		if path, ok := socketPath(address); ok {
			f.hosts = append(f.hosts, &host{name: SocketScheme + path})
			continue
		}
		name, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		f.hosts = append(f.hosts, &host{name: name, port: port})
	}
	return f, nil
}

// Run keeps the replicas equal to the addresses of the names. It resolves the
// names at once and again every ResolveInterval, until ctx ends, and then
// returns nil. It calls changed with the whole set the first time and after
// each change.
//
// A name that stops resolving keeps the replicas it had: an outage of DNS must
// not empty the fleet. A replica that has left is closed once changed has
// returned and its calls have ended, or after 30 s. Call it once.
func (f *Fleet) Run(ctx context.Context, changed func([]*Replica)) error {
	var reported []*Replica
	for first := true; ; first = false {
		left, _ := f.resolve(ctx)
		if ctx.Err() != nil {
			f.retire(left)
			return nil
		}
		if current := f.Replicas(); first || !slices.Equal(current, reported) {
			changed(current)
			reported = current
		}
		f.retire(left)
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-time.After(f.cfg.ResolveInterval):
		}
	}
}

// Resolve resolves the names once, for a program that is done before they
// change. It is an error when it leaves the fleet without a replica.
func (f *Fleet) Resolve(ctx context.Context) error {
	left, err := f.resolve(ctx)
	f.retire(left)
	if len(f.Replicas()) > 0 {
		return nil
	}
	return err
}

// Add makes the server at an address, ip:port or unix:/path, part of the fleet.
func (f *Fleet) Add(address string) error {
	f.mu.Lock()
	f.added = append(f.added, address)
	f.mu.Unlock()
	_, err := f.update()
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return err
}

// Replicas returns the current set, by name.
func (f *Fleet) Replicas() []*Replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	replicas := make([]*Replica, 0, len(f.replicas))
	for _, r := range f.replicas {
		replicas = append(replicas, r)
	}
	slices.SortFunc(replicas, func(a, b *Replica) int { return strings.Compare(a.name, b.name) })
	return replicas
}

// Close closes every replica; calls under way fail.
func (f *Fleet) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	close(f.done)
	f.mu.Unlock()
	f.retiring.Wait()
	var errs []error
	for _, r := range f.Replicas() {
		errs = append(errs, r.close())
	}
	if f.sharing != nil {
		errs = append(errs, f.sharing.close())
	}
	return errors.Join(errs...)
}

// resolve looks every name up and returns the replicas that have left, which
// the caller retires. Each outage is logged once.
func (f *Fleet) resolve(ctx context.Context) ([]*Replica, error) {
	var failures []error
	for _, h := range f.hosts {
		addresses, err := f.lookup(ctx, h)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			failures = append(failures, err)
		}
		f.mu.Lock()
		if err != nil && !h.failed {
			f.log.Warn("cannot resolve a triton server", "host", h.name, "cause", err, "kept", h.known)
		}
		if h.failed = err != nil; !h.failed {
			h.known = addresses
		}
		f.mu.Unlock()
	}
	f.mu.Lock()
	f.failure = errors.Join(failures...)
	f.mu.Unlock()
	left, err := f.update()
	return left, errors.Join(append(failures, err)...)
}

// lookup returns the addresses of a host's servers, ip:port. It returns IPv6
// addresses only if the host has no others, because a server with addresses of
// both families would count twice. A unix socket is its own address.
func (f *Fleet) lookup(ctx context.Context, h *host) ([]string, error) {
	if _, ok := socketPath(h.name); ok {
		return []string{h.name}, nil
	}
	if ip, err := netip.ParseAddr(h.name); err == nil {
		return []string{net.JoinHostPort(ip.Unmap().String(), h.port)}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.ConnectTimeout)
	defer cancel()
	ips, err := f.resolver.LookupNetIP(ctx, "ip", h.name)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", h.name, err)
	}
	var four, six []string
	for _, ip := range ips {
		address := net.JoinHostPort(ip.Unmap().String(), h.port)
		if ip.Unmap().Is4() {
			four = append(four, address)
		} else {
			six = append(six, address)
		}
	}
	if len(four) > 0 {
		return four, nil
	}
	if len(six) == 0 {
		return nil, fmt.Errorf("resolving %s: it has no address", h.name)
	}
	return six, nil
}

// update makes the replicas equal to the addresses of the names and of Add, and
// returns the replicas that have left.
func (f *Fleet) update() (left []*Replica, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errors.New("the fleet is closed")
	}
	wanted := make(map[string]bool)
	for _, address := range f.added {
		wanted[address] = true
	}
	for _, h := range f.hosts {
		for _, address := range h.known {
			wanted[address] = true
		}
	}
	for address := range wanted {
		if f.replicas[address] != nil {
			continue
		}
		r, newErr := newReplica(address, &f.cfg)
		if newErr != nil {
			err = errors.Join(err, newErr)
			continue
		}
		if f.sharing != nil && isLocal(address) {
			f.sharing.begin()
			r.registration.sharing = f.sharing
		}
		f.replicas[address] = r
		f.log.Debug("triton server joined", "address", address)
	}
	for address, r := range f.replicas {
		if !wanted[address] {
			delete(f.replicas, address)
			left = append(left, r)
			f.log.Info("triton server left", "address", address)
		}
	}
	return left, err
}

// retire closes replicas that have left, once their calls have ended.
func (f *Fleet) retire(replicas []*Replica) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range replicas {
		f.retiring.Go(func() {
			f.drain(r)
			if err := r.close(); err != nil {
				f.log.Debug("closing a triton server that left", "address", r.name, "cause", err)
			}
		})
	}
}

// drain returns when r has no call under way, after retireGrace, or when the
// fleet is closed.
func (f *Fleet) drain(r *Replica) {
	over := time.After(retireGrace)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for r.calls.Load() > 0 {
		select {
		case <-f.done:
			return
		case <-over:
			return
		case <-tick.C:
		}
	}
}

// NewPixels returns memory for one row's picture of size bytes, held once. It
// is in shared memory if there is room.
func (f *Fleet) NewPixels(size int) *Pixels {
	if f.sharing != nil {
		if g := f.sharing.region.Load(); g != nil {
			if p := g.pixels(size); p != nil {
				return p
			}
		}
	}
	return heapPixels(size)
}

// noReplica is the error of a fleet that is empty.
func noReplica() error {
	return &refersam.Error{Code: refersam.CodeNotReady, Message: "The model server is starting."}
}

// empty explains why there is no replica, as far as that is known.
func (f *Fleet) empty() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure == nil {
		return noReplica()
	}
	return &refersam.Error{Code: refersam.CodeUnavailable, Message: messageUnavailable, Err: f.failure}
}

// Probe does one real inference on a blank picture on every server, and
// succeeds when one of them does.
func (f *Fleet) Probe(ctx context.Context, c *Contract) error {
	replicas := f.Replicas()
	if len(replicas) == 0 {
		return f.empty()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, len(replicas))
	for _, r := range replicas {
		go func() { results <- r.Probe(ctx, c) }()
	}
	var failure error
	for range replicas {
		err := <-results
		if err == nil {
			return nil
		}
		if failure == nil || refersam.ErrorCode(failure) == refersam.CodeUnavailable {
			failure = err // one that says more than that a server is away
		}
	}
	return failure
}
