package triton

import (
	"fmt"
	"path/filepath"
	"strings"
)

const (
	// SocketScheme starts the address of a server that listens on a unix socket:
	// "unix:" and an absolute path.
	SocketScheme = "unix:"
	// MaxSocketPath is how long the path of a unix socket may be in bytes.
	MaxSocketPath = 107
)

// socketPath returns the path of the unix socket that an address names, and
// whether it names one. unix:///path is another way to write unix:/path.
func socketPath(address string) (path string, ok bool) {
	path, ok = strings.CutPrefix(address, SocketScheme)
	if strings.HasPrefix(path, "///") {
		path = path[2:]
	}
	return path, ok
}

func validateSocket(address, path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%q, allowed: unix: and an absolute path, as in unix:/run/triton/grpc", address)
	case len(path) > MaxSocketPath:
		return fmt.Errorf("%q, the path of a unix socket, with %d bytes, allowed: at most %d", address, len(path), MaxSocketPath)
	}
	return nil
}
