package main

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/refersam/refersam/blobs"
	"github.com/refersam/refersam/experiment"
	"github.com/refersam/refersam/fetch"
	"github.com/refersam/refersam/gateway"
	"github.com/refersam/refersam/jobs"
	"github.com/refersam/refersam/pipeline"
	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/store"
	"github.com/refersam/refersam/telemetry"
	"github.com/refersam/refersam/triton"
	"github.com/refersam/refersam/triton/local"
)

const envPrefix = "REFERSAM_"

// foreign are the variables with our prefix that only the Python package reads.
var foreign = []string{"REFERSAM_EMOJI_FONT"}

// Config is the configuration of all packages.
type Config struct {
	Log        telemetry.LogConfig
	Traces     telemetry.TraceConfig
	Gateway    gateway.Config
	Store      store.Config
	Blobs      blobs.Config
	Jobs       jobs.Config
	Fetch      fetch.Config
	Experiment experiment.Config
	Pipeline   pipeline.Config
	Preprocess preprocess.Config
	Triton     triton.Config
	Local      local.Config

	environ  map[string]string
	firstKey bool // set only by the command line
}

// loadConfig returns the defaults overlaid with the environment. Values that the
// command does not need may be missing.
func loadConfig(environ []string) (*Config, error) {
	cfg := &Config{
		Log:        telemetry.DefaultLogConfig(),
		Traces:     telemetry.DefaultTraceConfig(),
		Gateway:    gateway.DefaultConfig(),
		Store:      store.DefaultConfig(),
		Jobs:       jobs.DefaultConfig(),
		Fetch:      fetch.DefaultConfig(),
		Pipeline:   pipeline.DefaultConfig(),
		Preprocess: preprocess.DefaultConfig(),
		Triton:     triton.DefaultConfig(),
		Local:      local.DefaultConfig(),
		environ:    env.ToMap(environ),
	}
	errs := cfg.parse()
	if err := cfg.Log.Validate(); err != nil { // every command logs
		errs = append(errs, err)
	}
	if unknown := cfg.unknown(); len(unknown) > 0 {
		errs = append(errs, fmt.Errorf("no such variable: %s; “refersam config” lists them", strings.Join(unknown, ", ")))
	}
	if len(errs) > 0 { // report other faults together with these
		return nil, errors.Join(append(errs, cfg.validate(), cfg.Local.Validate(), cfg.validateTriton())...)
	}
	return cfg, nil
}

// parse reads each variable that is set. A variable that cannot be read keeps
// its default and is an error with its name, its value and what is allowed.
func (c *Config) parse() (errs []error) {
	c.visit(func(name string, field reflect.StructField, value reflect.Value) {
		if !c.isSet(name) {
			return
		}
		text := c.environ[name]
		// One field at a time, because the library's errors name the field and not the variable.
		alone := reflect.New(reflect.StructOf([]reflect.StructField{field}))
		alone.Elem().Field(0).Set(value)
		if err := env.ParseWithOptions(alone.Interface(), env.Options{Environment: map[string]string{name: text}}); err != nil {
			errs = append(errs, fmt.Errorf("%s is %q, allowed: %s", name, text, allowed(field.Type)))
			return
		}
		value.Set(alone.Elem().Field(0))
	})
	return errs
}

// allowed describes how values of a type are written.
func allowed(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration, such as 500ms, 30s or 2m"
	case reflect.TypeFor[slog.Level]():
		return "DEBUG, INFO, WARN or ERROR"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	}
	return "a value of type " + t.String()
}

// validate reports all faults of the settings that every command needs.
func (c *Config) validate() error {
	return errors.Join(c.Traces.Validate(), c.Gateway.Validate(), c.Store.Validate(), c.Blobs.Validate(), c.Jobs.Validate(), c.Fetch.Validate(), c.Experiment.Validate(), c.Pipeline.Validate(), c.Preprocess.Validate())
}

// validateTriton reports all faults of the connection to Triton. It accepts an
// empty list of servers, because “refersam up” starts its own.
func (c *Config) validateTriton() error {
	connection := c.Triton
	if len(connection.Addresses) == 0 {
		connection.Addresses = []string{"127.0.0.1:8001"}
	}
	return connection.Validate()
}

// variable is one value of the configuration.
type variable struct {
	name, value, source string
}

// variables lists all values in the order of their declaration.
func (c *Config) variables() []variable {
	var list []variable
	c.visit(func(name string, _ reflect.StructField, value reflect.Value) {
		source := "default"
		if c.isSet(name) {
			source = "environment"
		}
		list = append(list, variable{name, format(value), source})
	})
	return list
}

// isSet reports whether the environment sets a variable. An empty variable leaves
// the default.
func (c *Config) isSet(name string) bool { return c.environ[name] != "" }

// visit calls f for every field that a variable sets, in the order of their
// declaration.
func (c *Config) visit(f func(name string, field reflect.StructField, value reflect.Value)) {
	var fields func(v reflect.Value)
	fields = func(v reflect.Value) {
		for field, value := range v.Fields() {
			name := field.Tag.Get("env")
			switch {
			case name == "-":
			case name != "":
				f(name, field, value)
			case field.IsExported() && field.Type.Kind() == reflect.Struct:
				fields(value)
			}
		}
	}
	fields(reflect.ValueOf(c).Elem())
}

// unknown lists variables with our prefix that nothing reads: misspelt ones.
func (c *Config) unknown() []string {
	known := c.variables()
	var unknown []string
	for name := range c.environ {
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(foreign, name) {
			continue
		}
		if !slices.ContainsFunc(known, func(v variable) bool { return v.name == name }) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// format writes a value as the environment would.
func format(v reflect.Value) string {
	if list, ok := v.Interface().([]string); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(v.Interface())
}

type configCommand struct{}

// Run prints the configuration as a table. It returns an error if the configuration
// is invalid for any command.
func (*configCommand) Run(m *Main, cfg *Config) error {
	table := tabwriter.NewWriter(m.Stdout, 0, 0, 2, ' ', 0)
	for _, v := range cfg.variables() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", v.name, v.value, v.source)
	}
	return errors.Join(table.Flush(), cfg.validate(), cfg.Local.Validate(), cfg.validateTriton())
}
