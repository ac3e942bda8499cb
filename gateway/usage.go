package gateway

import (
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/access"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/store"
)

// usageDays is how many days GET /v1/usage returns by default, maxUsageDays how
// many at most.
const (
	usageDays    = 30
	maxUsageDays = 366
)

// usageRoutes is the route for usage.
type usageRoutes struct{ meter *access.Meter }

// get answers GET /v1/usage: the usage of the client's key or, with the scope
// admin, of one key or all keys.
func (h *usageRoutes) get(c *gin.Context) error {
	if err := onlyParams(c, "from", "to", "key"); err != nil {
		return err
	}
	from, to, err := usageRange(c, time.Now().UTC())
	if err != nil {
		return err
	}
	wanted, named := c.GetQuery("key")
	if named && wanted == "" {
		return refersam.Invalidf("key", "The id of the key is empty; leave the parameter out for all keys.")
	}
	if key := apiKey(c); key != nil && !key.Has(store.ScopeAdmin) {
		if wanted != "" && wanted != key.ID {
			return forbidden(c, store.ScopeAdmin)
		}
		wanted = key.ID
	}
	used, err := h.meter.Usage(c.Request.Context(), wanted, from, to)
	if err != nil {
		return err
	}
	answer := api.Usage{From: from, To: to, Usage: []api.UsageDay{}}
	for _, u := range used {
		answer.Usage = append(answer.Usage, api.UsageDay{Day: u.Day, Key: u.Key, Requests: u.Requests, Pictures: u.Pictures, GPUMS: api.Milliseconds(u.GPU)})
	}
	c.Header("Cache-Control", "no-store")
	return writeJSON(c, answer)
}

// usageRange returns the first and the last day that a client asks for.
func usageRange(c *gin.Context, now time.Time) (from, to string, err error) {
	last, err := day(c, "to", now)
	if err != nil {
		return "", "", err
	}
	first, err := day(c, "from", last.AddDate(0, 0, 1-usageDays))
	if err != nil {
		return "", "", err
	}
	if first.After(last) || last.Sub(first) >= maxUsageDays*24*time.Hour {
		return "", "", refersam.Invalidf("from", "The range may have at most %d days, and from must not be after to.", maxUsageDays)
	}
	return first.Format(time.DateOnly), last.Format(time.DateOnly), nil
}

func day(c *gin.Context, name string, unless time.Time) (time.Time, error) {
	value, given := c.GetQuery(name)
	if !given {
		return unless, nil
	}
	t, err := time.Parse(time.DateOnly, value)
	if err != nil {
		return t, refersam.Invalidf(name, "The day must be written as 2026-11-22, in UTC.")
	}
	return t, nil
}
