package tests_test

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	settingRow  = regexp.MustCompile("(?m)^\\| (`(?:REFERSAM|OTEL)_[A-Z_`, ]+) \\| ([^|]*) \\|")
	settingName = regexp.MustCompile("(?:REFERSAM|OTEL)_[A-Z_]+")
)

// The handbook names all settings and no others, with the defaults that the program
// has.
func TestDocsSettings(t *testing.T) {
	written := make(map[string]string) // the default of each variable
	for _, row := range settingRow.FindAllStringSubmatch(readFile(t, "docs/operations.md"), -1) {
		for _, name := range settingName.FindAllString(row[1], -1) {
			written[name] = row[2]
		}
	}
	for line := range strings.Lines(command(t, shippedModels, executable, "config")) {
		fields := strings.Fields(line) // name, value if there is one, source
		name, value := fields[0], strings.Join(fields[1:len(fields)-1], " ")
		standard, known := written[name]
		if !known {
			t.Errorf("docs/operations.md does not name %s", name)
		} else if value != "" && !sameSetting(standard, value) {
			t.Errorf("docs/operations.md says that the default of %s is %q, and it is %q", name, standard, value)
		}
		delete(written, name)
	}
	for name := range written {
		if strings.HasPrefix(name, "OTEL_") {
			continue // OpenTelemetry's own library reads more of them
		}
		t.Errorf("docs/operations.md names %s, which refersam config does not know", name)
	}
}

// sameSetting reports whether a default in words begins with a value, such as
// "60s", "`auto`" or "268,435,456 (256 MiB)" with 1m0s, auto and 268435456.
func sameSetting(words, value string) bool {
	first, _, _ := strings.Cut(strings.Trim(words, "`"), " ")
	first = strings.TrimRight(first, ",;:`")
	if want, err := time.ParseDuration(value); err == nil {
		got, err := time.ParseDuration(first)
		return err == nil && got == want
	}
	return strings.ReplaceAll(first, ",", "") == value
}
