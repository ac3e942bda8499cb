package triton

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"time"
)

// Config says where the Triton servers are and how to keep in touch with them.
type Config struct {
	// Addresses are the servers' gRPC addresses, host:port or unix:/path. A host
	// that has several IP addresses, as a headless service of Kubernetes has,
	// stands for a server at each. Servers with other weights than most servers
	// are not used. Default: none.
	Addresses []string `env:"REFERSAM_TRITON"`
	// Checkpoints pins variants to weights, as in "bert:4acc7e55": among the
	// servers that have the variant, only servers with a checkpoint that begins
	// with these digits are used. Give 8 hexadecimal digits or more. Default:
	// none; most servers decide.
	Checkpoints []string `env:"REFERSAM_CHECKPOINTS"`
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
	// SharedMemory is "auto" or "off". auto: pictures go to servers on this
	// machine through shared memory. Default "auto".
	SharedMemory string `env:"REFERSAM_SHARED_MEMORY"`
	// SharedMemoryBytes is how much of /dev/shm is taken for pictures, as soon as
	// there is a server on this machine. A picture of 1024 × 1024 takes 3 MiB
	// from when it has been decoded to its answer; without free memory it goes
	// as bytes. Default 268,435,456.
	SharedMemoryBytes int `env:"REFERSAM_SHARED_MEMORY_BYTES"`
	// Resolver resolves hosts. Default: the system's.
	Resolver Resolver `env:"-"`
}

// Resolver finds the IP addresses of a host; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// The values of Config.SharedMemory.
const (
	sharedMemoryAuto = "auto"
	SharedMemoryOff  = "off"
)

// DefaultConfig returns the defaults, which name no server.
func DefaultConfig() Config {
	return Config{
		Connections:     2,
		ConnectTimeout:  5 * time.Second,
		MetadataTimeout: 10 * time.Second,
		ResolveInterval: 5 * time.Second,

		SharedMemory:      sharedMemoryAuto,
		SharedMemoryBytes: 256 << 20,
	}
}

// Validate reports everything that is wrong with c; that no server is named is
// not.
func (c *Config) Validate() error {
	var errs []error
	for _, address := range c.Addresses {
		if err := validateAddress(address); err != nil {
			errs = append(errs, fmt.Errorf("REFERSAM_TRITON has %w", err))
		}
	}
	if _, err := parsePins(c.Checkpoints); err != nil {
		errs = append(errs, err)
	}
	if c.Connections < 1 || c.Connections > 64 {
		errs = append(errs, fmt.Errorf("REFERSAM_TRITON_CONNECTIONS is %d, allowed: 1 to 64", c.Connections))
	}
	for _, positive := range []struct {
		name  string
		value time.Duration
	}{
		{"REFERSAM_TRITON_CONNECT_TIMEOUT", c.ConnectTimeout},
		{"REFERSAM_TRITON_METADATA_TIMEOUT", c.MetadataTimeout},
		{"REFERSAM_TRITON_RESOLVE_INTERVAL", c.ResolveInterval},
	} {
		if positive.value <= 0 {
			errs = append(errs, fmt.Errorf("%s is %v, allowed: more than 0s", positive.name, positive.value))
		}
	}
	if c.SharedMemory != sharedMemoryAuto && c.SharedMemory != SharedMemoryOff {
		errs = append(errs, fmt.Errorf("REFERSAM_SHARED_MEMORY is %q, allowed: %s, %s", c.SharedMemory, sharedMemoryAuto, SharedMemoryOff))
	}
	if c.SharedMemoryBytes < 1<<20 || c.SharedMemoryBytes > 1<<40 {
		errs = append(errs, fmt.Errorf("REFERSAM_SHARED_MEMORY_BYTES is %d, allowed: 1048576 (1 MiB) to 1099511627776 (1 TiB)", c.SharedMemoryBytes))
	}
	return errors.Join(errs...)
}

var pinPattern = regexp.MustCompile(`^([a-z0-9_]+):([0-9a-f]{8,64})$`)

// parsePins returns what the checkpoint of each variant must begin with.
func parsePins(pins []string) (map[string]string, error) {
	begins := make(map[string]string)
	for _, pin := range pins {
		parts := pinPattern.FindStringSubmatch(pin)
		switch {
		case parts == nil:
			return nil, fmt.Errorf("REFERSAM_CHECKPOINTS has %q, allowed: variant:checkpoint with 8 to 64 lower case hexadecimal digits, as in bert:4acc7e55", pin)
		case begins[parts[1]] != "":
			return nil, fmt.Errorf("REFERSAM_CHECKPOINTS names the variant %q twice: pin it to one checkpoint", parts[1])
		}
		begins[parts[1]] = parts[2]
	}
	return begins, nil
}

func validateAddress(address string) error {
	if path, ok := socketPath(address); ok {
		return validateSocket(address, path)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q, allowed: host:port or unix:/path", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); host == "" || err != nil || n == 0 {
		return fmt.Errorf("%q, allowed: host:port with a port from 1 to 65535", address)
	}
	return nil
}
