package gateway

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

// fail answers with err as application/problem+json and leaves it in the
// context for the access log. It is the one place where an error becomes a
// status.
func fail(c *gin.Context, err error) {
	_ = c.Error(err)
	if errors.Is(c.Request.Context().Err(), context.Canceled) && errors.Is(err, context.Canceled) {
		// Nobody reads this, or a client that has closed its side too early.
		c.AbortWithStatus(statusClientGone)
		return
	}
	p, retryAfter := api.NewProblem(err, requestID(c))
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusConflict:
		if p.Code != refersam.CodeStorageFull { // for which waiting is no cure, though libraries wait by themselves
			c.Header("Retry-After", strconv.Itoa(max(1, int(math.Ceil(retryAfter.Seconds())))))
		}
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // an int and strings of valid UTF-8 always marshal
	}
	c.Writer.Header().Del("ETag") // of what is not answered
	c.Header("Cache-Control", "no-store")
	c.Data(p.Status, api.MediaProblem, body)
	c.Abort()
}

// handle makes a gin handler of one that returns its error.
func handle(h func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			fail(c, err)
		}
	}
}

// problemKind answers what a problem's type stands for.
func problemKind(c *gin.Context) error {
	code := refersam.Code(c.Param("code"))
	description, ok := api.DescribeProblem(code)
	if !ok {
		return refersam.Errorf(refersam.CodeNotFound, "There is no such problem.")
	}
	return writeJSON(c, description)
}

func writeJSON(c *gin.Context, v any) error { return writeStatusJSON(c, http.StatusOK, v) }

func writeStatusJSON(c *gin.Context, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.Data(status, api.MediaJSON, body)
	return nil
}
