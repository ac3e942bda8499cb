package storetest

import (
	"testing"

	"github.com/refersam/refersam/store"
)

// Exec runs a statement that has no method of the store.
func Exec(t testing.TB, s *store.Store, statement string, args ...any) {
	t.Helper()
	db, _ := s.River()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// Number returns the result of a query for one integer.
func Number(t testing.TB, s *store.Store, query string, args ...any) (n int64) {
	t.Helper()
	db, _ := s.River()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
