package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/images"
)

// Config says how clients reach the service over HTTP.
type Config struct {
	// Listen is the host:port to listen on. Default "127.0.0.1:8080".
	Listen string `env:"REFERSAM_LISTEN"`
	// Auth says whether clients must send an API key: "on", "off" or "auto", which
	// is off only on the loopback interface. Default "auto".
	Auth string `env:"REFERSAM_AUTH"`
	// TLSCert and TLSKey are PEM files of a certificate with its chain, and of its
	// private key. They are read again when they change. Default none: plain HTTP.
	TLSCert string `env:"REFERSAM_TLS_CERT"`
	TLSKey  string `env:"REFERSAM_TLS_KEY"`
	// AdminListen is the host:port for metrics and administration; "off" for none.
	// A client that can reach it may change settings, so it must be on the loopback
	// interface. Default "127.0.0.1:8081".
	AdminListen string `env:"REFERSAM_ADMIN_LISTEN"`
	// MaxInFlight is how many requests that send a picture, or ask for one, are
	// processed at the same time, including the time to read their bodies. Further
	// requests are refused. Default 1024.
	MaxInFlight int `env:"REFERSAM_MAX_IN_FLIGHT"`
	// FeedbackPerKey is how many bytes of masks and comments are stored as feedback
	// per API key, or for all clients together without authentication. Default
	// 268435456 (256 MiB).
	FeedbackPerKey int64 `env:"REFERSAM_FEEDBACK_PER_KEY_BYTES"`
	// Answers and Images bound the work of requests and what is stored of it.
	Answers answer.Config
	Images  images.Config
	// ReadHeaderTimeout is how long a client may take to send the headers of a
	// request. Default 5s.
	ReadHeaderTimeout time.Duration `env:"REFERSAM_READ_HEADER_TIMEOUT"`
	// ReadTimeout is how long a client may take to send a whole request.
	// Default 60s.
	ReadTimeout time.Duration `env:"REFERSAM_READ_TIMEOUT"`
	// WriteTimeout is how long a client may take to read an answer. Default
	// 60s.
	WriteTimeout time.Duration `env:"REFERSAM_WRITE_TIMEOUT"`
	// IdleTimeout is how long a connection without a request is kept open. Default
	// 2m.
	IdleTimeout time.Duration `env:"REFERSAM_IDLE_TIMEOUT"`
	// DrainDelay is how long the service continues to serve after it was asked to
	// stop, while /readyz reports that it is stopping. It should be long enough for
	// load balancers to notice. Default 0.
	DrainDelay time.Duration `env:"REFERSAM_DRAIN_DELAY"`
	// ShutdownGrace is how long requests in flight may continue after the service
	// was asked to stop. Default 20s.
	ShutdownGrace time.Duration `env:"REFERSAM_SHUTDOWN_GRACE"`
	// CORSOrigins are the origins, such as https://app.example.com, of pages that
	// may use the API from a browser, separated by commas; * for all. Default none.
	CORSOrigins []string `env:"REFERSAM_CORS_ORIGINS"`
	// TrustedProxies are addresses and networks, separated by commas. The service
	// believes X-Forwarded-For from these proxies only. Default none.
	TrustedProxies []string `env:"REFERSAM_TRUSTED_PROXIES"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Listen:            "127.0.0.1:8080",
		Auth:              AuthAuto,
		AdminListen:       "127.0.0.1:8081",
		MaxInFlight:       1024,
		FeedbackPerKey:    256 << 20,
		Answers:           answer.DefaultConfig(),
		Images:            images.DefaultConfig(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		ShutdownGrace:     20 * time.Second,
	}
}

// Validate reports all faults of c.
func (c *Config) Validate() error {
	errs := []error{c.Answers.Validate(), c.Images.Validate()}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("REFERSAM_LISTEN is %q, allowed: host:port, such as 127.0.0.1:8080", c.Listen))
	}
	if c.Auth != AuthOn && c.Auth != AuthOff && c.Auth != AuthAuto {
		errs = append(errs, fmt.Errorf("REFERSAM_AUTH is %q, allowed: on, off, auto", c.Auth))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, fmt.Errorf("REFERSAM_TLS_CERT is %q and REFERSAM_TLS_KEY is %q, allowed: set both, or none", c.TLSCert, c.TLSKey))
	}
	if err := validateAdmin(c.AdminListen); err != nil {
		errs = append(errs, err)
	}
	if err := validateOrigins(c.CORSOrigins); err != nil {
		errs = append(errs, err)
	}
	if c.DrainDelay < 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_DRAIN_DELAY is %v, allowed: 0s or more", c.DrainDelay))
	}
	for _, bounded := range []struct {
		name       string
		value, low int64
	}{
		{"REFERSAM_MAX_IN_FLIGHT", int64(c.MaxInFlight), 1},
		{"REFERSAM_FEEDBACK_PER_KEY_BYTES", c.FeedbackPerKey, 0},
	} {
		if bounded.value < bounded.low {
			errs = append(errs, fmt.Errorf("%s is %d, allowed: %d or more", bounded.name, bounded.value, bounded.low))
		}
	}
	for _, positive := range []struct {
		name  string
		value time.Duration
	}{
		{"REFERSAM_READ_HEADER_TIMEOUT", c.ReadHeaderTimeout},
		{"REFERSAM_READ_TIMEOUT", c.ReadTimeout},
		{"REFERSAM_WRITE_TIMEOUT", c.WriteTimeout},
		{"REFERSAM_IDLE_TIMEOUT", c.IdleTimeout},
		{"REFERSAM_SHUTDOWN_GRACE", c.ShutdownGrace},
	} {
		if positive.value <= 0 {
			errs = append(errs, fmt.Errorf("%s is %v, allowed: more than 0s", positive.name, positive.value))
		}
	}
	for _, proxy := range c.TrustedProxies {
		_, addrErr := netip.ParseAddr(proxy)
		_, prefixErr := netip.ParsePrefix(proxy)
		if addrErr != nil && prefixErr != nil {
			errs = append(errs, fmt.Errorf("REFERSAM_TRUSTED_PROXIES has %q, allowed: addresses and networks, such as 10.0.0.1 or 10.1.0.0/16", proxy))
		}
	}
	return errors.Join(errs...)
}

// AdminOff is the AdminListen of a service without administration.
const AdminOff = "off"

func validateAdmin(address string) error {
	if address == AdminOff {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("REFERSAM_ADMIN_LISTEN is %q, allowed: host:port, such as 127.0.0.1:8081, or off", address)
	}
	if !loopback(host) {
		return fmt.Errorf("REFERSAM_ADMIN_LISTEN is %q, allowed: an address of the loopback interface, such as 127.0.0.1:8081, or off", address)
	}
	return nil
}
