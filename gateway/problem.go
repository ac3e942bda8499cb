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

// fail answers with err as application/problem+json and stores it in the context
// for the access log. It is the only place where an error becomes a status.
func fail(c *gin.Context, err error) {
	_ = c.Error(err)
	if errors.Is(c.Request.Context().Err(), context.Canceled) && errors.Is(err, context.Canceled) {
		// No client reads this, except one that has closed its side too early.
		c.AbortWithStatus(statusClientGone)
		return
	}
	p, retryAfter := api.NewProblem(err, requestID(c))
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusConflict:
		if p.Code != refersam.CodeStorageFull { // retrying does not help when storage is full, but client libraries retry on Retry-After
			c.Header("Retry-After", strconv.Itoa(max(1, int(math.Ceil(retryAfter.Seconds())))))
		}
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // an int and strings of valid UTF-8 always marshal
	}
	c.Writer.Header().Del("ETag") // it belongs to the answer that is not sent
	c.Header("Cache-Control", "no-store")
	c.Data(p.Status, api.MediaProblem, body)
	c.Abort()
}

// handle makes a gin handler of a function that returns an error.
func handle(h func(*gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := h(c); err != nil {
			fail(c, err)
		}
	}
}

// problemKind answers GET /problems/{code} with the description of a code.
func problemKind(c *gin.Context) error {
	code := refersam.Code(c.Param("code"))
	description, ok := api.DescribeProblem(code)
	if !ok {
		return refersam.Errorf(refersam.CodeNotFound, "The problem does not exist.")
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
