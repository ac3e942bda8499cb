package images

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/refersam/refersam/store"
	"golang.org/x/sync/errgroup"
)

// Retention deletes rows that have expired; *store.Store is one.
type Retention interface {
	DeleteExpiredImages(ctx context.Context, now time.Time) (int64, error)
	DeleteExpiredJobs(ctx context.Context, now time.Time) (int64, error)
	// TakeGarbage returns objects that nothing refers to, each to one caller only.
	TakeGarbage(ctx context.Context, limit int, now time.Time) ([]store.Blob, error)
	KnowsBlob(ctx context.Context, name string) (bool, error)
}

// Purged counts what a purge deleted.
type Purged struct {
	// Images and Jobs are rows that had expired. Objects, of Bytes in all, are
	// objects that nothing referred to any more.
	Images, Jobs, Objects, Bytes int64
}

const (
	// garbageBatch is how many rows are deleted in one transaction.
	garbageBatch = 100
	// deletesAtOnce is how many objects are deleted at the same time, because an
	// object store may take 50 ms for each.
	deletesAtOnce = 16
	// strayAge is how old an object without a row must be until Sweep deletes it.
	// The row is written first, so only a crash leaves such an object.
	strayAge = 24 * time.Hour
	// purgeInterval is how often Run purges, purgeTimeout how long it may take.
	purgeInterval = 10 * time.Minute
	purgeTimeout  = 5 * time.Minute
)

// Purge deletes what has expired. Gateways may serve and other processes may
// purge at the same time.
func Purge(ctx context.Context, state Retention, bucket Bucket, now time.Time) (p Purged, err error) {
	if p.Images, err = state.DeleteExpiredImages(ctx, now); err != nil {
		return p, fmt.Errorf("delete expired images: %w", err)
	}
	if p.Jobs, err = state.DeleteExpiredJobs(ctx, now); err != nil {
		return p, fmt.Errorf("delete expired jobs: %w", err)
	}
	for {
		garbage, err := state.TakeGarbage(ctx, garbageBatch, now)
		if err != nil {
			return p, fmt.Errorf("find objects that nothing refers to: %w", err)
		}
		if len(garbage) == 0 {
			return p, nil
		}
		if err := deleteObjects(ctx, bucket, garbage); err != nil {
			return p, err
		}
		for _, b := range garbage {
			p.Objects++
			p.Bytes += b.Bytes
		}
	}
}

// deleteObjects deletes objects that have lost their rows. It tries all of them even
// after an error, because no other purge will see them.
func deleteObjects(ctx context.Context, bucket Bucket, garbage []store.Blob) error {
	errs := make([]error, len(garbage))
	var group errgroup.Group
	group.SetLimit(deletesAtOnce)
	for i, b := range garbage {
		group.Go(func() error {
			if errs[i] = bucket.Delete(ctx, b.Name); errs[i] != nil {
				errs[i] = fmt.Errorf("delete the object %s, which is a stray now: %w", b.Name, errs[i])
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	return errors.Join(errs...)
}

// Sweep deletes strays, which are objects that a crash left without a row.
func Sweep(ctx context.Context, state Retention, bucket Bucket, now time.Time) (strays int64, err error) {
	err = bucket.Walk(ctx, func(name string, modified time.Time) error {
		if now.Sub(modified) < strayAge {
			return nil
		}
		known, err := state.KnowsBlob(ctx, name)
		if err != nil || known {
			return err
		}
		strays++
		return bucket.Delete(ctx, name)
	})
	return strays, err
}

// Run purges every 10 minutes until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	ticker := time.NewTicker(purgeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, purgeTimeout)
		purged, err := Purge(bounded, k.state, k.bucket, time.Now())
		cancel()
		if err != nil && ctx.Err() == nil {
			k.log.Warn("could not delete everything that has expired", "cause", err)
		}
		if purged != (Purged{}) {
			k.log.Info("deleted what had expired", "images", purged.Images, "jobs", purged.Jobs, "objects", purged.Objects, "bytes", purged.Bytes)
		}
	}
}
