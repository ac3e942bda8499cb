package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Package jobs runs its work with River, which keeps tables of its own (river_…)
// in the same database. River needs the connections themselves. The two methods
// called River are the only ones that hand them out, and River alone may use
// them: statements of our own stand in this package.

// River returns the connections for River: db is for both databases, pool is nil
// with SQLite. With SQLite db is the one connection that writes; while a caller
// holds it, nothing else can write.
func (s *database) River() (db *sql.DB, pool *pgxpool.Pool) { return s.write, s.pool }

// River returns the transaction, so that River inserts or cancels its jobs in it.
func (tx *JobTx) River() *sql.Tx { return tx.tx }

// Exclusively runs f while no other process with the same database runs
// one or changes the schema.
func (s *database) Exclusively(ctx context.Context, f func(context.Context) error) error {
	if s.pool != nil {
		return s.withPostgresLock(ctx, f)
	}
	lock, err := lockIn(s.folder, migrateFile, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	return f(ctx)
}

// migrationLock is the advisory lock of Exclusively.
const migrationLock = 0x7265_6665

func (s *database) withPostgresLock(ctx context.Context, f func(context.Context) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
		return err
	}
	err = f(ctx)
	_, unlockErr := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, migrationLock)
	return errors.Join(err, unlockErr)
}

// TryLockJobs makes this process the one that runs the jobs of the folder,
// until the returned file is closed or the process ends. The file is nil while
// another process holds the lock. It is for SQLite only.
func (s *database) TryLockJobs() (*os.File, error) {
	file, err := lockIn(s.folder, jobsFile, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return file, err
}

// ReleaseRunning makes all running River jobs available again. The caller must
// hold the lock of TryLockJobs, so that no living process runs them.
func (s *database) ReleaseRunning(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, `UPDATE river_job SET state = 'available' WHERE state = 'running'`)
	return err
}

// presenceClass keeps the advisory locks of Presence apart from other ones.
const presenceClass = 0x7265_666a

// presenceTimeout bounds connecting and taking the lock, which no other process
// wants.
const presenceTimeout = 10 * time.Second

// Presence shows other processes that this one lives. It holds an advisory lock
// of PostgreSQL on a connection of its own; PostgreSQL releases the lock when
// the process dies.
type Presence struct {
	conn *pgx.Conn
	name string
}

// AnnouncePresence takes the lock for a name that no other process uses. It is
// for PostgreSQL only. The caller must call Close.
func (s *database) AnnouncePresence(ctx context.Context, name string) (*Presence, error) {
	ctx, cancel := context.WithTimeout(ctx, presenceTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1, hashtext($2))`, presenceClass, name); err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return &Presence{conn, name}, nil
}

// Close closes the connection and thereby releases the lock.
func (p *Presence) Close(ctx context.Context) error { return p.conn.Close(ctx) }

// Released is the work of one dead process that TakeOver made available.
type Released struct {
	Process string
	Jobs    int64
}

// TakeOver makes the running River jobs of dead processes available again. A
// process is dead if it does not hold the lock of its Presence.
func (p *Presence) TakeOver(ctx context.Context) ([]Released, error) {
	rows, err := p.conn.Query(ctx, `SELECT DISTINCT attempted_by[array_upper(attempted_by, 1)] FROM river_job WHERE state = 'running'`)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	var released []Released
	for _, name := range names {
		if name == p.name {
			continue
		}
		var dead bool
		if err := p.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext($2))`, presenceClass, name).Scan(&dead); err != nil {
			return released, err
		}
		if !dead {
			continue
		}
		tag, err := p.conn.Exec(ctx, `UPDATE river_job SET state = 'available', scheduled_at = now()
			WHERE state = 'running' AND attempted_by[array_upper(attempted_by, 1)] = $1`, name)
		_, unlockErr := p.conn.Exec(ctx, `SELECT pg_advisory_unlock($1, hashtext($2))`, presenceClass, name)
		if err := errors.Join(err, unlockErr); err != nil {
			return released, err
		}
		released = append(released, Released{name, tag.RowsAffected()})
	}
	return released, nil
}
