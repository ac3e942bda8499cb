//go:build !heic

package heic

import "github.com/refersam/refersam/preprocess/picture"

// Open returns ErrNotBuilt: the codec is libheif, compiled to WebAssembly, and
// only builds with the tag heic have it.
func Open([]byte, picture.Limits) (picture.Source, error) { return nil, ErrNotBuilt }
