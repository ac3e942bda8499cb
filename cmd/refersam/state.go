package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/images"
	"github.com/refersam/refersam/store"
)

// dataFlag is the flag for the folder of the state, for commands that use it.
type dataFlag struct {
	Data string `placeholder:"DIR" help:"Folder of the SQLite database and of the working files of “up”. Default: REFERSAM_DATA, else var."`
}

func (f *dataFlag) apply(cfg *Config) {
	if f.Data != "" {
		cfg.Store.Data = f.Data
	}
}

// withStore calls use with the database of a service, which must exist.
func (f *dataFlag) withStore(ctx context.Context, cfg *Config, use func(*store.Store) error) error {
	return f.with(ctx, cfg, store.OpenExisting, use)
}

// withNewStore calls use with the database of a service, and creates it first if
// it does not exist.
func (f *dataFlag) withNewStore(ctx context.Context, cfg *Config, use func(*store.Store) error) error {
	return f.with(ctx, cfg, store.Open, use)
}

func (f *dataFlag) with(ctx context.Context, cfg *Config, open func(context.Context, store.Config) (*store.Store, error), use func(*store.Store) error) error {
	f.apply(cfg)
	s, err := open(ctx, cfg.Store)
	if err != nil {
		return err
	}
	return errors.Join(use(s), s.Close())
}

type backupCommand struct {
	dataFlag
	File string `arg:"" help:"The copy to write. The file must not exist yet."`
}

// Run makes a copy and checks it.
func (c *backupCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	return c.withStore(ctx, cfg, func(s *store.Store) error {
		if err := s.Backup(ctx, c.File); err != nil {
			return err
		}
		fmt.Fprintf(m.Stdout, "%s is a complete copy of the database\n", c.File)
		return nil
	})
}

type restoreCommand struct {
	dataFlag
	File string `arg:"" help:"A file written by refersam backup."`
}

// Run replaces the database.
func (c *restoreCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	if cfg.Store.DatabaseURL != "" {
		return errors.New("REFERSAM_DATABASE_URL is set, so the state is in PostgreSQL: use pg_restore")
	}
	c.apply(cfg)
	if err := cfg.Store.Validate(); err != nil {
		return err
	}
	if err := store.Restore(ctx, cfg.Store.Data, c.File); err != nil {
		return err
	}
	fmt.Fprintf(m.Stdout, "the database in %s is now the backup %s; the previous database is refersam.db.old. "+
		"Keys that have been revoked since the backup work again: look at refersam keys list\n", cfg.Store.Data, c.File)
	return nil
}

type purgeCommand struct{ dataFlag }

// Run deletes expired pictures and jobs, also while gateways run.
func (c *purgeCommand) Run(ctx context.Context, m *Main, cfg *Config) error {
	if err := cfg.Blobs.Validate(); err != nil {
		return err
	}
	return c.withStore(ctx, cfg, func(s *store.Store) (err error) {
		open := blobs.Open
		if s.MultiGateway() { // no database in the folder can show that it is the right folder
			open = blobs.OpenExisting
		}
		bucket, err := open(ctx, cfg.Blobs, cfg.Store.Data)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, bucket.Close()) }()
		now := time.Now()
		purged, purgeErr := images.Purge(ctx, s, bucket, now)
		strays, sweepErr := images.Sweep(ctx, s, bucket, now)
		fmt.Fprintf(m.Stdout, "deleted %d expired images and %d expired jobs, %d objects of %d bytes that nothing refers to, and %d objects without a row\n",
			purged.Images, purged.Jobs, purged.Objects, purged.Bytes, strays)
		return errors.Join(purgeErr, sweepErr)
	})
}
