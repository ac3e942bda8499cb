package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/store/storetest"
)

// addImage adds an image of 10 bytes of the key k.
func addImage(t *testing.T, s *store.Store, id, blob string, created time.Time) *store.Image {
	t.Helper()
	if err := s.ReserveBlob(t.Context(), store.Blob{Name: blob, APIKey: "k", Bytes: 10}, 1000, created); err != nil {
		t.Fatal(err)
	}
	i, err := s.AddImage(t.Context(), store.Image{
		APIKey: "k", ID: id, Blob: blob, Width: 4, Height: 3, MediaType: "image/png", Bytes: 10, Created: created, Expires: created.Add(time.Hour),
	}, "lost")
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func testImages(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	first := addImage(t, s, "a", "1", now)
	want := &store.Image{APIKey: "k", ID: "a", Blob: "1", Width: 4, Height: 3, MediaType: "image/png", Bytes: 10, Created: now, Expires: now.Add(time.Hour)}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
	// The same image again keeps its object and gets the later expiry.
	again := addImage(t, s, "a", "2", now.Add(time.Minute))
	if again.Blob != "1" || !again.Expires.Equal(now.Add(61*time.Minute)) || !again.Created.Equal(now) {
		t.Errorf("%+v", again)
	}
	if got, err := s.Image(ctx, "k", "a", now.Add(time.Hour)); err != nil || got.Blob != "1" {
		t.Errorf("%+v, %v", got, err)
	}
	for name, err := range map[string]error{
		"another key": second(s.Image(ctx, "l", "a", now)),
		"another id":  second(s.Image(ctx, "k", "b", now)),
		"expired":     second(s.Image(ctx, "k", "a", now.Add(61*time.Minute))),
		"renew":       second(s.RenewImage(ctx, "k", "a", now.Add(9*time.Hour), now.Add(61*time.Minute))),
		"delete":      s.DeleteImage(ctx, "l", "a", now),
	} {
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A lost object is replaced.
	addImage(t, s, "b", "lost", now)
	found := addImage(t, s, "b", "found", now)
	if found.Blob != "found" {
		t.Errorf("%+v", found)
	}
	if err := s.DeleteImage(ctx, "k", "b", now); err != nil {
		t.Error(err)
	}
	if got, err := s.RenewImage(ctx, "k", "a", now.Add(2*time.Hour), now); err != nil || !got.Expires.Equal(now.Add(2*time.Hour)) {
		t.Errorf("%+v, %v", got, err)
	}

	// Pages list the newest image first; some images have the same time.
	for i := range 5 {
		addImage(t, s, fmt.Sprint("p", i), fmt.Sprint("p", i), now.Add(time.Duration(i/2)*time.Second))
	}
	var ids []string
	var last *store.Image
	for {
		page, err := s.Images(ctx, "k", last, 2, now)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, i := range page {
			ids = append(ids, i.ID)
		}
		last = page[len(page)-1]
	}
	if got := strings.Join(ids, " "); got != "p4 p3 p2 p1 p0 a" {
		t.Errorf("pages: %s", got)
	}

	if err := s.DeleteImage(ctx, "k", "p4", now); err != nil {
		t.Error(err)
	}
	if n, err := s.DeleteExpiredImages(ctx, now.Add(time.Hour)); err != nil || n != 2 { // p0 and p1
		t.Errorf("%d, %v", n, err)
	}
}

func second[T any](_ T, err error) error { return err }

func testGarbage(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	reserve := func(name string, bytes int64, at time.Time) error {
		return s.ReserveBlob(ctx, store.Blob{Name: name, APIKey: "k", Bytes: bytes}, 100, at)
	}
	addImage(t, s, "a", "used", now)
	if err := reserve("first", 90, now); err != nil {
		t.Error(err)
	}
	if err := reserve("more", 1, now); !errors.Is(err, store.ErrQuota) {
		t.Errorf("%v", err)
	}
	if err := s.ReserveBlob(ctx, store.Blob{Name: "another's", APIKey: "l", Bytes: 100}, 100, now); err != nil {
		t.Error(err)
	}
	if garbage, err := s.TakeGarbage(ctx, 10, now.Add(time.Hour)); err != nil || len(garbage) != 0 {
		t.Errorf("too young: %v, %v", garbage, err)
	}
	if n, err := s.Stored(ctx, "k"); err != nil || n != 100 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := s.Stored(ctx, "m"); err != nil || n != 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	// Concurrent callers take each row once.
	late := now.Add(time.Hour + time.Second)
	var taken atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for {
				garbage, err := s.TakeGarbage(ctx, 1, late)
				if err != nil {
					t.Error(err)
				}
				if len(garbage) == 0 {
					return
				}
				if garbage[0].Name == "used" {
					t.Error("what is referred to is garbage")
				}
				taken.Add(1)
			}
		})
	}
	group.Wait()
	if taken.Load() != 2 {
		t.Errorf("%d were taken", taken.Load())
	}
	for name, want := range map[string]bool{"used": true, "first": false} {
		if known, err := s.KnowsBlob(ctx, name); err != nil || known != want {
			t.Errorf("%s is known: %t, %v", name, known, err)
		}
	}
	// A referenced object stays.
	if forgotten, err := s.ForgetBlob(ctx, "used"); err != nil || forgotten {
		t.Error(err)
	}
	if known, _ := s.KnowsBlob(ctx, "used"); !known {
		t.Error("an image has lost its object")
	}
	if err := s.DeleteImage(ctx, "k", "a", now); err != nil {
		t.Error(err)
	}
	if garbage, err := s.TakeGarbage(ctx, 10, late); err != nil || len(garbage) != 1 || garbage[0] != (store.Blob{Name: "used", APIKey: "k", Bytes: 10}) {
		t.Errorf("%v, %v", garbage, err)
	}
	for _, key := range []string{"k", "l"} {
		if n, err := s.Stored(ctx, key); err != nil || n != 0 {
			t.Errorf("%s has %d bytes, %v", key, n, err)
		}
	}
}

