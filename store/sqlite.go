package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver called sqlite
)

// The files in the folder.
const (
	databaseFile = "refersam.db"
	// lockFile is locked while the database is open: shared by the processes that
	// use it, exclusively by one that replaces it.
	lockFile = "refersam.lock"
	// migrateFile is locked by the process that migrates the schema.
	migrateFile = "refersam.migrate.lock"
	// jobsFile is locked by the process that runs jobs.
	jobsFile = "refersam.jobs.lock"
)

// readers limits the queries that run at once beside the connection that writes.
const readers = 4

func openSQLite(ctx context.Context, folder string, create bool) (s *database, err error) {
	path := filepath.Join(folder, databaseFile)
	if create {
		err = os.MkdirAll(folder, 0o700)
		if err != nil {
			err = noFolder(err)
		}
	} else {
		err = wasUsed(folder)
	}
	if err != nil {
		return nil, err
	}
	s = &database{folder: folder}
	if s.lock, err = lockIn(folder, lockFile, syscall.LOCK_SH); err != nil {
		return nil, err
	}
	if !create {
		// Checked under the lock, because a restore moves the file away for a moment.
		if err := holdsDatabase(ctx, path); err != nil {
			return nil, errors.Join(err, s.lock.Close())
		}
	}
	// SQLite gives its other files the permissions of this one.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return nil, errors.Join(noFolder(err), s.lock.Close())
	}
	if s.write, err = openFile(path, ""); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = openFile(path, "&_pragma=query_only(1)"); err != nil {
		return nil, errors.Join(err, s.write.Close(), s.lock.Close())
	}
	s.read.SetMaxOpenConns(readers)
	if err := s.migrateSQLite(ctx, folder); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), s.Close())
	}
	return s, nil
}

// wasUsed returns nil if a folder exists and holds a file that every store writes.
func wasUsed(folder string) error {
	info, err := os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noDatabase(folder, "the folder does not exist")
	case err != nil:
		return noFolder(err)
	case !info.IsDir():
		return noDatabase(folder, "it is not a folder")
	}
	for _, name := range []string{databaseFile, lockFile} {
		if _, err := os.Stat(filepath.Join(folder, name)); err == nil {
			return nil
		}
	}
	return noDatabase(folder, "the folder has no file "+databaseFile)
}

// holdsDatabase returns nil if a file is a database with our tables. It does not
// change the file.
func holdsDatabase(ctx context.Context, path string) (err error) {
	folder := filepath.Dir(path)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noDatabase(folder, "the folder has no file "+databaseFile)
	case err != nil:
		return noFolder(err)
	case info.Size() == 0:
		return noDatabase(folder, databaseFile+" in it is empty")
	}
	name, err := fileURL(path)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", name+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ours, err := hasTables(ctx, db)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !ours {
		return noDatabase(folder, databaseFile+" in it has no table of API keys")
	}
	return nil
}

// hasTables reports whether a database has a table of ours.
func hasTables(ctx context.Context, db *sql.DB) (bool, error) {
	var n int
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'api_keys'`).Scan(&n)
	return n > 0, err
}

// noDatabase returns the error of a folder without the state of a service, with
// the reason.
func noDatabase(folder, why string) error {
	if absolute, err := filepath.Abs(folder); err == nil {
		folder = absolute
	}
	return fmt.Errorf("%s holds no database of refersam: %s; name the folder of the service's state with --data or REFERSAM_DATA,"+
		" or its PostgreSQL in REFERSAM_DATABASE_URL (“refersam up”, “serve” and “keys create” make a new database)", folder, why)
}

// noFolder adds to an error of the folder what to do about it.
func noFolder(err error) error {
	return fmt.Errorf("REFERSAM_DATA, the folder of the state: %w; name a folder that can be written to, or a PostgreSQL database in REFERSAM_DATABASE_URL", err)
}

// openFile opens a database of SQLite. A transaction takes the write lock when it
// begins; otherwise two could deadlock. synchronous=FULL puts every commit on the
// disk before it is acknowledged.
func openFile(path, more string) (*sql.DB, error) {
	name, err := fileURL(path)
	if err != nil {
		return nil, err
	}
	return sql.Open("sqlite", name+"?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&"+
		"_pragma=synchronous(FULL)&_pragma=foreign_keys(1)"+more)
}

// fileURL returns the name by which SQLite opens a file.
func fileURL(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	name := url.URL{Scheme: "file", Path: absolute}
	return name.String(), nil
}

func (s *database) migrateSQLite(ctx context.Context, folder string) error {
	alone, err := lockIn(folder, migrateFile, syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer alone.Close()
	provider, err := newProvider(goose.DialectSQLite3, s.write)
	if err != nil {
		return err
	}
	return migrate(ctx, provider)
}

// lockIn locks a file in the folder until it is closed or the process ends.
func lockIn(folder, name string, how int) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(folder, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, noFolder(err)
	}
	if err := syscall.Flock(int(file.Fd()), how); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: file.Name(), Err: err}, file.Close())
	}
	return file, nil
}
