package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/refersam/refersam/store"
)

// newKey makes a key by the command line and returns what a client sends.
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
		{"a negative number", []string{"create", "--name", "a", "--scopes", "segment", "--concurrency=-1"}, "--concurrency"},
		{"another time", []string{"create", "--name", "a", "--scopes", "segment", "--expires", "soon"}, "90d"},
		{"no such key", []string{"rotate", "nobody"}, "no key nobody"},
		{"a revoked key", []string{"rotate", token.ID}, "no key " + token.ID},
		{"a key instead of its id", []string{"revoke", other.Reveal()}, "by its id alone, " + other.ID},
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
	// A gateway that serves does not stand in a backup's way, only in a restore's.
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

// The password of a database is not shown.
func TestConfigPassword(t *testing.T) {
	code, out, errs := run(t, []string{"REFERSAM_DATABASE_URL=postgres://u:secret@h/d"}, "config")
	if code != 0 || strings.Contains(out, "secret") || !strings.Contains(out, "postgres://u:xxxxx@h/d") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}
