package main_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/blobs/blobstest"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
)

// newKey makes a key on the command line and returns the token for clients.
func newKey(t *testing.T, environ []string, args ...string) (token store.Token) {
	t.Helper()
	code, out, errs := run(t, environ, append([]string{"keys", "create", "--name", "test", "--scopes", "segment"}, args...)...)
	token, err := store.ParseToken(strings.TrimSuffix(out, "\n"))
	if code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s", code, err, errs)
	}
	return token
}

func TestKeys(t *testing.T) {
	environ := []string{"REFERSAM_DATA=" + t.TempDir()}
	code, out, errs := run(t, environ, "keys", "create", "--name", "web shop", "--scopes", "segment,admin,segment",
		"--rate", "10/s", "--concurrency", "8", "--expires", "90d")
	token, err := store.ParseToken(strings.TrimSuffix(out, "\n"))
	if code != 0 || err != nil || !strings.Contains(errs, token.ID) || strings.Contains(errs, token.Secret) {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	other := newKey(t, environ)

	list := func(want ...string) {
		t.Helper()
		code, out, errs := run(t, environ, "keys", "list")
		if code != 0 {
			t.Fatalf("exit %d: %s", code, errs)
		}
		for _, pattern := range want {
			if !regexp.MustCompile(pattern).MatchString(out) {
				t.Errorf("no %s in\n%s", pattern, out)
			}
		}
		if strings.Contains(out, token.Secret) || strings.Contains(out, other.Secret) {
			t.Errorf("a secret is in\n%s", out)
		}
	}
	list(token.ID+` +web shop +segment,admin +10/s +8 +\d{4}-\d\d-\d\d +\d{4}-\d\d-\d\d +live\n`, other.ID+` +test +segment +- +- +\S+ +- +live\n`)

	code, out, errs = run(t, environ, "keys", "rotate", token.ID)
	rotated, err := store.ParseToken(strings.TrimSuffix(out, "\n"))
	if code != 0 || err != nil || rotated.ID != token.ID || rotated.Secret == token.Secret {
		t.Fatalf("exit %d, %v: %s", code, err, errs)
	}
	list(token.ID + `.* live; the old secret too, until \d{4}`)
	if code, _, errs := run(t, environ, "keys", "rotate", token.ID, "--overlap", "0s"); code != 0 {
		t.Fatal(errs)
	}
	list(token.ID + `.* live\n`)
	if code, _, errs := run(t, environ, "keys", "revoke", token.ID); code != 0 {
		t.Fatal(errs)
	}
	list(token.ID+`.* revoked \d{4}-\d\d-\d\d\n`, other.ID+`.* live\n`)

	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"no name", []string{"create", "--scopes", "segment"}, "--name"},
		{"a blank name", []string{"create", "--name", " ", "--scopes", "segment"}, "--name"},
		{"no scope", []string{"create", "--name", "a"}, "--scopes"},
		{"another scope", []string{"create", "--name", "a", "--scopes", "segment,fly"}, "segment, feedback and admin"},
		{"another rate", []string{"create", "--name", "a", "--scopes", "segment", "--rate", "fast"}, "10/s"},
		{"no requests at all", []string{"create", "--name", "a", "--scopes", "segment", "--concurrency=0"}, "--concurrency"},
		{"a negative number", []string{"create", "--name", "a", "--scopes", "segment", "--concurrency=-1"}, "--concurrency"},
		{"another time", []string{"create", "--name", "a", "--scopes", "segment", "--expires", "soon"}, "90d"},
		{"no time", []string{"create", "--name", "a", "--scopes", "segment", "--expires", "0d"}, "--expires"},
		{"no such key", []string{"rotate", "nobody"}, "no key nobody"},
		{"a revoked key", []string{"rotate", token.ID}, "no key " + token.ID},
		{"a key instead of its id", []string{"revoke", other.Reveal()}, "only the id of the key, " + other.ID},
		{"no folder", []string{"list", "--data", "/dev/null/data"}, "REFERSAM_DATA"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, errs := run(t, environ, append([]string{"keys"}, tc.args...)...)
			if code == 0 || !strings.Contains(errs, tc.want) {
				t.Errorf("exit %d, want a message with %q:\n%s", code, tc.want, errs)
			}
			if strings.Contains(errs, other.Secret) {
				t.Errorf("the secret is in %s", errs)
			}
		})
	}
}

