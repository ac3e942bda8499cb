//go:build !heic

package preprocess_test

import (
	"strings"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
)

// A build without HEIC says what to do about it.
func TestHEIC_Refused(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	_, err := decode(t.Context(), d, readFile(t, "testdata/heic/420.heic"))
	if refersam.ErrorCode(err) != refersam.CodeUnsupportedMedia || !strings.Contains(err.Error(), "JPEG or PNG") {
		t.Errorf("error %v", err)
	}
}
