package blobs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

// folder stores each object as a file. It never leaves its root, whatever a name
// is.
type folder struct{ root *os.Root }

// blobsFolder is the name of the folder of objects in the folder of the state.
const blobsFolder = "blobs"

// openFolder opens the folder blobs in data, and creates both if they do not
// exist.
func openFolder(data string) (*folder, error) {
	name := filepath.Join(data, blobsFolder)
	if err := os.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	parent, err := os.OpenRoot(data)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(syncFile(parent, "."), parent.Close()); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	return &folder{root}, nil
}

// syncFile puts a file, or the names in a folder, on the disk.
func syncFile(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// put writes a temporary file, puts it on the disk and renames it. So the name
// never shows incomplete content, not even after a crash.
func (f *folder) put(ctx context.Context, name string, content []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	parent := path.Dir(name)
	if err := f.root.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	suffix := make([]byte, 8)
	_, _ = rand.Read(suffix) // never fails
	part := name + "." + hex.EncodeToString(suffix) + ".tmp"
	err := f.write(part, content)
	if err == nil {
		err = f.root.Rename(part, name)
	}
	if err != nil {
		if removeErr := f.root.Remove(part); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
		return err
	}
	return errors.Join(syncFile(f.root, parent), syncFile(f.root, "."))
}

func (f *folder) write(name string, content []byte) error {
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func (f *folder) get(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	file, err := f.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

func (f *folder) size(ctx context.Context, name string) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	info, err := f.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *folder) remove(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return ignoreMissing(f.root.Remove(name))
}

func (f *folder) walk(ctx context.Context, visit func(name string, modified time.Time) error) error {
	return fs.WalkDir(f.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err := errors.Join(ctx.Err(), ignoreMissing(err)); err != nil || entry == nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		return visit(name, info.ModTime())
	})
}

func (f *folder) close() error { return f.root.Close() }

// ignoreMissing drops the error of a file that does not exist, because another
// process may delete files at any time.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
