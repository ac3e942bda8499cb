package gateway

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateAge is how long a certificate is used before its files are checked for
// changes.
const certificateAge = time.Second

// certificate is a TLS certificate and its key in two files. When they change, they
// are read again. While they do not match, as between the two writes of a renewal,
// the previous certificate stays in use.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	read    [2]fileState // of the files when they were last read
	looked  time.Time
}

// fileState changes when a file does.
type fileState struct {
	size    int64
	changed time.Time
}

// newCertificate reads the files for the first time.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("REFERSAM_TLS_CERT and REFERSAM_TLS_KEY: %w", err)
	}
	return c, nil
}

// config is the TLS configuration of connections.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}

// get implements tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < certificateAge {
		return c.current, nil
	}
	if c.unchanged() {
		c.looked = time.Now()
		return c.current, nil
	}
	if err := c.load(); err != nil {
		c.log.Warn("the TLS certificate has changed but cannot be read; the previous one stays in use", "cause", err)
	} else {
		c.log.Info("the TLS certificate was read again", "expires", c.current.Leaf.NotAfter)
	}
	return c.current, nil
}

func (c *certificate) unchanged() bool {
	now, err := c.states()
	return err == nil && now == c.read
}

func (c *certificate) states() (states [2]fileState, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return states, err
		}
		states[i] = fileState{info.Size(), info.ModTime()}
	}
	return states, nil
}

// load reads the files. After an error the certificate is unchanged, and the files
// are read again at the next check.
func (c *certificate) load() error {
	c.looked = time.Now()
	states, err := c.states()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.current, c.read = &pair, states
	return nil
}
