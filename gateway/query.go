package gateway

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
)

func parseQuery(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &refersam.Error{
			Code:    refersam.CodeMalformedRequest,
			Message: "The query is not of the form name=value&name=value with percent-encoded values.",
			Err:     err,
		}
	}
	return query, nil
}

// onlyParams refuses a query with other parameters than those of names, or with
// one of them twice.
func onlyParams(c *gin.Context, names ...string) error {
	query, err := parseQuery(c.Request)
	if err != nil {
		return err
	}
	for name, values := range query {
		switch {
		case len(names) == 0:
			return invalid(name, "There is no parameter %q; this route has no query.", name)
		case !slices.Contains(names, name):
			return invalid(name, "There is no parameter %q; there are %s.", name, strings.Join(names, ", "))
		case len(values) > 1:
			return invalid(name, "The parameter %q may be given only once.", name)
		}
		if err := checkText(name, values[0]); err != nil {
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

// noBody is middleware for routes that change something and take no body: who
// sends one means more than the route does.
func noBody(c *gin.Context) {
	if c.Request.ContentLength == 0 {
		return
	}
	switch n, err := io.ReadFull(c.Request.Body, make([]byte, 1)); {
	case n > 0:
		fail(c, refersam.Errorf(refersam.CodeInvalidRequest, "This route takes no body; leave it out."))
	case !errors.Is(err, io.EOF):
		fail(c, bodyError(err))
	default:
		// Only of a body that has come to its end may net/http forget that there
		// was one: it would take the rest for further requests.
		c.Request.Body, c.Request.ContentLength = http.NoBody, 0
	}
}

// listName names a list of the API, whose cursors are for it alone.
type listName string

const (
	listOfImages   listName = "images"
	listOfJobs     listName = "jobs"
	listOfFeedback listName = "feedback"
)

// The bounds of a page of a list.
const (
	defaultPage = 20
	maxPage     = 100
)

// pageOf is what a client asks of a list: at most limit entries, after that of
// an id; from the newest on if that is empty.
type pageOf struct {
	limit   int
	created time.Time
	id      string
}

// page reads the parameters limit and cursor, beside which there may be those of
// names.
func (l listName) page(c *gin.Context, names ...string) (pageOf, error) {
	p := pageOf{limit: defaultPage}
	if err := onlyParams(c, append([]string{"limit", "cursor"}, names...)...); err != nil {
		return p, err
	}
	if value, given := c.GetQuery("limit"); given {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxPage {
			return p, invalid("limit", "The limit must be a whole number from 1 to %d.", maxPage)
		}
		p.limit = n
	}
	if value, given := c.GetQuery("cursor"); given {
		raw, err := base64.RawURLEncoding.DecodeString(value)
		name, rest, _ := strings.Cut(string(raw), " ")
		created, id, _ := strings.Cut(rest, " ")
		us, numErr := strconv.ParseInt(created, 10, 64)
		if err != nil || listName(name) != l || numErr != nil || id == "" || !isText(id) {
			return p, invalid("cursor", "The cursor must be one that this list gave as next.")
		}
		p.created, p.id = time.UnixMicro(us), id
	}
	return p, nil
}

// cursor is what stands for the entries of the list after one of them.
func (l listName) cursor(created time.Time, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(l) + " " + strconv.FormatInt(created.UnixMicro(), 10) + " " + id))
}
