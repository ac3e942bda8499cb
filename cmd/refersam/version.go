package main

import (
	"fmt"

	"github.com/refersam/refersam/gateway"
)

type versionCommand struct{}

// Run prints the build.
func (*versionCommand) Run(m *Main) error {
	b := gateway.ReadBuild()
	revision := b.Revision
	if revision == "" {
		revision = "unknown revision"
	}
	if b.Modified {
		revision += ", modified"
	}
	_, err := fmt.Fprintf(m.Stdout, "refersam %s (%s, %s)\n", b.Version, revision, b.Go)
	return err
}
