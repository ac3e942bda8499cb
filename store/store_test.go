package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
)

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// The suite runs on both databases.
func TestSQLite(t *testing.T) {
	suite(t, func(t *testing.T) store.Config { return store.Config{Data: t.TempDir()} })
}

func TestPostgres(t *testing.T) {
	cluster := storetest.NewCluster(t)
	suite(t, func(t *testing.T) store.Config { return store.Config{DatabaseURL: cluster.NewDatabase(t)} })
}

func suite(t *testing.T, newConfig func(*testing.T) store.Config) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, store.Config)
	}{
		{"Keys", testKeys},
		{"Reopen", testReopen},
		{"OpenAtOnce", testOpenAtOnce},
		{"NewerSchema", testNewerSchema},
		{"Usage", testUsage},
		{"UsageAtOnce", testUsageAtOnce},
		{"Idempotency", testIdempotency},
		{"IdempotencyAtOnce", testIdempotencyAtOnce},
		{"Tokens", testTokens},
		{"TokensAtOnce", testTokensAtOnce},
		{"Slots", testSlots},
		{"SlotsAtOnce", testSlotsAtOnce},
		{"Sweep", testSweep},
		{"Images", testImages},
		{"Garbage", testGarbage},
		{"Feedback", testFeedback},
		{"StorageAtOnce", testStorageAtOnce},
		{"StorageUpgrade", testStorageUpgrade},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, newConfig(t)) })
	}
}

func open(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func create(t testing.TB, s *store.Store, k store.Key) store.Token {
	t.Helper()
	token, err := s.CreateKey(t.Context(), k, now)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func testKeys(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	want := store.Key{
		Name: "Überwachung", Scopes: []store.Scope{store.ScopeSegment, store.ScopeAdmin},
		Rate: store.Rate{Requests: 600, Window: time.Minute}, Concurrency: 8, Expires: now.Add(time.Hour),
	}
	first := create(t, s, want)
	second, err := s.CreateKey(ctx, store.Key{Name: "other", Scopes: []store.Scope{store.ScopeSegment}}, now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}

	k, err := s.Key(ctx, first.ID)
	if err != nil {
		t.Fatal(err)
	}
	want.ID, want.Created = first.ID, now
	if diff := cmp.Diff(&want, k, cmpopts.IgnoreUnexported(store.Key{})); diff != "" {
		t.Error(diff)
	}
	if !k.Holds(first.Secret, now) || k.Holds(second.Secret, now) || k.Holds("", now) {
		t.Error("a key holds its own secret and no other")
	}
	if _, err := s.Key(ctx, "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such key: %v", err)
	}
	keys, err := s.Keys(ctx)
	if err != nil || len(keys) != 2 || keys[0].ID != first.ID || keys[1].ID != second.ID {
		t.Errorf("keys %v: %v", keys, err)
	}

	rotated, err := s.RotateKey(ctx, first.ID, now.Add(time.Minute))
	if err != nil || rotated.ID != first.ID || rotated.Secret == first.Secret {
		t.Fatalf("rotated %v: %v", rotated, err)
	}
	if k, err = s.Key(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		secret string
		at     time.Time
		want   bool
	}{
		{first.Secret, now, true},
		{first.Secret, now.Add(time.Minute - time.Microsecond), true},
		{first.Secret, now.Add(time.Minute), false},
		{rotated.Secret, now, true},
		{rotated.Secret, now.Add(time.Minute), true},
	} {
		if k.Holds(tc.secret, tc.at) != tc.want {
			t.Errorf("at %v the old or the new secret is held: %t, want %t", tc.at, !tc.want, tc.want)
		}
	}
	if err := k.Live(now.Add(time.Hour - 1)); err != nil {
		t.Error(err)
	}
	if err := k.Live(now.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "expired on 2026-11-22") {
		t.Errorf("an expired key: %v", err)
	}

	for range 2 {
		if err := s.RevokeKey(ctx, first.ID, now); err != nil {
			t.Fatal(err)
		}
	}
	if k, err = s.Key(ctx, first.ID); err != nil || k.Live(now) == nil || !k.Revoked.Equal(now) {
		t.Errorf("a revoked key is live: %v", err)
	}
	if _, err := s.RotateKey(ctx, first.ID, now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("rotating a revoked key: %v", err)
	}
	if err := s.RevokeKey(ctx, "nobody", now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("revoking no key: %v", err)
	}
}

// Acknowledged writes are in the database after it was opened again, and its files
// hold no secret.
func testReopen(t *testing.T, cfg store.Config) {
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	token := create(t, s, store.Key{Name: "a"})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if k, err := open(t, cfg).Key(t.Context(), token.ID); err != nil || !k.Holds(token.Secret, now) {
		t.Errorf("after it was opened again: %v", err)
	}
	if cfg.DatabaseURL != "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(cfg.Data, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte(token.Secret)) {
			t.Errorf("%s has the secret in it", name)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has permissions %v: %v", name, info.Mode().Perm(), err)
		}
	}
}

