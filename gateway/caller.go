package gateway

import (
	"github.com/gin-gonic/gin"
	"github.com/refersam/refersam/answer"
	"github.com/refersam/refersam/api"
	"github.com/refersam/refersam/gateway/intake"
)

// checkUnit is middleware that refuses a unit that is not a valid name.
func checkUnit(c *gin.Context) {
	if err := intake.CheckID(api.HeaderUnitID, c.GetHeader(api.HeaderUnitID)); err != nil {
		fail(c, err)
	}
}

// caller identifies the client of a request.
func caller(c *gin.Context) answer.Caller {
	unit := c.GetHeader(api.HeaderUnitID)
	if unit == "" {
		unit = c.ClientIP()
	}
	return answer.Caller{RequestID: requestID(c), Account: account(c), FairnessKey: fairnessKey(c), Unit: unit}
}

// fairnessKey is the client among which scarce capacity is shared evenly: the API
// key or, without authentication, the address.
func fairnessKey(c *gin.Context) string {
	if key := apiKey(c); key != nil {
		return key.ID
	}
	return c.ClientIP()
}