// Concurrent reservations and deletions never exceed the quota of a key, and its
// sum stays equal to the sum of its rows.
func testStorageAtOnce(t *testing.T, cfg store.Config) {
	s, other := open(t, cfg), open(t, cfg)
	ctx := t.Context()
	const quota = 1000
	stop := make(chan struct{})
	var group, purgers sync.WaitGroup
	var refused, taken atomic.Int64
	for _, s := range []*store.Store{s, other} {
		purgers.Go(func() {
			for {
				garbage, err := s.TakeGarbage(ctx, 7, now.Add(time.Hour))
				if err != nil {
					t.Error(err)
				}
				taken.Add(int64(len(garbage)))
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for n := range 6 {
		s := []*store.Store{s, other}[n%2]
		group.Go(func() {
			for i := range 40 {
				// Half of them are old enough to be garbage at once.
				key, age := fmt.Sprint("key", i%3), time.Duration(i%2)*time.Second
				err := s.ReserveBlob(ctx, store.Blob{Name: fmt.Sprint(n, "-", i), APIKey: key, Bytes: 90}, quota, now.Add(-age))
				if errors.Is(err, store.ErrQuota) {
					refused.Add(1)
				} else if err != nil {
					t.Error(err)
				}
				if bytes, err := s.Stored(ctx, key); err != nil || bytes > quota {
					t.Errorf("%s has %d bytes, %v", key, bytes, err)
				}
			}
		})
	}
	group.Wait()
	close(stop)
	purgers.Wait()
	if refused.Load() == 0 || taken.Load() == 0 {
		t.Errorf("%d were refused and %d taken", refused.Load(), taken.Load())
	}
	for i := range 3 {
		key := fmt.Sprint("key", i)
		want := storetest.Number(t, s, `SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM blobs WHERE api_key = $1`, key)
		if n, err := s.Stored(ctx, key); err != nil || n != want {
			t.Errorf("%s has %d bytes, want %d: %v", key, n, want, err)
		}
	}
}

func testFeedback(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	const quota = 100
	want := &store.Feedback{
		ID: "a", APIKey: "k", RequestID: "r", Result: 1, Verdict: "bad", Rating: 2, Height: 2, Width: 4, Counts: "242", Comment: "no", Created: now,
	}
	for range 30 { // again changes nothing
		if err := s.AddFeedback(ctx, *want, quota); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"b", "c"} {
		if err := s.AddFeedback(ctx, store.Feedback{ID: id, APIKey: "k", RequestID: "other", Created: now.Add(time.Second)}, quota); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"c", "b", "a"}, feedbackIDs(t, s, 2)); diff != "" {
		t.Error(diff)
	}
	only, more, err := s.Feedback(ctx, nil, "r", 1)
	if err != nil || more {
		t.Errorf("more: %t, %v", more, err)
	}
	if diff := cmp.Diff([]*store.Feedback{want}, only); diff != "" {
		t.Error(diff)
	}

	// Feedback has its own quota, apart from pictures. Refused feedback leaves
	// nothing.
	large := store.Feedback{ID: "d", APIKey: "k", Counts: strings.Repeat("4", 95), Created: now}
	if err := s.AddFeedback(ctx, large, quota); err != nil {
		t.Error(err)
	}
	large.ID = "e"
	if err := s.AddFeedback(ctx, large, quota); !errors.Is(err, store.ErrQuota) {
		t.Errorf("%v", err)
	}
	large.APIKey = "l"
	if err := s.AddFeedback(ctx, large, quota); err != nil {
		t.Error(err)
	}
	if n, err := s.Stored(ctx, "k"); err != nil || n != 0 {
		t.Errorf("%d bytes of pictures, %v", n, err)
	}
	if diff := cmp.Diff([]string{"c", "b", "e", "d", "a"}, feedbackIDs(t, s, 100)); diff != "" {
		t.Error(diff)
	}

	// A page of large masks has fewer pieces.
	for i := range 5 {
		err := s.AddFeedback(ctx, store.Feedback{ID: fmt.Sprint("large", i), Counts: strings.Repeat("4", 3<<20), Created: now.Add(time.Minute)}, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
	}
	if page, more, err := s.Feedback(ctx, nil, "", 100); err != nil || len(page) != 3 || !more {
		t.Errorf("%d, more: %t, %v", len(page), more, err)
	}
	if ids := feedbackIDs(t, s, 100); len(ids) != 10 {
		t.Errorf("%q", ids)
	}
}

// feedbackIDs goes through all pages.
func feedbackIDs(t *testing.T, s *store.Store, limit int) (ids []string) {
	t.Helper()
	var last *store.Feedback
	for {
		page, more, err := s.Feedback(t.Context(), last, "", limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range page {
			ids = append(ids, f.ID)
		}
		if !more {
			return ids
		}
		last = page[len(page)-1]
	}
}

// A database of schema 4 gets the sums of its storage.
func testStorageUpgrade(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	for i, key := range []string{"k", "k", "l"} {
		if err := s.ReserveBlob(ctx, store.Blob{Name: fmt.Sprint(i), APIKey: key, Bytes: 7}, 100, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddFeedback(ctx, store.Feedback{ID: "f", APIKey: "k", Counts: "four", Comment: "ok", Created: now}, 6); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`DROP TABLE storage`, `CREATE INDEX blobs_api_key ON blobs (api_key)`,
		`ALTER TABLE jobs DROP COLUMN request_id`, `ALTER TABLE job_webhooks DROP COLUMN river_id`, `ALTER TABLE feedback DROP COLUMN item`,
		`ALTER TABLE idempotency DROP COLUMN begun_us`, `ALTER TABLE idempotency DROP COLUMN lease_us`, `DROP TABLE job_keys`,
		`DELETE FROM goose_db_version WHERE version_id >= 5`,
	} {
		storetest.Exec(t, s, statement)
	}
	s = open(t, cfg)
	for key, want := range map[string]int64{"k": 14, "l": 7} {
		if n, err := s.Stored(ctx, key); err != nil || n != want {
			t.Errorf("%s has %d bytes, want %d: %v", key, n, want, err)
		}
	}
	if err := s.AddFeedback(ctx, store.Feedback{ID: "g", APIKey: "k", Comment: "!", Created: now}, 6); !errors.Is(err, store.ErrQuota) {
		t.Errorf("%v", err)
	}
}
