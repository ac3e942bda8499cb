package gateway

import (
	"github.com/gin-gonic/gin"
)

// HandleOnce adds a route that stores something.
func (g *Gateway) HandleOnce(path string, h func(*gin.Context) error) {
	b := g.newBodies(20 << 20)
	g.engine.POST(path, g.newDoor().require(anyScope), g.newIdempotency(b).middleware(b.pictureLimit), handle(h))
}

// Routes returns the routes that gin serves.
func (g *Gateway) Routes() gin.RoutesInfo { return g.engine.Routes() }
