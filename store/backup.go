package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pressly/goose/v3"
)

// Backup writes a copy of the database to path. The copy shows one moment, even
// while other processes write. It is checked first and gets its name last, so
// path never names an incomplete copy. An existing file is an error.
func (s *database) Backup(ctx context.Context, path string) (err error) {
	if s.MultiGateway() {
		return errors.New("the state is in PostgreSQL, where refersam backup does not work; use pg_dump")
	}
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "backup", Path: path, Err: fs.ErrExist}
	}
	part, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-*") // readable by its owner only, because it holds hashes of secrets
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part.Name()))
		}
	}()
	if err := part.Close(); err != nil {
		return err
	}
	if _, err := s.write.ExecContext(ctx, `VACUUM INTO $1`, part.Name()); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	if err := check(ctx, part.Name()); err != nil {
		return err
	}
	return publish(part.Name(), path)
}

// Restore replaces the database of a folder by a backup. The replaced database
// stays in the folder with the suffix .old. It is an error if another process
// uses the folder. The folder must exist, because its name may be mistyped; it
// may be empty.
func Restore(ctx context.Context, folder, path string) (err error) {
	info, err := os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noDestination(folder, "does not exist")
	case err != nil:
		return noFolder(err)
	case !info.IsDir():
		return noDestination(folder, "is not a folder")
	}
	if _, err := os.Stat(path); err != nil { // checked before anything is written
		return fmt.Errorf("the backup to restore cannot be read: %w", err)
	}
	lock, err := lockIn(folder, lockFile, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%s is in use; stop the gateways that use it, then restore", folder)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	part := filepath.Join(folder, databaseFile+".part")
	if err := copyFile(path, part); err != nil {
		return errors.Join(err, removeIfThere(part))
	}
	if err := check(ctx, part); err != nil {
		return errors.Join(fmt.Errorf("%s cannot be restored: %w", path, err), removeIfThere(part))
	}
	name := filepath.Join(folder, databaseFile)
	// The log is set aside before its database. Without its log, a database shows
	// its last checkpoint; with the log of another database it would be broken.
	for _, suffix := range []string{"-wal", "-shm", ""} {
		if err := setAside(name+suffix, name+".old"+suffix); err != nil {
			return err
		}
	}
	return publish(part, name)
}

// noDestination returns the error of a folder that cannot be restored into.
func noDestination(folder, why string) error {
	if absolute, err := filepath.Abs(folder); err == nil {
		folder = absolute
	}
	return fmt.Errorf("%s, the folder to restore into, %s; name the folder of the service's state with --data or REFERSAM_DATA,"+
		" or make it first if the state is new on this machine", folder, why)
}

// check returns nil if a file is a complete database with a schema that this
// program knows.
func check(ctx context.Context, path string) (err error) {
	db, err := openFile(path, "")
	if err != nil {
		return err
	}
	// SQLite removes the log when the last connection closes.
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil {
		return fmt.Errorf("the file is damaged or not a database of refersam: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("the file is damaged: %s", verdict)
	}
	ours, err := hasTables(ctx, db)
	if err != nil {
		return err
	}
	if !ours {
		return errors.New("the file is not a database of refersam")
	}
	provider, err := newProvider(goose.DialectSQLite3, db)
	if err != nil {
		return err
	}
	return notNewer(ctx, provider)
}

// publish puts a written file on the disk and renames it.
func publish(from, to string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close(), os.Rename(from, to)); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// setAside renames a file. If it does not exist, setAside removes a file with the
// new name, so that an old one does not stay.
func setAside(from, to string) error {
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return removeIfThere(to)
	}
	return os.Rename(from, to)
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