func TestBackupRestore(t *testing.T) {
	folder, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup.db")
	environ := []string{"REFERSAM_DATA=" + folder}
	before := newKey(t, environ)
	// A running gateway does not block a backup, only a restore.
	serving, err := store.Open(t.Context(), store.Config{Data: folder})
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run(t, environ, "backup", backup); code != 0 {
		t.Fatal(errs)
	}
	after := newKey(t, environ)
	if code, _, errs := run(t, environ, "restore", backup); code == 0 || !strings.Contains(errs, "in use") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if err := serving.Close(); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := run(t, environ, "restore", backup); code != 0 {
		t.Fatal(errs)
	}
	if _, out, errs := run(t, environ, "keys", "list"); !strings.Contains(out, before.ID) || strings.Contains(out, after.ID) {
		t.Errorf("after the restore:\n%s%s", out, errs)
	}

	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := append([]string{"REFERSAM_DATABASE_URL=postgres://u:secret@127.0.0.1:1/d"}, environ...)
	for _, tc := range []struct {
		name    string
		environ []string
		args    []string
		want    string
	}{
		{"over a file", environ, []string{"backup", backup}, "exists"},
		{"what is none", environ, []string{"restore", text}, "not a database"},
		{"from nowhere", environ, []string{"restore", backup + ".gone"}, "no such file"},
		{"PostgreSQL", elsewhere, []string{"restore", backup}, "pg_restore"},
		{"a PostgreSQL that is away", elsewhere, []string{"keys", "list"}, "REFERSAM_DATABASE_URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, _, errs := run(t, tc.environ, tc.args...)
			if code == 0 || !strings.Contains(errs, tc.want) || strings.Contains(errs, "secret") {
				t.Errorf("exit %d, want a message with %q:\n%s", code, tc.want, errs)
			}
		})
	}
}

