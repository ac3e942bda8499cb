package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam"
	"github.com/refersam/refersam/api"
)

const (
	keyRequestID = "request_id"
	keyVariant   = "variant"
	keyAPIKey    = "api_key"
	keyLease     = "hold"
	keyAttempt   = "attempt"

	// statusClientGone is the status in logs and traces if the client disconnected
	// before the answer. No client receives it.
	statusClientGone = 499
)

var saneID = regexp.MustCompile(api.RequestIDPattern)

// identify uses the id that the client sent if it is valid, or a new one, and
// returns it in the answer's header.
func identify(c *gin.Context) {
	id := c.GetHeader(api.HeaderRequestID)
	if !saneID.MatchString(id) {
		id = rand.Text()
	}
	c.Set(keyRequestID, id)
	c.Header(api.HeaderRequestID, id)
}

func requestID(c *gin.Context) string { return c.GetString(keyRequestID) }

// logAccess logs one line per request: never a phrase, a picture, a query or a
// header other than the request's id.
func logAccess(log *slog.Logger) gin.HandlerFunc {
	return func(c *gin.Context) {
		start := time.Now()
		defer func() { logRequest(c, log, time.Since(start)) }()
		c.Next()
	}
}

func logRequest(c *gin.Context, log *slog.Logger, took time.Duration) {
	level, status := slog.LevelInfo, loggedStatus(c)
	if route := c.FullPath(); route == api.RouteLive || route == api.RouteReady {
		level = slog.LevelDebug // monitoring requests it every few seconds
	}
	attrs := []slog.Attr{
		slog.String("request_id", requestID(c)),
		slog.String("method", c.Request.Method),
		slog.String("route", c.FullPath()),
		slog.Int("status", status),
		slog.Duration("took", took.Round(10*time.Microsecond)),
		slog.Int64("bytes_in", c.Request.ContentLength),
		slog.Int("bytes_out", max(c.Writer.Size(), 0)),
	}
	if key := apiKey(c); key != nil {
		attrs = append(attrs, slog.String("key", key.ID))
	}
	if variant := c.GetString(keyVariant); variant != "" {
		attrs = append(attrs, slog.String("variant", variant))
	}
	if last := c.Errors.Last(); last != nil && status != statusClientGone {
		attrs = append(attrs, slog.String("code", string(refersam.ErrorCode(last.Err))))
		if status >= http.StatusInternalServerError {
			switch {
			case status == http.StatusInternalServerError:
				level = slog.LevelError
			case level == slog.LevelInfo:
				level = slog.LevelWarn
			}
			attrs = append(attrs, slog.String("error", last.Err.Error()))
		}
	}
	log.LogAttrs(c.Request.Context(), level, "request", attrs...)
}

// loggedStatus returns the status of a request's answer for logs and traces.
func loggedStatus(c *gin.Context) int {
	if errors.Is(c.Request.Context().Err(), context.Canceled) && len(c.Errors) > 0 {
		return statusClientGone
	}
	return c.Writer.Status()
}

// recoverPanic answers a panic of a handler with a problem, if the answer has
// not begun.
func recoverPanic(c *gin.Context) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if cause, ok := p.(error); ok && errors.Is(cause, http.ErrAbortHandler) || c.Writer.Written() {
			panic(http.ErrAbortHandler)
		}
		fail(c, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}()
	c.Next()
}

// secure sets the headers that stop a browser from doing more with an answer than
// the page needs.
func secure(c *gin.Context) {
	h := c.Writer.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "+
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// inlineImages is middleware that permits data: images on a page that needs them.
func inlineImages(needed bool) gin.HandlerFunc {
	return func(c *gin.Context) {
		if h := c.Writer.Header(); needed {
			h.Set("Content-Security-Policy", strings.Replace(h.Get("Content-Security-Policy"), "img-src ", "img-src data: ", 1))
		}
	}
}

// withTimeout sets a deadline on the request's context. Use it on routes without an
// upload; uploads have their own read timeout.
func withTimeout(most time.Duration) gin.HandlerFunc {
	return func(c *gin.Context) {
		request := c.Request
		ctx, cancel := context.WithTimeout(request.Context(), most)
		defer func() {
			cancel()
			c.Request = request // outer middleware checks its context for a disconnect
		}()
		c.Request = request.WithContext(ctx)
		c.Next()
	}
}

// limitInFlight refuses a request while n requests are in flight.
func limitInFlight(n int) gin.HandlerFunc {
	slots := make(chan struct{}, n)
	return func(c *gin.Context) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			c.Next()
		default:
			fail(c, refersam.Errorf(refersam.CodeOverloaded, "The service is already processing %d requests, which is its limit; retry shortly.", n))
		}
	}
}
