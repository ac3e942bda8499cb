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
)

// addImage adds an image of 10 bytes of the key k.
func addImage(t *testing.T, s *store.Store, id, blob string, created time.Time) *store.Image {
	t.Helper()
	if err := s.ReserveBlob(t.Context(), store.Blob{Name: blob, APIKey: "k", Bytes: 10}, 1000, created); err != nil {
		t.Fatal(err)
	}
	i, err := s.AddImage(t.Context(), store.Image{
		APIKey: "k", ID: id, Blob: blob, Width: 4, Height: 3, MediaType: "image/png", Bytes: 10, Created: created, Expires: created.Add(time.Hour),
	})
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
	// The same again keeps its object and lasts longer.
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
	if got, err := s.RenewImage(ctx, "k", "a", now.Add(2*time.Hour), now); err != nil || !got.Expires.Equal(now.Add(2*time.Hour)) {
		t.Errorf("%+v, %v", got, err)
	}

	// Pages, the newest first; some are of the same moment.
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
	// Every row is taken once, whoever asks.
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
	// What is referred to stays.
	if err := s.ForgetBlob(ctx, "used"); err != nil {
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
}

func testFeedback(t *testing.T, cfg store.Config) {
	s, ctx := open(t, cfg), t.Context()
	want := &store.Feedback{
		ID: "a", APIKey: "k", RequestID: "r", Result: 1, Verdict: "bad", Rating: 2, Height: 2, Width: 4, Counts: "242", Comment: "no", Created: now,
	}
	for range 2 { // again changes nothing
		if err := s.AddFeedback(ctx, *want); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"b", "c"} {
		if err := s.AddFeedback(ctx, store.Feedback{ID: id, APIKey: "k", RequestID: "other", Created: now.Add(time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	var last *store.Feedback
	for {
		page, err := s.Feedback(ctx, last, "", 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, f := range page {
			ids = append(ids, f.ID)
		}
		last = page[len(page)-1]
	}
	if diff := cmp.Diff([]string{"c", "b", "a"}, ids); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Error(diff)
	}
	if only, err := s.Feedback(ctx, nil, "r", 9); err != nil || len(only) != 1 {
		t.Errorf("%v, %v", only, err)
	}
}
