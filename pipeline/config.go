package pipeline

import (
	"errors"
	"fmt"
	"time"

	"github.com/refersam/refersam/schedule"
)

// Config says how pictures and phrases go through the pipeline.
type Config struct {
	// Required are variants that must be there. One that is missing at the start is
	// an error, and one that is missing later is reported as unusable. RequiredBy
	// says in that error which setting names them.
	Required   []string `env:"-"`
	RequiredBy string   `env:"-"`
	// MaxPhrases is how many phrases one request may ask. Default 32.
	MaxPhrases int `env:"REFERSAM_MAX_PHRASES"`
	// MaxPhraseBytes is how long one phrase may be, in bytes of UTF-8 in
	// Unicode's form NFC. Default 1,000.
	MaxPhraseBytes int `env:"REFERSAM_MAX_PHRASE_BYTES"`
	// MaxMaskPixels bounds the work for one answer: the pixels of the picture times
	// the number of phrases. Default 268,435,456.
	MaxMaskPixels int `env:"REFERSAM_MAX_MASK_PIXELS"`
	// Workers is how many CPU-bound steps (decode and resize of a picture,
	// upsampling and encoding of a mask) run at once over all requests, and so
	// how many masks there are at once. Default 0, the number of CPUs.
	Workers int `env:"REFERSAM_WORKERS"`
	// RefreshInterval is how often the served models are looked at again, so
	// that a new checkpoint or a lost server is noticed. Default 10s.
	RefreshInterval time.Duration `env:"REFERSAM_REFRESH_INTERVAL"`
	// LearnTimeout bounds one look at the served models, a real inference on
	// each of them included. Default 60s.
	LearnTimeout time.Duration `env:"REFERSAM_LEARN_TIMEOUT"`
	// CacheBytes is the memory for cached answers of models. They are used again
	// when the same phrase is asked of the same picture. 0 caches none. Default
	// 67108864 (64 MiB).
	CacheBytes int64 `env:"REFERSAM_CACHE_BYTES"`
	// CacheTTL is how long a cached answer is kept at most. Default 10m.
	CacheTTL time.Duration `env:"REFERSAM_CACHE_TTL"`
	// Schedule says when and where rows run.
	Schedule schedule.Config
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxPhrases:      32,
		MaxPhraseBytes:  1000,
		MaxMaskPixels:   256 << 20,
		RefreshInterval: 10 * time.Second,
		LearnTimeout:    time.Minute,
		CacheBytes:      64 << 20,
		CacheTTL:        10 * time.Minute,
		Schedule:        schedule.DefaultConfig(),
	}
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	for _, positive := range []struct {
		name  string
		value int64
	}{
		{"REFERSAM_MAX_PHRASES", int64(c.MaxPhrases)},
		{"REFERSAM_MAX_PHRASE_BYTES", int64(c.MaxPhraseBytes)},
		{"REFERSAM_MAX_MASK_PIXELS", int64(c.MaxMaskPixels)},
	} {
		if positive.value <= 0 {
			errs = append(errs, fmt.Errorf("%s is %d, allowed: 1 or more", positive.name, positive.value))
		}
	}
	for _, positive := range []struct {
		name  string
		value time.Duration
	}{
		{"REFERSAM_REFRESH_INTERVAL", c.RefreshInterval},
		{"REFERSAM_LEARN_TIMEOUT", c.LearnTimeout},
		{"REFERSAM_CACHE_TTL", c.CacheTTL},
	} {
		if positive.value <= 0 {
			errs = append(errs, fmt.Errorf("%s is %v, allowed: more than 0s", positive.name, positive.value))
		}
	}
	if c.Workers < 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_WORKERS is %d, allowed: 0 or more", c.Workers))
	}
	if c.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_CACHE_BYTES is %d, allowed: 0 or more", c.CacheBytes))
	}
	return errors.Join(append(errs, c.Schedule.Validate())...)
}
