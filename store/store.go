// Package store holds the state that must outlive the process, and all SQL of
// the program: one file for each group of tables. The database is SQLite in a
// folder, or PostgreSQL, which several gateways may share. Both run the same
// statements on the same schema, and pass one suite of tests.
//
// A write that returned without an error is durable. Every method may be called
// again after an error, and is safe for concurrent use.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/pressly/goose/v3"
)

// ErrNotFound means that there is no such row.
var ErrNotFound = errors.New("not found")

// Store is an open database. Make one with Open, end it with Close. Its methods
// are declared per group of tables.
type Store struct {
	*database
	accessTables
	feedbackTable
	imageTables
	jobTables
}

// The groups of tables that belong together. Each has its files.
type (
	accessTables  struct{ *database } // keys, quotas, usage, repeated requests
	feedbackTable struct{ *database }
	imageTables   struct{ *database } // images, objects and their end
	jobTables     struct{ *database } // jobs, items, events, webhooks
)

func newStore(db *database) *Store {
	return &Store{db, accessTables{db}, feedbackTable{db}, imageTables{db}, jobTables{db}}
}

// database is the connection that all groups share.
type database struct {
	write, read *sql.DB       // the same with PostgreSQL; with SQLite write is one connection
	pool        *pgxpool.Pool // the connections of write and read; nil with SQLite
	folder      string        // "" with PostgreSQL
	lock        *os.File      // held shared by every process that uses the folder; nil with PostgreSQL
}

// Open opens the database, creates it if it does not exist, and migrates its
// schema. Only one process at a time migrates.
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
	var db *database
	var err error
	if cfg.DatabaseURL != "" {
		db, err = openPostgres(ctx, cfg.DatabaseURL, create)
	} else {
		db, err = openSQLite(ctx, cfg.Data, create)
	}
	if err != nil {
		return nil, err
	}
	return newStore(db), nil
}

// MultiGateway reports whether the database is PostgreSQL, which several gateways may
// use at the same time.
func (s *database) MultiGateway() bool { return s.lock == nil }

// Close closes the database.
func (s *database) Close() error {
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

// newProvider returns a goose provider with the migrations of this program.
func newProvider(dialect goose.Dialect, db *sql.DB, options ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db, files, options...)
}

// migrate migrates the schema. A schema of a newer program is an error, because
// this program does not know the meaning of its columns.
func migrate(ctx context.Context, provider *goose.Provider) error {
	if err := notNewer(ctx, provider); err != nil {
		return err
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate the schema of the database: %w", err)
	}
	return nil
}

func notNewer(ctx context.Context, provider *goose.Provider) error {
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version of the database: %w", err)
	}
	if current > known {
		return fmt.Errorf("the database has schema %d, but this refersam knows schemas up to %d: start the version that migrated the database, or a later one", current, known)
	}
	return nil
}

// inTx runs f in a transaction that may write, and commits it if f returns nil.
func (s *database) inTx(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// changed returns the number of rows that a statement has changed.
func changed(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// orNotFound returns ErrNotFound if a statement has changed no row.
func orNotFound(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// micros is a time as the database stores it: microseconds since 1970, 0 for the
// zero time.
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
