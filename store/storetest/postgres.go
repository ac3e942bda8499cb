// Package storetest gives tests databases of their own.
package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver called pgx
	"github.com/refersam/refersam/store"
)

// Cluster is a PostgreSQL server for the lifetime of a test.
type Cluster struct {
	folder string // of its socket; it listens nowhere else
	admin  *sql.DB
	made   int
}

// NewCluster starts a PostgreSQL server of the installed version.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	bin := binaries(t)
	// t.TempDir may be too long for the name of a socket.
	folder, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	owner := &syscall.SysProcAttr{}
	if os.Getuid() == 0 {
		owner.Credential = unprivileged(t)
		if err := os.Chown(folder, int(owner.Credential.Uid), int(owner.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(folder, "data")
	init := exec.Command(filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--no-sync")
	init.SysProcAttr, init.Dir = owner, folder
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	var log bytes.Buffer
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
	server.SysProcAttr, server.Dir = owner, folder
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(server.Process.Signal(syscall.SIGINT), server.Wait()); err != nil {
			t.Errorf("stop PostgreSQL: %v\n%s", err, log.String())
		}
	})

	c := &Cluster{folder: folder}
	if c.admin, err = sql.Open("pgx", string(c.url("postgres"))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.admin.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for err = c.admin.PingContext(ctx); err != nil; err = c.admin.PingContext(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("PostgreSQL does not answer: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return c
}

// NewDatabase makes an empty database and returns its address.
func (c *Cluster) NewDatabase(t testing.TB) store.URL {
	t.Helper()
	c.made++
	name := fmt.Sprintf("test%d", c.made)
	if _, err := c.admin.ExecContext(context.Background(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return c.url(name)
}

func (c *Cluster) url(database string) store.URL {
	return store.URL(fmt.Sprintf("postgres://postgres@/%s?host=%s", database, c.folder))
}

// binaries returns the folder of PostgreSQL's programs. Debian keeps them out
// of PATH, the newest version last.
func binaries(t testing.TB) string {
	t.Helper()
	if initdb, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(initdb)
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("PostgreSQL is not installed, and its tests need it. On Debian, as root: apt-get install -y --no-install-recommends postgresql")
	}
	return filepath.Dir(slices.Max(found))
}

// unprivileged returns a user to run PostgreSQL, which refuses to run as root.
func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			t.Fatal(err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatal(&fs.PathError{Op: "run PostgreSQL as", Path: "postgres or nobody", Err: errors.New("no such user")})
	return nil
}
