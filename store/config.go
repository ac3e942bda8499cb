package store

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
)

// Config sets where the state is stored.
type Config struct {
	// Data is the folder of the SQLite database. Default "var".
	Data string `env:"REFERSAM_DATA"`
	// DatabaseURL is the address of a PostgreSQL, as
	// postgres://user:password@host/name, which several gateways may share.
	// Default none: SQLite.
	DatabaseURL URL `env:"REFERSAM_DATABASE_URL"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Data: "var"} }

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	if c.DatabaseURL == "" {
		if c.Data == "" {
			return errors.New(`REFERSAM_DATA is "", allowed: the name of a folder`)
		}
		return nil
	}
	u, err := url.Parse(string(c.DatabaseURL))
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "" {
		return fmt.Errorf("REFERSAM_DATABASE_URL is %q, allowed: postgres://user:password@host/name", c.DatabaseURL.String())
	}
	if _, err := pgx.ParseConfig(string(c.DatabaseURL)); err != nil {
		return fmt.Errorf("REFERSAM_DATABASE_URL is %q, allowed: postgres://user:password@host/name: %w", c.DatabaseURL.String(), err)
	}
	return nil
}

// URL is the address of a database. Only string(u) shows the password.
type URL string

// String returns the address without its password.
func (u URL) String() string {
	parsed, err := url.Parse(string(u))
	if u != "" && (err != nil || parsed.Scheme == "" || parsed.Opaque != "") {
		return "(not a URL)"
	}
	query := parsed.Query()
	for _, secret := range []string{"password", "sslpassword"} {
		if query.Has(secret) {
			query.Set(secret, "xxxxx")
			parsed.RawQuery = query.Encode()
		}
	}
	return parsed.Redacted()
}
