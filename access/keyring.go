package access

import (
	"context"
	"errors"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/refersam/refersam/store"
)

// Keys looks keys up; *store.Store is one.
type Keys interface {
	// Key returns the key with an id, or store.ErrNotFound.
	Key(ctx context.Context, id string) (*store.Key, error)
	Keys(ctx context.Context) ([]*store.Key, error)
}

const (
	// keyMemory is how long a gateway believes what it read about a key: after
	// that time every gateway refuses a key that was revoked.
	keyMemory = 2 * time.Second
	// maxKeys bounds how many ids the keyring remembers, including ids that
	// belong to no key.
	maxKeys = 10_000
)

// keyring caches keys for keyMemory.
type keyring struct {
	keys  Keys
	cache *otter.Cache[string, cachedKey]
}

type cachedKey struct {
	key *store.Key // nil when there is none
	// asked is when the database was asked. The time to live counts from then,
	// so that keyMemory holds however long the database took.
	asked time.Time
}

func newKeyring(keys Keys) (*keyring, error) {
	cache, err := otter.New(&otter.Options[string, cachedKey]{
		MaximumSize: maxKeys,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, cachedKey]) time.Duration {
			return max(time.Nanosecond, keyMemory-time.Since(e.Value.asked))
		}),
	})
	return &keyring{keys, cache}, err
}

// get returns the key with an id, or nil if there is none. Requests that ask for
// one id at the same time share one query.
func (r *keyring) get(ctx context.Context, id string) (*store.Key, error) {
	cached, err := r.cache.Get(ctx, id, otter.LoaderFunc[string, cachedKey](func(ctx context.Context, id string) (cachedKey, error) {
		asked := time.Now()
		// A client that disconnects must not fail the query for the others.
		ctx, cancel := withStateTimeout(context.WithoutCancel(ctx))
		defer cancel()
		key, err := r.keys.Key(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		return cachedKey{key, asked}, err
	}))
	return cached.key, err
}

// Forget drops what the gate remembers of keys, so that a change shows at once.
func (g *Gate) Forget() { g.keyring.cache.InvalidateAll() }
