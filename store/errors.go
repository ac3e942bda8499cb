package store

import "github.com/refersam/refersam"

// Unavailable returns refersam.Unavailable for the database.
func Unavailable(cause error) error {
	return refersam.Unavailable("The database of the service is not available; retry shortly.", cause)
}
