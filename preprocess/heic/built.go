// Package heic reads the primary picture of a HEIC file, in builds with the tag
// heic.
package heic

import "errors"

// ErrNotBuilt is the error of Open in a build without the tag heic.
var ErrNotBuilt = errors.New("built without HEIC; make build HEIC=1 has it")
