package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/internal/claim"
)

const (
	// runPrefix and backendsPrefix start the names of private folders.
	runPrefix      = "refersam-triton-"
	backendsPrefix = "backends-"

	// Entries of a server's run folder: the links to its models, and its gRPC
	// socket. Triton appends ":" and the port to the socket's name.
	modelsName = "models"
	socketName = "grpc"
	socketPort = "1"
)

// privateFolder is a folder that only this user can enter, below folders that
// no other user can change. It is locked as long as this process lives: an
// unlocked one belongs to nobody.
type privateFolder struct {
	path string
	file *os.File // holds the lock
	keep bool     // the user has named it: it outlives the server
}

// newPrivateFolder makes a folder below parent with a name that starts with
// prefix.
func newPrivateFolder(parent, prefix string) (*privateFolder, error) {
	for {
		path := filepath.Join(parent, prefix+rand.Text()[:8])
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, err
		}
		file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another process took it for a stale one
		}
		if err != nil {
			return nil, err
		}
		locked, err := claim.New(file)
		if err != nil {
			return nil, err
		}
		if locked {
			return &privateFolder{path: path, file: file}, nil
		}
	}
}

// newRunFolder returns the folder of a server's socket: the one named or, if
// named is "", a new one.
func newRunFolder(named string) (*privateFolder, error) {
	if named != "" {
		return openRunFolder(named)
	}
	var errs []error
	for _, parent := range runParents() {
		path := filepath.Join(parent, runPrefix+"12345678", socketName+":"+socketPort)
		if len(path) > triton.MaxSocketPath {
			errs = append(errs, fmt.Errorf("%s is too long for the path of a unix socket", parent))
			continue
		}
		err := checkParents(parent, true)
		if err == nil {
			var folder *privateFolder
			if folder, err = newPrivateFolder(parent, runPrefix); err == nil {
				return folder, nil
			}
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("no folder for tritonserver's socket, name one in REFERSAM_TRITON_SOCKET_DIR: %w", errors.Join(errs...))
}

// runParents are the folders below which run folders are made, the best first.
func runParents() []string {
	var parents []string
	for _, parent := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		if filepath.IsAbs(parent) && !slices.Contains(parents, parent) {
			parents = append(parents, parent)
		}
	}
	return parents
}

// openRunFolder takes the folder that the user has named, and makes it if it
// does not exist. It removes what a server that was killed has left in it.
func openRunFolder(named string) (_ *privateFolder, err error) {
	path, err := filepath.Abs(named)
	if err != nil {
		return nil, err
	}
	fault := func(format string, args ...any) error {
		return fmt.Errorf("REFERSAM_TRITON_SOCKET_DIR %s: %w", path, fmt.Errorf(format, args...))
	}
	if length := len(filepath.Join(path, socketName+":"+socketPort)); length > triton.MaxSocketPath {
		return nil, fault("the path of the socket in it would have %d bytes, allowed: %d", length, triton.MaxSocketPath)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fault("%w", err)
	}
	if err := checkParents(filepath.Dir(path), true); err != nil {
		return nil, fault("%w", err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fault("%w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &stat); err != nil {
		return nil, fault("%w", err)
	}
	if int(stat.Uid) != os.Geteuid() || stat.Mode&0o077 != 0 {
		return nil, fault("it belongs to user %d and has mode %04o: it must belong to user %d with mode 0700", stat.Uid, stat.Mode&0o7777, os.Geteuid())
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fault("another tritonserver uses it (%w): name another folder", err)
	}
	folder := &privateFolder{path: path, file: file, keep: true}
	if err := folder.clear(); err != nil {
		return nil, fault("%w", err)
	}
	return folder, nil
}

// entries are what this program and the server put into a run folder.
func (f *privateFolder) entries() []string {
	return []string{filepath.Join(f.path, modelsName), f.socket()}
}

// socket is the path of the server's socket.
func (f *privateFolder) socket() string { return filepath.Join(f.path, socketName+":"+socketPort) }

func (f *privateFolder) clear() error {
	var errs []error
	for _, path := range f.entries() {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// remove removes the folder and unlocks it; of a folder that the user has named
// it removes only our entries.
func (f *privateFolder) remove() error {
	var err error
	if f.keep {
		err = f.clear()
	} else {
		err = os.RemoveAll(f.path)
	}
	return errors.Join(err, f.file.Close())
}

// removeStaleFolders removes the folders below parent that processes of this
// user have left behind when they were killed, and returns their paths.
func removeStaleFolders(parent, prefix string) ([]string, error) {
	return claim.RemoveOrphans(filepath.Join(parent, prefix+"*"), os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, os.RemoveAll)
}

// checkParents reports whether another user can replace what this user puts
// into a folder. That is so where the folder, or one above it, can be written by
// everybody and is not sticky. strict also looks for folders that belong to
// another user or can be written by a group. The owner of "/" is the
// administrator, under any number by which a namespace of users shows root.
func checkParents(folder string, strict bool) error {
	path, err := filepath.EvalSymlinks(folder)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return err
	}
	var root syscall.Stat_t
	if err := syscall.Stat("/", &root); err != nil {
		return fmt.Errorf("/: %w", err)
	}
	others := uint32(0o002)
	if strict {
		others = 0o022
	}
	for ; ; path = filepath.Dir(path) {
		var stat syscall.Stat_t
		if err := syscall.Stat(path, &stat); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if stat.Mode&others != 0 && stat.Mode&syscall.S_ISVTX == 0 {
			return fmt.Errorf("%s has mode %04o: other users can replace everything in it", path, stat.Mode&0o7777)
		}
		if strict && stat.Uid != root.Uid && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
			return fmt.Errorf("%s belongs to user %d: that user can replace everything in it", path, stat.Uid)
		}
		if path == "/" {
			return nil
		}
	}
}
