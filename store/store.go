// Package store keeps what must outlive the process: keys, usage, answers that
// may be asked for again. It is SQLite in a folder, or PostgreSQL, which several
// gateways may share; both have one schema and pass one suite of tests.
//
// Whatever a method has returned without an error is durable. Every method may
// be called again after an error, and is safe for concurrent use.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
)

// ErrNotFound says that there is no such row.
var ErrNotFound = errors.New("not found")

// Store is an open database. Make one with Open, end it with Close.
type Store struct {
	write, read *sql.DB       // one and the same with PostgreSQL
	pool        *pgxpool.Pool // what they are of; nil with SQLite
	folder      string        // "" with PostgreSQL
	lock        *os.File      // shared by all who use a folder; nil with PostgreSQL
}

// Open opens the database, creates it if it does not exist, and brings its
// schema up to date. Only one process at a time changes the schema.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	return open(ctx, cfg, true)
}

// OpenExisting is Open for commands that work on the state of a service. A
// folder or a PostgreSQL without a database of refersam is an error and stays as
// it is, because the name of the folder may be mistyped.
func OpenExisting(ctx context.Context, cfg Config) (*Store, error) {
	return open(ctx, cfg, false)
}

func open(ctx context.Context, cfg Config, create bool) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.DatabaseURL != "" {
		return openPostgres(ctx, cfg.DatabaseURL, create)
	}
	return openSQLite(ctx, cfg.Data, create)
}

// Shared reports whether other gateways may use the same database at the same
// time.
func (s *Store) Shared() bool { return s.lock == nil }

// Close closes the database.
func (s *Store) Close() error {
	err := s.write.Close()
	if s.read != s.write {
		err = errors.Join(err, s.read.Close())
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

//go:embed migrations/*.sql
var migrations embed.FS

// newProvider knows the migrations of this program.
func newProvider(dialect goose.Dialect, db *sql.DB, options ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db, files, options...)
}

// migrate brings the schema up to date. One that a newer program has made is an
// error: this one would not know what the columns mean.
func migrate(ctx context.Context, provider *goose.Provider) error {
	if err := notNewer(ctx, provider); err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring the schema of the database up to date: %w", err)
	}
	return nil
}

func notNewer(ctx context.Context, provider *goose.Provider) error {
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the database's schema: %w", err)
	}
	if current > known {
		return fmt.Errorf("the database has schema %d and this refersam knows up to %d: start the version that made it or a later one", current, known)
	}
	return nil
}

// Reader is for queries, Writer for what writes outside InTx. With SQLite the
// latter is one connection: who has it keeps everybody else from writing.
func (s *Store) Reader() *sql.DB { return s.read }

// Writer is described with Reader.
func (s *Store) Writer() *sql.DB { return s.write }

// Pool has the connections to PostgreSQL; it is nil with SQLite.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Exclusively runs f while nobody else of the same database runs one, or
// changes the schema.
func (s *Store) Exclusively(ctx context.Context, f func(context.Context) error) error {
	if s.pool != nil {
		return s.exclusivelyInPostgres(ctx, f)
	}
	alone, err := lockIn(s.folder, migrateFile, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer alone.Close()
	return f(ctx)
}

// InTx runs f in a transaction that may write.
func (s *Store) InTx(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// changed returns how many rows a statement has changed.
func changed(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// micros writes a time for the database; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
