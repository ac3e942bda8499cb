package triton

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Config says where the Triton servers are and how to keep in touch with them.
type Config struct {
	// Addresses are the servers' gRPC addresses, host:port. A host that has
	// several IP addresses, as a headless service of Kubernetes has, stands for
	// a server at each. All must serve the same ensembles. Default: none.
	Addresses []string `env:"REFERSAM_TRITON"`
	// Connections is how many connections each server gets. One connection has
	// one writer and one flow-control window, so large batches queue behind
	// each other on it. Default 2.
	Connections int `env:"REFERSAM_TRITON_CONNECTIONS"`
	// ConnectTimeout is how long one attempt to connect may take. Default 5s.
	ConnectTimeout time.Duration `env:"REFERSAM_TRITON_CONNECT_TIMEOUT"`
	// MetadataTimeout is how long one server may take to describe its models.
	// Inference is bounded by its context alone. Default 10s.
	MetadataTimeout time.Duration `env:"REFERSAM_TRITON_METADATA_TIMEOUT"`
	// ResolveInterval is how often hosts are resolved again, so that servers
	// that come and go are noticed. Default 5s.
	ResolveInterval time.Duration `env:"REFERSAM_TRITON_RESOLVE_INTERVAL"`
	// Resolver resolves hosts. Default: the system's.
	Resolver Resolver `env:"-"`
}

// Resolver finds the IP addresses of a host; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// DefaultConfig returns the defaults, which name no server.
func DefaultConfig() Config {
	return Config{
		Connections:     2,
		ConnectTimeout:  5 * time.Second,
		MetadataTimeout: 10 * time.Second,
		ResolveInterval: 5 * time.Second,
	}
}

// Validate reports everything that is wrong with c; that no server is named is
// not.
func (c *Config) Validate() error {
	var errs []error
	for _, address := range c.Addresses {
		if err := validateAddress(address); err != nil {
			errs = append(errs, fmt.Errorf("REFERSAM_TRITON: %w", err))
		}
	}
	if c.Connections < 1 || c.Connections > 64 {
		errs = append(errs, errors.New("REFERSAM_TRITON_CONNECTIONS must be from 1 to 64"))
	}
	if c.ConnectTimeout <= 0 {
		errs = append(errs, errors.New("REFERSAM_TRITON_CONNECT_TIMEOUT must be positive"))
	}
	if c.MetadataTimeout <= 0 {
		errs = append(errs, errors.New("REFERSAM_TRITON_METADATA_TIMEOUT must be positive"))
	}
	if c.ResolveInterval <= 0 {
		errs = append(errs, errors.New("REFERSAM_TRITON_RESOLVE_INTERVAL must be positive"))
	}
	return errors.Join(errs...)
}

func validateAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
		return fmt.Errorf("%q is not host:port with a port from 1 to 65535", address)
	}
	return nil
}
