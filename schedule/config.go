package schedule

import (
	"errors"
	"fmt"
	"time"
)

// Mode is how rows become batches.
type Mode string

// The modes.
const (
	// Adaptive sends what there is to a replica that is idle, and lets rows wait
	// for company while the replica could not start on them anyway.
	Adaptive Mode = "adaptive"
	// Fixed waits MaxWait for MaxRows rows.
	Fixed Mode = "fixed"
	// Off sends the rows of each request by themselves.
	Off Mode = "off"
)

// Settings are the values that can be changed while requests are served.
type Settings struct {
	// Mode is how rows become batches: "adaptive", "fixed" or "off". Default
	// "adaptive".
	Mode Mode `env:"REFERSAM_BATCH_MODE" json:"mode"`
	// MaxRows is how many rows a batch has at most. 0 and values above the model's
	// maximum mean the model's maximum. Default 0.
	MaxRows int `env:"REFERSAM_BATCH_MAX_ROWS" json:"max_rows"`
	// MaxWait is how long rows wait for company while a replica has room for
	// them: in mode "fixed" until the batch is full, in mode "adaptive" at most,
	// where 0 sets no bound. Default 0.
	MaxWait time.Duration `env:"REFERSAM_BATCH_MAX_WAIT" json:"-"`
	// Percentile is how sure a predicted finish must be, in percent of the
	// batches that are no later than predicted. Default 99.
	Percentile float64 `env:"REFERSAM_BATCH_PERCENTILE" json:"percentile"`
	// Admission refuses at the door what is predicted to miss its deadline.
	// Without it requests wait until they are answered or late. Default true.
	Admission bool `env:"REFERSAM_ADMISSION" json:"admission"`
	// Hedge sends a batch that is later than 19 of 20 to a second, idle replica
	// too and takes the first answer. Default false.
	Hedge bool `env:"REFERSAM_HEDGE" json:"hedge"`
}

// Config says how rows are scheduled.
type Config struct {
	Settings
	// MaxQueueRows is how many rows may wait, including rows of pictures that are
	// still being decoded. Default 4096.
	MaxQueueRows int `env:"REFERSAM_MAX_QUEUE_ROWS"`
	// MaxQueueBytes is how much memory the pictures of waiting rows may take.
	// Default 1073741824 (1 GiB).
	MaxQueueBytes int64 `env:"REFERSAM_MAX_QUEUE_BYTES"`
	// MaxWindow is how many batches a replica may have at once. How many it
	// gets is found out. Default 8.
	MaxWindow int `env:"REFERSAM_MAX_WINDOW"`
	// StartWindow is how many a new replica gets to begin with, from 2 to
	// MaxWindow. It is for measurements that cannot wait until the window has
	// opened. A window that is too large closes by one batch per second.
	// Default 2.
	StartWindow int `env:"-"`
	// RetryBudget is the part of all rows that may be tried a second time, in
	// [0, 1]. Default 0.1.
	RetryBudget float64 `env:"REFERSAM_RETRY_BUDGET"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Settings:      Settings{Mode: Adaptive, Percentile: 99, Admission: true},
		MaxQueueRows:  4096,
		MaxQueueBytes: 1 << 30,
		MaxWindow:     8,
		RetryBudget:   0.1,
	}
}

// Validate reports everything that is wrong with s.
func (s *Settings) Validate() error {
	return s.validate("mode", "max rows", "max wait", "percentile")
}

// validate names each setting as its reader does.
func (s *Settings) validate(mode, maxRows, maxWait, percentile string) error {
	var errs []error
	switch s.Mode {
	case Adaptive, Fixed, Off:
	default:
		errs = append(errs, fmt.Errorf("%s is %q, allowed: %s, %s, %s", mode, s.Mode, Adaptive, Fixed, Off))
	}
	if s.MaxRows < 0 {
		errs = append(errs, fmt.Errorf("%s is %d, allowed: 0 or more", maxRows, s.MaxRows))
	}
	if s.MaxWait < 0 || s.MaxWait > time.Minute {
		errs = append(errs, fmt.Errorf("%s is %v, allowed: 0s to 1m", maxWait, s.MaxWait))
	}
	if !(s.Percentile >= 50 && s.Percentile < 100) {
		errs = append(errs, fmt.Errorf("%s is %g, allowed: from 50 to less than 100", percentile, s.Percentile))
	}
	return errors.Join(errs...)
}

// Validate reports everything that is wrong with c.
func (c *Config) Validate() error {
	var errs []error
	err := c.validate("REFERSAM_BATCH_MODE", "REFERSAM_BATCH_MAX_ROWS", "REFERSAM_BATCH_MAX_WAIT", "REFERSAM_BATCH_PERCENTILE")
	if err != nil {
		errs = append(errs, err)
	}
	if c.MaxQueueRows <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_QUEUE_ROWS is %d, allowed: 1 or more", c.MaxQueueRows))
	}
	if c.MaxQueueBytes <= 0 {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_QUEUE_BYTES is %d, allowed: 1 or more", c.MaxQueueBytes))
	}
	if c.MaxWindow < 1 || c.MaxWindow > 64 {
		errs = append(errs, fmt.Errorf("REFERSAM_MAX_WINDOW is %d, allowed: 1 to 64", c.MaxWindow))
	}
	if !(c.RetryBudget >= 0 && c.RetryBudget <= 1) {
		errs = append(errs, fmt.Errorf("REFERSAM_RETRY_BUDGET is %g, allowed: 0 to 1", c.RetryBudget))
	}
	return errors.Join(errs...)
}
