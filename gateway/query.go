package gateway

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
)

// onlyParams refuses a query with a parameter that is not in names, or with a
// parameter twice.
func onlyParams(c *gin.Context, names ...string) error {
	query, err := intake.Query(c.Request)
	if err != nil {
		return err
	}
	for name, values := range query {
		switch {
		case len(names) == 0:
			return refersam.Invalidf(name, "The parameter %q does not exist; this route has no query.", name)
		case !slices.Contains(names, name):
			return refersam.Invalidf(name, "The parameter %q does not exist; the parameters are %s.", name, strings.Join(names, ", "))
		case len(values) > 1:
			return refersam.Invalidf(name, "The parameter %q may be given only once.", name)
		}
		if err := intake.CheckText(name, values[0]); err != nil {
			return err
		}
	}
	return nil
}

// noQuery is middleware for routes that have no query.
func noQuery(c *gin.Context) {
	if err := onlyParams(c); err != nil {
		fail(c, err)
	}
}

// noBody is middleware for routes that change something and accept no body. A
// client that sends one expects more than the route does.
func noBody(c *gin.Context) {
	if c.Request.ContentLength == 0 {
		return
	}
	switch n, err := io.ReadFull(c.Request.Body, make([]byte, 1)); {
	case n > 0:
		fail(c, refersam.Errorf(refersam.CodeInvalidRequest, "This route accepts no body; leave it out."))
	case !errors.Is(err, io.EOF):
		fail(c, intake.ReadError(err))
	default:
		// net/http may drop the body only after it was read to its end. Otherwise
		// net/http would read the rest of it as further requests.
		c.Request.Body, c.Request.ContentLength = http.NoBody, 0
	}
}

// page is the part of a list that a client asks for: at most limit entries after
// the entry with an id, or the newest if the id is empty.
type page struct {
	limit   int
	created time.Time
	id      string
}

// parsePage reads the parameters limit and cursor of a list. names are the other
// parameters that the route accepts.
func parsePage(c *gin.Context, list string, names ...string) (page, error) {
	p := page{limit: api.DefaultPage}
	if err := onlyParams(c, append([]string{"limit", "cursor"}, names...)...); err != nil {
		return p, err
	}
	if value, given := c.GetQuery("limit"); given {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > api.MaxPage {
			return p, refersam.Invalidf("limit", "The limit must be a whole number from 1 to %d.", api.MaxPage)
		}
		p.limit = n
	}
	if value, given := c.GetQuery("cursor"); given {
		created, id, ok := api.ParseCursor(list, value)
		if !ok {
			return p, refersam.Invalidf("cursor", "The cursor must be the next of an earlier page of this list.")
		}
		p.created, p.id = created, id
	}
	return p, nil
}
