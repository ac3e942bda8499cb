// Package reply chooses the form of an answer and writes it.
package reply

import (
	"mime"
	"strconv"
	"strings"
)

// Negotiate returns the offer that the Accept header fields prefer (RFC 9110,
// section 12.5.1). It returns the earlier offer if they have no preference, and ""
// if they allow none of the offers.
//
// Libraries break the tie of two equal weights by the order of the Accept header:
// goautoneg and contenttype fail TestSegment_Accept, which wants JSON for
// "image/png, application/json", as clients that list all they can read expect.
func Negotiate(accept []string, offers ...string) string {
	header := strings.Join(accept, ",")
	if strings.TrimSpace(header) == "" {
		return offers[0]
	}
	best, bestQuality := "", 0.0
	for _, offer := range offers {
		if q := quality(header, offer); q > bestQuality {
			best, bestQuality = offer, q
		}
	}
	return best
}

// quality returns the weight, in [0, 1], that an Accept header gives a media type:
// the weight of the most specific range that matches it, or 0 if none does. Ranges
// that cannot be parsed are ignored.
func quality(header, offer string) float64 {
	kind, _, _ := strings.Cut(offer, "/")
	weight, specific := 0.0, 0
	for _, element := range strings.Split(header, ",") {
		mediaRange, params, err := mime.ParseMediaType(strings.TrimSpace(element))
		if err != nil {
			continue
		}
		var precision int
		switch mediaRange {
		case offer:
			precision = 3
		case kind + "/*":
			precision = 2
		case "*/*":
			precision = 1
		}
		if precision <= specific {
			continue
		}
		q := 1.0
		if s, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(s, 64); err != nil || !(q >= 0 && q <= 1) {
				continue
			}
		}
		weight, specific = q, precision
	}
	return weight
}
