// Package claim marks files and folders as used by a living process. The mark is a
// lock, which the kernel drops when the process dies, however that happens. So
// whatever bears the prefix of this program's names and no lock is an orphan, and
// may be removed.
package claim

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// New locks a file or folder that was just made, and reports whether it still
// exists: another process may have taken it for an orphan before it was locked.
// Unless it is locked, file is closed.
func New(file *os.File) (locked bool, err error) {
	var stat syscall.Stat_t
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	if err == nil {
		err = syscall.Fstat(int(file.Fd()), &stat)
	}
	if err == nil && stat.Nlink > 0 {
		return true, nil
	}
	return false, errors.Join(err, file.Close())
}

// orphaned reports whether a file belongs to this user and to no process that
// lives, and locks it if so.
func orphaned(file *os.File) bool {
	var stat syscall.Stat_t
	return syscall.Fstat(int(file.Fd()), &stat) == nil && int(stat.Uid) == os.Geteuid() &&
		syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// RemoveOrphans removes the orphans among the files or folders that match a pattern,
// and returns their paths. flags are for os.OpenFile. They must make a link fail,
// and a file that blocks, because anybody may put one beside the orphans.
func RemoveOrphans(pattern string, flags int, remove func(path string) error) (removed []string, err error) {
	paths, err := filepath.Glob(pattern)
	for _, path := range paths {
		file, openErr := os.OpenFile(path, flags, 0)
		if openErr != nil {
			continue // it was removed, or belongs to another user
		}
		if orphaned(file) {
			if removeErr := remove(path); removeErr == nil {
				removed = append(removed, path)
			} else {
				err = errors.Join(err, removeErr)
			}
		}
		err = errors.Join(err, file.Close())
	}
	return removed, err
}
