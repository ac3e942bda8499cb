package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// connectTimeout bounds the first connection to PostgreSQL.
const connectTimeout = 10 * time.Second

func openPostgres(ctx context.Context, address URL) (*Store, error) {
	cfg, err := pgx.ParseConfig(string(address))
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_DATABASE_URL: %w", err)
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(4)
	db.SetConnMaxIdleTime(time.Minute)
	ping, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := db.PingContext(ping); err != nil {
		return nil, errors.Join(fmt.Errorf("REFERSAM_DATABASE_URL, the database %s: %w", address, err), db.Close())
	}
	// An advisory lock, for a minute at most.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	provider, err := newProvider(goose.DialectPostgres, db, goose.WithSessionLocker(locker))
	if err == nil {
		err = migrate(ctx, provider)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{write: db, read: db}, nil
}