// Gateways that start at once migrate the schema one after the other.
func testOpenAtOnce(t *testing.T, cfg store.Config) {
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			s, err := store.Open(t.Context(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Keys(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func testNewerSchema(t *testing.T, cfg store.Config) {
	s := open(t, cfg)
	storetest.Exec(t, s, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, $1)`, true)
	if _, err := store.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "99999") {
		t.Errorf("a schema of tomorrow: %v", err)
	}
}

func testUsage(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	a := store.KeyDay{Key: "a", Day: "2026-11-21"}
	a2 := store.KeyDay{Key: "a", Day: "2026-11-22"}
	b := store.KeyDay{Key: "b", Day: "2026-11-22"}
	one := store.Use{Requests: 1, Pictures: 2, GPU: 3 * time.Millisecond}
	for _, batch := range []struct {
		gateway string
		seq     int64
		uses    map[store.KeyDay]store.Use
	}{
		{"g1", 1, map[store.KeyDay]store.Use{a: one}},
		{"g1", 1, map[store.KeyDay]store.Use{a: one}}, // tried again
		{"g2", 1, map[store.KeyDay]store.Use{a: one, b: one}},
		{"g1", 2, map[store.KeyDay]store.Use{a2: one}},
	} {
		if err := s.AddUsage(ctx, batch.gateway, batch.seq, batch.uses, now); err != nil {
			t.Fatal(err)
		}
	}
	two := one
	two.Add(one)
	for _, tc := range []struct {
		key, from, to string
		want          []store.Used
	}{
		{"", "2026-11-01", "2026-11-30", []store.Used{{a, two}, {a2, one}, {b, one}}},
		{"a", "2026-11-01", "2026-11-30", []store.Used{{a, two}, {a2, one}}},
		{"a", "2026-11-22", "2026-11-22", []store.Used{{a2, one}}},
		{"c", "2026-11-01", "2026-11-30", nil},
	} {
		got, err := s.Usage(ctx, tc.key, tc.from, tc.to)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%q from %s to %s: %s", tc.key, tc.from, tc.to, diff)
		}
	}
}

// Gateways that count the same keys at once lose nothing and do not deadlock.
func testUsageAtOnce(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	const gateways, batches, keys = 4, 10, 6
	var group sync.WaitGroup
	for g := range gateways {
		group.Go(func() {
			for seq := range batches {
				batch := make(map[store.KeyDay]store.Use)
				for k := range keys {
					batch[store.KeyDay{Key: fmt.Sprint(k), Day: "2026-11-22"}] = store.Use{Requests: 1}
				}
				if err := s.AddUsage(ctx, fmt.Sprint(g), int64(seq+1), batch, now); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	used, err := s.Usage(ctx, "", "2026-11-22", "2026-11-22")
	if err != nil || len(used) != keys {
		t.Fatalf("%v: %v", used, err)
	}
	for _, u := range used {
		if u.Requests != gateways*batches {
			t.Errorf("key %s: %d requests, want %d", u.Key, u.Requests, gateways*batches)
		}
	}
}

func testIdempotency(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	lease, keep := now.Add(time.Minute), now.Add(time.Hour)
	first := store.Attempt{APIKey: "k", Key: "order 1", RequestHash: []byte("hash"), Owner: "1"}
	again, other := first, first
	again.Owner = "2"
	other.Owner, other.RequestHash = "3", []byte("another")
	begin := func(a store.Attempt, at time.Time, wantAnswer string, wantErr error) (begun time.Time) {
		t.Helper()
		answer, err := s.Begin(ctx, &a, at.Add(time.Minute), at.Add(30*time.Minute), at)
		if string(answer) != wantAnswer || !errors.Is(err, wantErr) {
			t.Errorf("%q and %v, want %q and %v", answer, err, wantAnswer, wantErr)
		}
		return a.Begun
	}
	begin(first, now, "", nil)
	begin(again, now, "", store.ErrUnderWay)
	begin(other, now, "", store.ErrOtherRequest)
	elsewhere := again
	elsewhere.APIKey = "another client's"
	begin(elsewhere, now, "", nil)

	// An abandoned attempt may begin again, also with another request, and its
	// answer is stored.
	if err := s.Abandon(ctx, first); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(ctx, first, []byte("too late"), keep); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an attempt that was abandoned stores its answer: %v", err)
	}
	begin(other, now.Add(time.Second), "", nil)
	if err := s.Abandon(ctx, other); err != nil {
		t.Fatal(err)
	}
	if got := begin(again, now.Add(2*time.Second), "", nil); !got.Equal(now) {
		t.Errorf("first begun at %v, want %v", got, now)
	}
	if err := s.Finish(ctx, first, []byte("too late"), keep); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an attempt that was abandoned stores its answer: %v", err)
	}
	if err := s.Finish(ctx, again, []byte("answer"), keep); err != nil {
		t.Fatal(err)
	}
	if err := s.Abandon(ctx, again); err != nil { // nothing is left to abandon
		t.Fatal(err)
	}
	begin(first, now, "answer", nil)
	begin(other, keep.Add(-time.Microsecond), "", store.ErrOtherRequest)
	if got := begin(other, keep, "", nil); !got.Equal(keep) {
		t.Errorf("first begun at %v, want %v", got, keep)
	}

	// The name of a running attempt does not expire.
	old := store.Attempt{APIKey: "k", Key: "order 3", RequestHash: []byte("hash"), Owner: "1"}
	begin(old, now, "", nil)
	if err := s.Abandon(ctx, old); err != nil {
		t.Fatal(err)
	}
	end := now.Add(30 * time.Minute)
	begin(old, end.Add(-time.Second), "", nil)
	if err := s.Sweep(ctx, end); err != nil {
		t.Fatal(err)
	}
	begin(old, end.Add(time.Second), "", store.ErrUnderWay)
	if err := s.Finish(ctx, old, []byte("answer"), keep); err != nil {
		t.Error(err)
	}

	// The attempt of a dead gateway may begin again when its lease has ended.
	dead := store.Attempt{APIKey: "k", Key: "order 2", RequestHash: []byte("hash"), Owner: "dead"}
	heir := dead
	heir.Owner = "heir"
	begin(dead, now, "", nil)
	begin(heir, lease.Add(-time.Microsecond), "", store.ErrUnderWay)
	if err := s.Sweep(ctx, lease); err != nil {
		t.Fatal(err)
	}
	if got := begin(heir, lease, "", nil); !got.Equal(now) {
		t.Errorf("first begun at %v, want %v", got, now)
	}
	if err := s.Finish(ctx, dead, []byte("too late"), keep); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an attempt that was taken over stores its answer: %v", err)
	}
}

// Of many concurrent attempts, one runs.
func testIdempotencyAtOnce(t *testing.T, cfg store.Config) {
	s := open(t, cfg)
	var (
		group sync.WaitGroup
		begun atomic.Int64
	)
	for i := range 12 {
		group.Go(func() {
			a := store.Attempt{APIKey: "k", Key: "one", RequestHash: []byte("h"), Owner: fmt.Sprint(i)}
			switch _, err := s.Begin(t.Context(), &a, now.Add(time.Minute), now.Add(time.Hour), now); {
			case err == nil:
				begun.Add(1)
			case !errors.Is(err, store.ErrUnderWay):
				t.Error(err)
			}
		})
	}
	group.Wait()
	if begun.Load() != 1 {
		t.Errorf("%d went on, want 1", begun.Load())
	}
}

func testTokens(t *testing.T, cfg store.Config) {
	s := open(t, cfg)
	rate := store.Rate{Requests: 10, Window: time.Second}
	for _, tc := range []struct {
		at      time.Duration
		want    int64
		granted int64
		left    float64
	}{
		{0, 3, 3, 7},
		{0, 9, 7, 0},
		{0, 1, 0, 0},
		{-time.Second, 1, 0, 0}, // a clock that is behind adds nothing
		{150 * time.Millisecond, 5, 1, 0.5},
		{200 * time.Millisecond, 5, 1, 0},
		{time.Hour, 4, 4, 6}, // no more than the bucket holds
	} {
		got, err := s.TakeTokens(t.Context(), "k", rate, tc.want, now.Add(tc.at))
		if err != nil {
			t.Fatal(err)
		}
		want := store.Tokens{Granted: tc.granted, Left: tc.left}
		if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-6)); diff != "" {
			t.Errorf("after %v: %s", tc.at, diff)
		}
	}
}

func testTokensAtOnce(t *testing.T, cfg store.Config) {
	s := open(t, cfg)
	var (
		group   sync.WaitGroup
		granted atomic.Int64
	)
	for range 8 {
		group.Go(func() {
			for range 5 {
				got, err := s.TakeTokens(t.Context(), "k", store.Rate{Requests: 60, Window: time.Hour}, 3, now)
				if err != nil {
					t.Error(err)
				}
				granted.Add(got.Granted)
			}
		})
	}
	group.Wait()
	if granted.Load() != 60 {
		t.Errorf("%d granted of 60", granted.Load())
	}
}

func testSlots(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	id := create(t, s, store.Key{Name: "a"}).ID
	until := now.Add(10 * time.Second)
	lease := func(gateway string, want int64, at time.Time, granted int64) {
		t.Helper()
		got, err := s.LeaseSlots(ctx, id, gateway, 8, want, until, at)
		if err != nil || got != granted {
			t.Errorf("%s wants %d and gets %d, not %d: %v", gateway, want, got, granted, err)
		}
	}
	lease("g1", 2, now, 2)
	lease("g2", 5, now, 5)
	lease("g1", 4, now, 3)
	lease("g3", 1, now, 0)
	lease("g2", 1, now, 1) // gives four back
	lease("g3", 9, now, 4)
	lease("g1", 8, until, 8) // the others' have ended
	if _, err := s.LeaseSlots(ctx, "nobody", "g1", 8, 1, until, now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such key: %v", err)
	}
}

func testSlotsAtOnce(t *testing.T, cfg store.Config) {
	s := open(t, cfg)
	id := create(t, s, store.Key{Name: "a"}).ID
	var (
		group   sync.WaitGroup
		granted atomic.Int64
	)
	for g := range 8 {
		group.Go(func() {
			got, err := s.LeaseSlots(t.Context(), id, fmt.Sprint(g), 10, 3, now.Add(time.Minute), now)
			if err != nil {
				t.Error(err)
			}
			granted.Add(got)
		})
	}
	group.Wait()
	if granted.Load() != 10 {
		t.Errorf("%d granted of 10", granted.Load())
	}
}

func testSweep(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	a := store.Attempt{APIKey: "k", Key: "1", RequestHash: []byte("h"), Owner: "1"}
	if _, err := s.Begin(ctx, &a, now.Add(time.Second), now.Add(time.Minute), now); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		at   time.Duration
		want error
	}{{time.Minute - time.Microsecond, nil}, {time.Minute, store.ErrNotFound}} {
		if err := s.Sweep(ctx, now.Add(tc.at)); err != nil {
			t.Fatal(err)
		}
		if err := s.Finish(ctx, a, nil, now.Add(time.Minute)); !errors.Is(err, tc.want) {
			t.Errorf("swept after %v: %v, want %v", tc.at, err, tc.want)
		}
	}
}
