package gateway

import (
	"context"
	"crypto/sha256"

	"github.com/refersam/refersam"
)

// picture is an encoded picture exactly as it came, and its SHA-256.
type picture struct {
	content []byte
	digest  [sha256.Size]byte
}

// picture brings the picture of a request. What is not in the request itself
// is counted to h.
func (g *Gateway) picture(_ context.Context, _ asker, s *source, _ *hold) (*picture, error) {
	if s.data == nil && (s.id != "" || s.url != "") {
		err := refersam.Errorf(refersam.CodeInvalidRequest, "This service takes pictures in the request alone.")
		err.Field = s.field
		return nil, err
	}
	return &picture{s.data, sha256.Sum256(s.data)}, nil
}
