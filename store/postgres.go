package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// connections limits the connections of one gateway to PostgreSQL.
const connections = 16

// connectTimeout bounds the first connection to PostgreSQL.
const connectTimeout = 10 * time.Second

func openPostgres(ctx context.Context, address URL, create bool) (*database, error) {
	cfg, err := pgxpool.ParseConfig(string(address))
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_DATABASE_URL: %w", err)
	}
	cfg.MaxConns = connections
	cfg.MaxConnIdleTime = time.Minute
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("REFERSAM_DATABASE_URL: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	db.SetMaxIdleConns(0) // the pool keeps idle connections
	closeAll := func() error {
		err := db.Close()
		pool.Close()
		return err
	}
	ping, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := db.PingContext(ping); err != nil {
		return nil, errors.Join(fmt.Errorf("REFERSAM_DATABASE_URL, the database %s: %w", address, err), closeAll())
	}
	if !create {
		var ours bool
		err := db.QueryRowContext(ping, `SELECT to_regclass('api_keys') IS NOT NULL`).Scan(&ours)
		if err == nil && !ours {
			err = errors.New("it has no table of API keys, so it is not a database of refersam; name another one" +
				" (“refersam serve” and “keys create” create the tables of a new one)")
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("REFERSAM_DATABASE_URL, the database %s: %w", address, err), closeAll())
		}
	}
	// goose migrates under an advisory lock, and waits a minute for it.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	provider, err := newProvider(goose.DialectPostgres, db, goose.WithSessionLocker(locker))
	if err == nil {
		err = migrate(ctx, provider)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &database{write: db, read: db, pool: pool}, nil
}