// A command that works on a service's state creates nothing if the state does not
// exist, because the name of the folder or of the database may be mistyped.
func TestMistypedState(t *testing.T) {
	environ := []string{"REFERSAM_DATA=" + t.TempDir()}
	token, backup := newKey(t, environ), filepath.Join(t.TempDir(), "backup.db")
	if code, _, errs := run(t, environ, "backup", backup); code != 0 {
		t.Fatal(errs)
	}
	commands := [][]string{
		{"backup", filepath.Join(t.TempDir(), "new.db")},
		{"purge"},
		{"keys", "list"},
		{"keys", "revoke", token.ID},
		{"keys", "rotate", token.ID},
	}
	foreign := func(t *testing.T, path string) {
		db, err := sql.Open("sqlite", path)
		if err == nil {
			_, err = db.ExecContext(t.Context(), "CREATE TABLE accounts (id INTEGER)")
		}
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		make func(t *testing.T, folder string)
		want string
	}{
		{"no folder", func(*testing.T, string) {}, "the folder does not exist"},
		{"an empty folder", func(t *testing.T, folder string) { mkdir(t, folder) }, "no file refersam.db"},
		{"a folder of other files", func(t *testing.T, folder string) {
			mkdir(t, filepath.Join(folder, "blobs"))
			write(t, filepath.Join(folder, "notes.txt"), "mine")
		}, "no file refersam.db"},
		{"a folder without its database", func(t *testing.T, folder string) {
			mkdir(t, folder)
			write(t, filepath.Join(folder, "refersam.lock"), "")
		}, "no file refersam.db"},
		{"an empty database", func(t *testing.T, folder string) {
			mkdir(t, folder)
			write(t, filepath.Join(folder, "refersam.db"), "")
		}, "refersam.db in it is empty"},
		{"another program's database", func(t *testing.T, folder string) {
			mkdir(t, folder)
			foreign(t, filepath.Join(folder, "refersam.db"))
		}, "no table of API keys"},
		{"a file", func(t *testing.T, folder string) { write(t, folder, "mine") }, "not a folder"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, command := range commands {
				folder := filepath.Join(t.TempDir(), "mistyped")
				tc.make(t, folder)
				before := tree(t, folder)
				code, out, errs := run(t, nil, append(command, "--data", folder)...)
				if code != 1 || out != "" || !strings.Contains(errs, folder) || !strings.Contains(errs, tc.want) || !strings.Contains(errs, "REFERSAM_DATA") {
					t.Errorf("%v: exit %d: %s%s", command, code, out, errs)
				}
				after := tree(t, folder)
				delete(after, "refersam.lock") // of a folder that a store has used before
				delete(before, "refersam.lock")
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("%v changed the folder: %s", command, diff)
				}
			}
		})
	}
	t.Run("restore", func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "mistyped")
		code, out, errs := run(t, nil, "restore", backup, "--data", folder)
		if code != 1 || out != "" || !strings.Contains(errs, folder) || !strings.Contains(errs, "does not exist") {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
		if _, err := os.Lstat(folder); err == nil {
			t.Error("it made the folder")
		}
		mkdir(t, folder)
		if code, _, errs := run(t, nil, "restore", backup+".gone", "--data", folder); code != 1 || !strings.Contains(errs, backup+".gone") || len(tree(t, folder)) > 0 {
			t.Errorf("exit %d: %s%v", code, errs, tree(t, folder))
		}
		if code, _, errs := run(t, nil, "restore", backup, "--data", folder); code != 0 {
			t.Errorf("into an empty folder: exit %d: %s", code, errs)
		}
		if code, out, errs := run(t, nil, "keys", "list", "--data", folder); code != 0 || !strings.Contains(out, token.ID) {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
	})
	t.Run("keys create", func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "new", "folder")
		newKey(t, nil, "--data", folder)
		if code, out, errs := run(t, nil, "keys", "list", "--data", folder); code != 0 || !strings.Contains(out, "test") {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		cluster := storetest.NewCluster(t)
		address := "REFERSAM_DATABASE_URL=" + string(cluster.NewDatabase(t))
		for _, command := range commands {
			if command[0] == "backup" {
				continue // use pg_dump instead
			}
			for range 2 { // the first makes no tables
				code, out, errs := run(t, []string{address}, command...)
				if code != 1 || out != "" || !strings.Contains(errs, "no table of API keys") {
					t.Errorf("%v: exit %d: %s%s", command, code, out, errs)
				}
			}
		}
		newKey(t, []string{address})
		if code, _, errs := run(t, []string{address}, "keys", "list"); code != 0 {
			t.Error(errs)
		}
		folder := filepath.Join(t.TempDir(), "mistyped") // for objects
		code, out, errs := run(t, []string{address}, "purge", "--data", folder)
		if code != 1 || out != "" || !strings.Contains(errs, filepath.Join(folder, "blobs")) {
			t.Errorf("exit %d: %s%s", code, out, errs)
		}
		if _, err := os.Lstat(folder); err == nil {
			t.Error("purge made the folder")
		}
	})
}

