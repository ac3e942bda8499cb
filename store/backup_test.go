package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/refersam/refersam/store"
)

// A backup that is taken during writes shows one moment of the database, and
// restores that moment.
func TestBackup(t *testing.T) {
	folder, backup := t.TempDir(), filepath.Join(t.TempDir(), "backup.db")
	s, err := store.Open(t.Context(), store.Config{Data: folder})
	if err != nil {
		t.Fatal(err)
	}
	before := create(t, s, store.Key{Name: "before"})
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		for seq := int64(1); ctx.Err() == nil; seq++ { // each batch counts one for both or for none
			batch := map[store.KeyDay]store.Use{{Key: "a", Day: "d"}: {Requests: 1}, {Key: "b", Day: "d"}: {Requests: 1}}
			if err := s.AddUsage(context.Background(), "g", seq, batch, now); err != nil {
				t.Error(err)
			}
		}
	})
	err = s.Backup(t.Context(), backup)
	stop()
	group.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(t.Context(), backup); err == nil {
		t.Error("a backup overwrites another")
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("permissions %v: %v", info.Mode(), err)
	}
	after := create(t, s, store.Key{Name: "after"})

	err = store.Restore(t.Context(), folder, backup)
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("restoring what is in use: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Restore(t.Context(), folder, backup); err != nil {
		t.Fatal(err)
	}
	restored := open(t, store.Config{Data: folder})
	if k, err := restored.Key(t.Context(), before.ID); err != nil || !k.Holds(before.Secret, now) {
		t.Errorf("the key from before the backup: %v", err)
	}
	if _, err := restored.Key(t.Context(), after.ID); err == nil {
		t.Error("a key from after the backup is there")
	}
	used, err := restored.Usage(t.Context(), "", "", "z")
	if err != nil || len(used) > 0 && (len(used) != 2 || used[0].Requests != used[1].Requests) {
		t.Errorf("half a batch: %v, %v", used, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "refersam.db.old")); err != nil {
		t.Errorf("what was there before: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(backup), "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the backup: %v, %v", left, err)
	}
}

// Restore refuses an incomplete or damaged database, and keeps the current one.
func TestRestoreRefuses(t *testing.T) {
	folder := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{Data: folder})
	if err != nil {
		t.Fatal(err)
	}
	token := create(t, s, store.Key{Name: "a"})
	for i := range 200 { // enough pages to damage one
		create(t, s, store.Key{Name: fmt.Sprint(strings.Repeat("x", 200), i)})
	}
	whole := filepath.Join(t.TempDir(), "whole.db")
	if err := s.Backup(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte{}, data...)
	for i := len(damaged) / 2; i < len(damaged)/2+8192; i++ {
		damaged[i] ^= 0xff
	}
	for name, content := range map[string][]byte{
		"text":    []byte("this is no database, however long it may be; SQLite looks at the first bytes"),
		"empty":   {},
		"cut off": data[:len(data)/2],
		"damaged": damaged,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "backup.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := store.Restore(t.Context(), folder, path); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("restored: %v", err)
			}
		})
	}
	if err := store.Restore(t.Context(), folder, filepath.Join(folder, "nowhere")); err == nil {
		t.Error("restored from nowhere")
	}
	if _, err := open(t, store.Config{Data: folder}).Key(t.Context(), token.ID); err != nil {
		t.Errorf("what was there: %v", err)
	}
	if parts, _ := filepath.Glob(filepath.Join(folder, "*.part*")); len(parts) > 0 {
		t.Errorf("left behind: %v", parts)
	}
}

func TestBackupNowhere(t *testing.T) {
	s := open(t, store.Config{Data: t.TempDir()})
	if err := s.Backup(t.Context(), filepath.Join(t.TempDir(), "no", "folder")); err == nil {
		t.Error("no error")
	}
}

func TestOpenNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Config{Data: filepath.Join(file, "data")})
	if err == nil || !strings.Contains(err.Error(), "REFERSAM_DATA") {
		t.Errorf("%v", err)
	}
}
