package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"
)

const keyColumns = `id, name, scopes, rate, rate_window_us, concurrency, secret_hash, old_hash, old_until_us, created_us, expires_us, revoked_us`

// CreateKey creates a key with the name, scopes, limits and expiry of k.
func (s *accessTables) CreateKey(ctx context.Context, k Key, now time.Time) (Token, error) {
	token := Token{randomText(10), newSecret()}
	scopes := make([]string, len(k.Scopes))
	for i, scope := range k.Scopes {
		scopes[i] = string(scope)
	}
	_, err := s.write.ExecContext(ctx, `INSERT INTO api_keys (`+keyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, 0, $8, $9, 0)`,
		token.ID, k.Name, strings.Join(scopes, " "), k.Rate.Requests, k.Rate.Window.Microseconds(), k.Concurrency,
		hashSecret(token.Secret), micros(now), micros(k.Expires))
	if err != nil {
		return Token{}, err
	}
	return token, nil
}

// Key returns the key with an id, or ErrNotFound.
func (s *accessTables) Key(ctx context.Context, id string) (*Key, error) {
	k, err := scanKey(s.read.QueryRowContext(ctx, `SELECT `+keyColumns+` FROM api_keys WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNotFound
	}
	return k, err
}

// Keys returns all keys, the oldest first.
func (s *accessTables) Keys(ctx context.Context) ([]*Key, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT `+keyColumns+` FROM api_keys ORDER BY created_us, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys []*Key
	for rows.Next() {
		k, err := scanKey(rows)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

func scanKey(row interface{ Scan(...any) error }) (*Key, error) {
	var (
		k                                                   Key
		scopes                                              string
		windowUS, oldUntilUS, createdUS, expiresUS, revoked int64
	)
	err := row.Scan(&k.ID, &k.Name, &scopes, &k.Rate.Requests, &windowUS, &k.Concurrency,
		&k.hash, &k.oldHash, &oldUntilUS, &createdUS, &expiresUS, &revoked)
	if err != nil {
		return nil, err
	}
	for scope := range strings.FieldsSeq(scopes) {
		k.Scopes = append(k.Scopes, Scope(scope))
	}
	k.Rate.Window = time.Duration(windowUS) * time.Microsecond
	k.OldUntil, k.Created, k.Expires, k.Revoked = fromMicros(oldUntilUS), fromMicros(createdUS), fromMicros(expiresUS), fromMicros(revoked)
	return &k, nil
}

// RotateKey gives a key a new secret. The previous one works until oldUntil. A
// revoked key is ErrNotFound.
func (s *accessTables) RotateKey(ctx context.Context, id string, oldUntil time.Time) (Token, error) {
	token := Token{id, newSecret()}
	err := orNotFound(changed(s.write.ExecContext(ctx,
		`UPDATE api_keys SET old_hash = secret_hash, old_until_us = $1, secret_hash = $2 WHERE id = $3 AND revoked_us = 0`,
		micros(oldUntil), hashSecret(token.Secret), id)))
	if err != nil {
		return Token{}, err
	}
	return token, nil
}

// RevokeKey makes a key stop working forever. A second call changes nothing.
func (s *accessTables) RevokeKey(ctx context.Context, id string, now time.Time) error {
	return orNotFound(changed(s.write.ExecContext(ctx,
		`UPDATE api_keys SET revoked_us = CASE revoked_us WHEN 0 THEN $1 ELSE revoked_us END WHERE id = $2`, micros(now), id)))
}
