package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/refersam/refersam/gateway"
)

// listen listens on cfg.Gateway.Listen.
func listen(ctx context.Context, cfg *Config) (net.Listener, error) {
	address := cfg.Gateway.Listen
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s is taken by %s: choose another address with --listen HOST:PORT, REFERSAM_LISTEN=HOST:PORT or make run LISTEN=HOST:PORT; port 0 is a free one",
			address, holder(address))
	}
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_LISTEN or --listen is %q: %w", address, err)
	}
	return ln, nil
}

// listenAdmin listens for administration, or returns nil if that is off. Nobody has
// chosen the default address, so if it is in use, listenAdmin takes a free port
// instead. If a configured address is in use, that is an error.
func listenAdmin(ctx context.Context, cfg *Config, log *slog.Logger) (net.Listener, error) {
	address := cfg.Gateway.AdminListen
	if address == gateway.AdminOff {
		return nil, nil
	}
	var config net.ListenConfig
	ln, err := config.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		by := holder(address)
		if cfg.isSet("REFERSAM_ADMIN_LISTEN") {
			return nil, fmt.Errorf("REFERSAM_ADMIN_LISTEN is %q, the address of metrics and settings, which is taken by %s: choose another address, or off", address, by)
		}
		host, _, splitErr := net.SplitHostPort(address)
		if splitErr != nil {
			return nil, splitErr
		}
		if ln, err = config.Listen(ctx, "tcp", net.JoinHostPort(host, "0")); err == nil {
			log.Info("the default address of metrics and settings is taken, so they are on a free port", "default", address, "taken by", by, "address", ln.Addr().String())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_ADMIN_LISTEN is %q, the address of metrics and settings: %w; choose another address, or off", address, err)
	}
	log.Info("listening for administration", "address", ln.Addr().String())
	return ln, nil
}

// holder describes the process that listens on the port of an address, as far as
// this user may see it.
func holder(address string) string {
	const unknown = "another program"
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return unknown
	}
	sockets := make(map[string]bool) // in the form of the links in /proc/PID/fd
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listening(table, port, sockets)
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return unknown
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || !sockets[target] {
			continue
		}
		process := strings.Split(link, "/")[2]
		name, err := os.ReadFile(filepath.Join("/proc", process, "comm"))
		if err != nil {
			return "process " + process
		}
		return fmt.Sprintf("process %s (%s)", process, strings.TrimSpace(string(name)))
	}
	return unknown
}

// listening adds the sockets that listen on a port, from a table of the kernel.
func listening(table, port string, sockets map[string]bool) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return
	}
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	const listenState = "0A"
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", number)) && fields[3] == listenState {
			sockets["socket:["+fields[9]+"]"] = true
		}
	}
}
