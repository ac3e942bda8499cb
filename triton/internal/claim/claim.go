// Package claim marks files and folders as used by a living process. The mark is a
// lock, which the kernel drops when the process dies, however that happens. So
// whatever bears the prefix of this program's names and no lock is an orphan, and
// may be removed.
package claim

import (
	"errors"
	"os"
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

// Orphaned reports whether a file belongs to this user and to no process that
// lives, and locks it if so.
func Orphaned(file *os.File) bool {
	var stat syscall.Stat_t
	return syscall.Fstat(int(file.Fd()), &stat) == nil && int(stat.Uid) == os.Geteuid() &&
		syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}
