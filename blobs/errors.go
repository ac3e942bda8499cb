package blobs

import "github.com/refersam/refersam"

// Unavailable returns refersam.Unavailable for the storage.
func Unavailable(cause error) error {
	return refersam.Unavailable("The storage of the service is not available; retry shortly.", cause)
}