func mkdir(t *testing.T, folder string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tree returns the content of all files under a path by their names, or nothing if
// the path does not exist.
func tree(t *testing.T, path string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == path && entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(path, name)
		if err != nil || entry.IsDir() {
			files[relative] = "a folder"
			return err
		}
		content, err := os.ReadFile(name)
		files[relative] = string(content)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

// While a gateway uses the same state, a purge deletes expired rows, objects that
// nothing refers to, and strays, and nothing else.
func TestPurge(t *testing.T) {
	t.Run("SQLite and a folder", func(t *testing.T) {
		folder := t.TempDir()
		testPurge(t, store.Config{Data: folder}, blobs.Config{}, []string{"REFERSAM_DATA=" + folder})
	})
	t.Run("PostgreSQL and S3", func(t *testing.T) {
		database, bucket := storetest.NewCluster(t).NewDatabase(t), blobstest.NewS3(t)
		testPurge(t, store.Config{DatabaseURL: database}, blobs.Config{URL: bucket},
			[]string{"REFERSAM_DATABASE_URL=" + string(database), "REFERSAM_BLOBS_URL=" + string(bucket)})
	})
}

func testPurge(t *testing.T, stateConfig store.Config, bucketConfig blobs.Config, environ []string) {
	ctx, now := t.Context(), time.Now()
	state, err := store.Open(ctx, stateConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	bucket, err := blobs.Open(ctx, bucketConfig, stateConfig.Data)
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()
	keep := func(age, life time.Duration) string {
		name := blobs.NewName()
		at := now.Add(-age)
		err := state.ReserveBlob(ctx, store.Blob{Name: name, APIKey: "k", Bytes: 5}, 1000, at)
		if err == nil {
			err = bucket.Put(ctx, name, []byte("bytes"))
		}
		if err == nil && life > 0 {
			_, err = state.AddImage(ctx, store.Image{APIKey: "k", ID: name, Blob: name, Width: 1, Height: 1, MediaType: "image/png", Bytes: 5, Created: at, Expires: at.Add(life)}, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	expired, forgotten := keep(3*time.Hour, time.Hour), keep(2*time.Hour, 0)
	wanted, underWay := keep(3*time.Hour, 24*time.Hour), keep(time.Minute, 0)
	var stray string
	strays := 0
	if bucket.Local() { // a bucket does not allow making an object old
		stray = blobs.NewName()
		strays = 1
		if err := bucket.Put(ctx, stray, nil); err != nil {
			t.Fatal(err)
		}
		yesterday := now.Add(-25 * time.Hour)
		if err := os.Chtimes(filepath.Join(stateConfig.Data, "blobs", stray), yesterday, yesterday); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		fmt.Sprintf("deleted 1 expired images and 0 expired jobs, 2 objects of 10 bytes that nothing refers to, and %d objects without a row\n", strays),
		"deleted 0 expired images and 0 expired jobs, 0 objects of 0 bytes that nothing refers to, and 0 objects without a row\n",
	} {
		if code, out, errs := run(t, environ, "purge"); code != 0 || out != want {
			t.Errorf("exit %d: %s%s\nwant %s", code, out, errs, want)
		}
	}
	for name, want := range map[string]bool{expired: false, forgotten: false, stray: false, wanted: true, underWay: true} {
		if _, err := bucket.Size(ctx, name); name != "" && (err == nil) != want {
			t.Errorf("%s is there: %t: %v", name, err == nil, err)
		}
	}
	if n, err := state.Stored(ctx, "k"); err != nil || n != 10 {
		t.Errorf("the key has %d bytes: %v", n, err)
	}
}

// Credentials that do not belong into the address of a bucket are not printed.
func TestConfigBlobs(t *testing.T) {
	for _, address := range []string{"s3://id:secret@pictures", "s3://pictures?endpoint=https://id:secret@minio.example.com", "s3://pictures?endpoint=:secret"} {
		for _, command := range []string{"config", "purge"} {
			code, out, errs := run(t, []string{"REFERSAM_DATA=" + t.TempDir(), "REFERSAM_BLOBS_URL=" + address}, command)
			if code == 0 || strings.Contains(out+errs, "secret") || !strings.Contains(errs, "REFERSAM_BLOBS_URL") {
				t.Errorf("exit %d: %s%s", code, out, errs)
			}
		}
	}
	code, out, errs := run(t, []string{"REFERSAM_BLOBS_URL=s3://pictures?region=eu"}, "config")
	if code != 0 || !strings.Contains(out, "s3://pictures?region=eu ") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

// The password of a database is not printed.
func TestConfigPassword(t *testing.T) {
	for _, address := range []string{"host=h password=secret", "postgres:secret", "postgres://u@h/d?sslpassword=secret&password=secret"} {
		if _, out, errs := run(t, []string{"REFERSAM_DATABASE_URL=" + address}, "config"); strings.Contains(out+errs, "secret") {
			t.Errorf("%s%s", out, errs)
		}
	}
	code, out, errs := run(t, []string{"REFERSAM_DATABASE_URL=postgres://u:secret@h/d"}, "config")
	if code != 0 || strings.Contains(out, "secret") || !strings.Contains(out, "postgres://u:xxxxx@h/d") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}
