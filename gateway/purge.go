package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/refersam/refersam/store"
	"golang.org/x/sync/errgroup"
)

// Retention forgets what has been kept long enough; *store.Store is one.
type Retention interface {
	DeleteExpiredImages(ctx context.Context, now time.Time) (int64, error)
	DeleteExpiredJobs(ctx context.Context, now time.Time) (int64, error)
	// TakeGarbage hands every object to one caller only.
	TakeGarbage(ctx context.Context, limit int, now time.Time) ([]store.Blob, error)
	KnowsBlob(ctx context.Context, name string) (bool, error)
}

// Purged tells what a purge has deleted.
type Purged struct {
	// Images and Jobs have expired; Objects of so many Bytes were left of them
	// and of others.
	Images, Jobs, Objects, Bytes int64
}

const (
	// garbageBatch is how many rows are deleted in one transaction.
	garbageBatch = 100
	// deletesAtOnce is how many objects are deleted at the same time: a bucket
	// answers as slowly as 50 ms.
	deletesAtOnce = 16
	// strayAge is how old an object must be to be a stray: whoever writes one
	// makes its row before.
	strayAge = 24 * time.Hour
	// purgeTimeout bounds one round of a gateway's own purging.
	purgeTimeout = 5 * time.Minute
)

// Purge deletes what has expired, while gateways go on and others may purge.
func Purge(ctx context.Context, state Retention, bucket Blobs, now time.Time) (p Purged, err error) {
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

// deleteObjects deletes objects that have no row any more: it tries all of them,
// since nobody else will.
func deleteObjects(ctx context.Context, bucket Blobs, garbage []store.Blob) error {
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

// Sweep deletes strays: objects that a crash has left without a row.
func Sweep(ctx context.Context, state Retention, bucket Blobs, now time.Time) (strays int64, err error) {
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

// purgeRegularly purges every sweepInterval until ctx ends.
func (g *Gateway) purgeRegularly(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, purgeTimeout)
		purged, err := Purge(bounded, g.state, g.blobs, time.Now())
		cancel()
		if err != nil && ctx.Err() == nil {
			g.log.Warn("what has expired was not deleted", "cause", err)
		}
		if purged != (Purged{}) {
			g.log.Info("deleted what had expired", "images", purged.Images, "jobs", purged.Jobs, "objects", purged.Objects, "bytes", purged.Bytes)
		}
	}
}
