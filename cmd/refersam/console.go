package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/store"
)

// progressInterval is how often a start that goes on says what it waits for.
const progressInterval = 5 * time.Second

// console prints for a person at a terminal how far the start of a service is.
// It is safe for concurrent use.
type console struct {
	begun time.Time

	mu    sync.Mutex
	out   io.Writer
	phase string
	key   string // "" unless the service has made one
}

func newConsole(out io.Writer) *console { return &console{begun: time.Now(), out: out} }

// begin prints what the service does from now on.
func (c *console) begin(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = fmt.Sprintf(format, args...)
	c.print(c.phase)
}

func (c *console) print(text string) {
	fmt.Fprintf(c.out, "refersam: %3.0f s  %s\n", time.Since(c.begun).Seconds(), text)
}

// watch repeats what the service does, with what keeps it from being ready,
// until ctx ends.
func (c *console) watch(ctx context.Context, ready func() error) {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.mu.Lock()
			text := "still " + c.phase
			if cause := cause(ready()); cause != "" {
				text += " (" + cause + ")"
			}
			c.print(text)
			c.mu.Unlock()
		}
	}
}

// cause is why a service is not ready, "" if that is nothing but that its models
// are not loaded yet.
func cause(err error) string {
	var e *refersam.Error
	if !errors.As(err, &e) || e.Err == nil {
		return ""
	}
	if refersam.ErrorCode(e.Err) == refersam.CodeNotReady {
		return ""
	}
	return e.Err.Error()
}

// firstKey prints the key that the service has made for itself.
func (c *console) firstKey(token store.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key = token.Reveal()
	fmt.Fprintf(c.out, `
The first API key. It is shown this once, and whoever reads this output can use it:

  %s

`, c.key)
}

// ready prints where the service is, how to try it, and where its state is.
func (c *console) ready(s *started) {
	c.mu.Lock()
	defer c.mu.Unlock()
	curl, header := "curl -fsS", ""
	if s.insecure { // the certificate need not name 127.0.0.1
		curl += " -k"
	}
	keys := "not wanted: only this machine can reach the service"
	if s.open {
		keys = "not wanted: REFERSAM_AUTH is off, and everybody who can reach the service may use it"
	}
	metrics := ""
	if s.admin != "" {
		metrics = "  Metrics  http://" + s.admin + "/metrics\n"
	}
	switch {
	case s.keys && c.key != "":
		keys = "wanted: the one above; “refersam keys” makes, rotates and revokes keys"
		header = ` -H 'X-API-Key: ` + c.key + `'`
	case s.keys:
		keys = "wanted: “KEY=rsk_…” makes the line above work; “refersam keys create” makes a key"
		header = ` -H "X-API-Key: $KEY"`
	}
	fmt.Fprintf(c.out, `
refersam is ready on %s after %.0f s

  Page     %s/
  API      %s/docs
  Try it   %s %s/web/samples/ducks.jpg | %s%s -F image=@- -F 'phrase=the duck on the left' -F format=overlay -H 'Accept: image/png' -o duck.png %s/v1/segment
  Keys     %s
  Data     %s
%s  Stop     Ctrl-C

`, s.url, time.Since(c.begun).Seconds(), s.url, s.url, curl, s.url, curl, header, s.url, keys, s.data, metrics)
}

// started is what there is to know of a service that can answer.
type started struct {
	url string
	// keys says that clients must show a key, open that others than this machine
	// need none either, insecure that the certificate may be of another name.
	keys, open, insecure bool
	data                 string
	admin                string // "" for none
}

// place is where a service keeps its state, as it may be shown.
func place(cfg *store.Config) string {
	if cfg.DatabaseURL != "" {
		return cfg.DatabaseURL.String()
	}
	if folder, err := filepath.Abs(cfg.Data); err == nil {
		return folder
	}
	return cfg.Data
}
