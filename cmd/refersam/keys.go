package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/refersam/refersam/store"
)

// keyFlag is the flag of the commands that serve.
type keyFlag struct {
	FirstKey bool `help:"If clients must send an API key and none has ever been made, make one and print it."`
}

func (f *keyFlag) apply(cfg *Config) { cfg.firstKey = f.FirstKey }

type keysCommand struct {
	Create keysCreateCommand `cmd:"" help:"Make a key and print it; it cannot be shown again."`
	List   keysListCommand   `cmd:"" help:"List all keys, without their secrets."`
	Rotate keysRotateCommand `cmd:"" help:"Give a key a new secret and print it; the old secret stays valid for a while."`
	Revoke keysRevokeCommand `cmd:"" help:"Revoke a key for good; every gateway refuses it within 2 s."`
}

// span is a duration that may be written in days: 90d, 24h, 30m.
type span time.Duration

var daysForm = regexp.MustCompile(`^([0-9]{1,5})d$`)

// UnmarshalText reads a span.
func (s *span) UnmarshalText(text []byte) error {
	if parts := daysForm.FindSubmatch(text); parts != nil {
		days, err := strconv.Atoi(string(parts[1]))
		*s = span(time.Duration(days) * 24 * time.Hour)
		return err
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not of the form 90d, 24h or 30m", text)
	}
	*s = span(d)
	return nil
}

type keysCreateCommand struct {
	dataFlag
	Name        string   `required:"" help:"Name of the key's owner."`
	Scopes      []string `required:"" placeholder:"SCOPE,…" help:"What the key allows: segment, feedback, admin."`
	Rate        string   `placeholder:"10/s" help:"Maximum of requests per second (s), minute (m), hour (h) or day (d). Default: no limit."`
	Concurrency *int64   `placeholder:"N" help:"Maximum of concurrent requests. Default: no limit."`
	Expires     *span    `placeholder:"90d" help:"When the key expires, counted from now. Default: never."`
}

// Run makes a key.
func (c *keysCreateCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	now := time.Now()
	key, err := c.key(now)
	if err != nil {
		return err
	}
	return c.withNewStore(ctx, cfg, func(s *store.Store) error {
		token, err := s.CreateKey(ctx, key, now)
		if err != nil {
			return err
		}
		return m.reveal(token)
	})
}

func (c *keysCreateCommand) key(now time.Time) (k store.Key, err error) {
	if k.Name = strings.TrimSpace(c.Name); k.Name == "" {
		return k, errors.New("--name is empty; give the name of the key's owner")
	}
	for _, name := range c.Scopes {
		scope, err := store.ParseScope(name)
		if err != nil {
			return k, fmt.Errorf("--scopes: %w", err)
		}
		if !k.Has(scope) {
			k.Scopes = append(k.Scopes, scope)
		}
	}
	if c.Rate != "" {
		if k.Rate, err = store.ParseRate(c.Rate); err != nil {
			return k, fmt.Errorf("--rate: %w", err)
		}
	}
	if c.Concurrency != nil {
		if k.Concurrency = *c.Concurrency; k.Concurrency < 1 {
			return k, errors.New("--concurrency must be at least 1; leave it out for no limit")
		}
	}
	if c.Expires != nil {
		if *c.Expires <= 0 {
			return k, errors.New("--expires must be positive; leave it out for a key that never expires")
		}
		k.Expires = now.Add(time.Duration(*c.Expires))
	}
	return k, nil
}

// reveal prints a key, alone on standard output so that it can be piped.
func (m *Main) reveal(token store.Token) error {
	fmt.Fprintf(m.Stderr, "The key is shown only this once. Logs and usage show its id, %s.\n", token.ID)
	_, err := fmt.Fprintln(m.Stdout, token.Reveal())
	return err
}

type keysListCommand struct{ dataFlag }

// Run lists all keys.
func (c *keysListCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	return c.withStore(ctx, cfg, func(s *store.Store) error {
		keys, err := s.Keys(ctx)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(m.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "id\tname\tscopes\trate\tconcurrency\tcreated\texpires\tstate")
		now := time.Now()
		for _, k := range keys {
			scopes := make([]string, len(k.Scopes))
			for i, scope := range k.Scopes {
				scopes[i] = string(scope)
			}
			concurrency := "-"
			if k.Concurrency > 0 {
				concurrency = strconv.FormatInt(k.Concurrency, 10)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
				k.ID, k.Name, strings.Join(scopes, ","), k.Rate, concurrency, date(k.Created), date(k.Expires), keyState(k, now))
		}
		return table.Flush()
	})
}

func date(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.DateOnly)
}

func keyState(k *store.Key, now time.Time) string {
	switch err := k.Live(now); {
	case !k.Revoked.IsZero():
		return "revoked " + date(k.Revoked)
	case err != nil:
		return "expired"
	case now.Before(k.OldUntil):
		return "live; the old secret too, until " + k.OldUntil.Format(time.RFC3339)
	}
	return "live"
}

type keysRotateCommand struct {
	dataFlag
	ID      string `arg:"" help:"The key's id."`
	Overlap span   `default:"24h" placeholder:"24h" help:"How long the old secret stays valid. Default: 24h."`
}

// Run gives a key a new secret.
func (c *keysRotateCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	return c.withStore(ctx, cfg, func(s *store.Store) error {
		token, err := s.RotateKey(ctx, c.ID, time.Now().Add(time.Duration(c.Overlap)))
		if err != nil {
			return named(c.ID, err)
		}
		return m.reveal(token)
	})
}

type keysRevokeCommand struct {
	dataFlag
	ID string `arg:"" help:"The key's id."`
}

// Run revokes a key.
func (c *keysRevokeCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	return c.withStore(ctx, cfg, func(s *store.Store) error {
		if err := s.RevokeKey(ctx, c.ID, time.Now()); err != nil {
			return named(c.ID, err)
		}
		_, err := fmt.Fprintf(m.Stdout, "%s is revoked\n", c.ID)
		return err
	})
}

// secretForm matches a whole key where only its id is expected.
var secretForm = regexp.MustCompile(`^rsk_([a-z2-7]{16})_`)

// named adds the key's id to an error, but never its secret.
func named(id string, err error) error {
	if parts := secretForm.FindStringSubmatch(id); parts != nil {
		return fmt.Errorf("give only the id of the key, %s", parts[1])
	}
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("there is no key %s that is not revoked; refersam keys list shows all", cmp.Or(id, `""`))
	}
	return err
}
