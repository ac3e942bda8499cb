//go:build !heic

package preprocess

import (
	"errors"

	"github.com/refersam/refersam"
)

// openHEIC refuses: its codec is libheif, compiled to WebAssembly, which only
// builds that ask for it carry.
func openHEIC([]byte, *Config) (*source, error) {
	return nil, fail(refersam.CodeUnsupportedMedia, errors.New("built without HEIC; make build HEIC=1 has it"),
		"HEIC is not accepted here; send the picture as JPEG or PNG.")
}
