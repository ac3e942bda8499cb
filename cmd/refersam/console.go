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

// progressInterval is how often a slow start prints what it is waiting for.
const progressInterval = 5 * time.Second

// console prints the progress of the service's start for a person at a terminal. It
// is safe for concurrent use.
type console struct {
	begun time.Time

	mu    sync.Mutex
	out   io.Writer
	phase string
	key   string // "" unless the service has made a key
}

func newConsole(out io.Writer) *console { return &console{begun: time.Now(), out: out} }

// begin prints the next step of the start.
func (c *console) begin(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = fmt.Sprintf(format, args...)
	c.print(c.phase)
}

func (c *console) print(text string) {
	fmt.Fprintf(c.out, "refersam: %3.0f s  %s\n", time.Since(c.begun).Seconds(), text)
}

// watch repeats the present step, with the reason why the service is not ready,
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

// cause is why a service is not ready. It is "" if the only reason is that its
// models are not loaded yet.
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

// firstKey prints the key that the service has made.
func (c *console) firstKey(token store.Token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key = token.Reveal()
	fmt.Fprintf(c.out, `
The first API key. It is shown this once, and whoever reads this output can use it:

  %s

`, c.key)
}

// ready prints the address of the service, how to try it, and where its state is
// stored.
func (c *console) ready(s *started) {
	c.mu.Lock()
	defer c.mu.Unlock()
	curl, header := "curl -fsS", ""
	if s.insecure { // the certificate may not name 127.0.0.1
		curl += " -k"
	}
	keys := "not required: only this machine can reach the service"
	if s.open {
		keys = "not required: REFERSAM_AUTH is off, so everybody who can reach the service may use it"
	}
	metrics := ""
	if s.admin != "" {
		metrics = "  Metrics  http://" + s.admin + "/metrics\n"
	}
	switch {
	case s.keys && c.key != "":
		keys = "required: use the key above; “refersam keys” makes, rotates and revokes keys"
		header = ` -H 'X-API-Key: ` + c.key + `'`
	case s.keys:
		keys = "required: set KEY=rsk_… for the line above; “refersam keys create” makes a key"
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

// started describes a service that can answer.
type started struct {
	url string
	// keys: clients must send a key. open: clients on other machines need no key
	// either. insecure: the certificate may be for another name.
	keys, open, insecure bool
	data                 string
	admin                string // "" for none
}

// place returns where a service stores its state, without secrets.
func place(cfg *store.Config) string {
	if cfg.DatabaseURL != "" {
		return cfg.DatabaseURL.String()
	}
	if folder, err := filepath.Abs(cfg.Data); err == nil {
		return folder
	}
	return cfg.Data
}
