package gateway

import (
	"context"
	"fmt"
	"time"

	"github.com/refersam/refersam/store"
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
	// garbageBatch is how many objects are deleted at a time.
	garbageBatch = 100
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
		for _, b := range garbage {
			if err := bucket.Delete(ctx, b.Name); err != nil {
				return p, fmt.Errorf("delete the object %s, which is a stray now: %w", b.Name, err)
			}
			p.Objects++
			p.Bytes += b.Bytes
		}
		if len(garbage) < garbageBatch {
			return p, nil
		}
	}
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
