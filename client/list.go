package client

import (
	"context"
	"errors"
	"iter"
	"maps"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json/jsontext"
)

// list yields the entries of all pages of a list. name is the JSON member that
// holds the entries.
func list[T any](ctx context.Context, c *Client, path, name string, query url.Values) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		at := url.Values{"limit": {"100"}}
		maps.Copy(at, query)
		for {
			entries, next, err := getPage[T](ctx, c, call{method: http.MethodGet, path: path, query: at}, name)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range entries {
				if !yield(&entries[i], nil) {
					return
				}
			}
			if next == "" {
				return
			}
			at.Set("cursor", next)
		}
	}
}

// getPage returns the entries of a page and the cursor of the next page, or "" if
// it is the last page.
func getPage[T any](ctx context.Context, c *Client, r call, name string) (entries []T, next string, err error) {
	a, err := c.send(ctx, r)
	if err != nil {
		return nil, "", err
	}
	page, err := parse[map[string]jsontext.Value](a)
	if err != nil {
		return nil, "", err
	}
	if err := decode((*page)[name], &entries); err != nil {
		return nil, "", a.unreadable(err)
	}
	if after, more := (*page)["next"]; more {
		if err := decode(after, &next); err != nil {
			return nil, "", a.unreadable(err)
		}
	}
	if next != "" && next == r.query.Get("cursor") { // an endless loop otherwise
		return nil, "", a.unreadable(errors.New("the next page is the same page"))
	}
	return entries, next, nil
}
