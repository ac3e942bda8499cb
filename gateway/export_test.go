package gateway

import (
	"context"

	"github.com/gin-gonic/gin"
)

// HandleOnce adds a route that stores something.
func (g *Gateway) HandleOnce(path string, h func(*gin.Context) error) {
	b := g.newBodies(20 << 20)
	g.engine.POST(path, g.newDoor().require(anyScope), g.newIdempotency(b).middleware(b.pictureLimit), handle(h))
}

// RenewSlots does what upkeep does at its interval.
func (g *Gateway) RenewSlots(ctx context.Context) { g.access.Renew(ctx) }

// Flush writes counted usage.
func (g *Gateway) Flush(ctx context.Context) error { return g.access.Flush(ctx) }

// Forget makes the gateway look keys up again.
func (g *Gateway) Forget() { g.access.Forget() }

// Routes returns the routes that gin serves.
func (g *Gateway) Routes() gin.RoutesInfo { return g.engine.Routes() }
