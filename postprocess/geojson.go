package postprocess

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/refersam/refersam"
)

// The bounds of polygons from clients.
const (
	maxPolygonBytes = 16 << 20
	maxCoordinate   = 1e9
	// maxCrossings is how many columns all the edges of polygons together may
	// cross. A mask has two crossings per span.
	maxCrossings = 1 << 23
)

type geometry struct {
	Type        string             `json:"type"`
	Coordinates []refersam.Polygon `json:"coordinates"`
}

// GeoJSON writes polygons as a MultiPolygon of RFC 7946, in pixels. Outlines are
// counterclockwise if y points up, as the RFC requires; in a picture y points down.
func GeoJSON(polygons []refersam.Polygon) ([]byte, error) {
	if polygons == nil {
		polygons = []refersam.Polygon{}
	}
	return json.Marshal(geometry{"MultiPolygon", polygons})
}

// ParseGeoJSON reads a Polygon or a MultiPolygon of RFC 7946 without
// altitudes. It takes at most 16 MiB.
func ParseGeoJSON(data []byte) ([]refersam.Polygon, error) {
	if len(data) > maxPolygonBytes {
		return nil, fmt.Errorf("postprocess: GeoJSON of %d bytes", len(data))
	}
	var kind struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return nil, fmt.Errorf("postprocess: GeoJSON: %w", err)
	}
	switch kind.Type {
	case "MultiPolygon":
		var g geometry
		if err := json.Unmarshal(data, &g); err != nil {
			return nil, fmt.Errorf("postprocess: GeoJSON: %w", err)
		}
		return g.Coordinates, nil
	case "Polygon":
		var g struct {
			Coordinates refersam.Polygon `json:"coordinates"`
		}
		if err := json.Unmarshal(data, &g); err != nil {
			return nil, fmt.Errorf("postprocess: GeoJSON: %w", err)
		}
		return []refersam.Polygon{g.Coordinates}, nil
	}
	return nil, fmt.Errorf("postprocess: GeoJSON of type %q, want refersam.Polygon or MultiPolygon", kind.Type)
}

// FromPolygons makes a mask of width × height pixels. A pixel is foreground if its
// middle lies in any of the polygons: within an odd number of its rings. Rings may
// leave the picture, have any direction and need not be simple. FromPolygons
// returns an error for rings that are not closed, coordinates beyond ±1e9, and more
// edges than a mask could have.
func FromPolygons(polygons []refersam.Polygon, width, height int) (*refersam.Mask, error) {
	if err := checkSize(width, height); err != nil {
		return nil, err
	}
	crossings := 0
	for _, polygon := range polygons {
		for _, ring := range polygon {
			if err := checkRing(ring); err != nil {
				return nil, err
			}
			for i := 1; i < len(ring); i++ {
				from, to := columnsBetween(ring[i-1], ring[i], width)
				if crossings += to - from; crossings > maxCrossings {
					return nil, errors.New("postprocess: the polygons have too many edges")
				}
			}
		}
	}
	// Pixels are numbered down the columns. Each crossing is the number of the
	// pixel at which a column changes sides. After sorting, every second crossing
	// ends a span.
	marks := make([]int32, 0, crossings)
	for _, polygon := range polygons {
		first := len(marks)
		for _, ring := range polygon {
			for i := 1; i < len(ring); i++ {
				marks = appendCrossings(marks, ring[i-1], ring[i], width, height)
			}
		}
		slices.Sort(marks[first:])
	}
	return &refersam.Mask{Width: width, Height: height, Runs: union(marks, width*height)}, nil
}

func checkRing(r refersam.Ring) error {
	if len(r) < 4 || r[0] != r[len(r)-1] {
		return errors.New("postprocess: a ring needs at least three points, and the first point again at its end")
	}
	for _, p := range r {
		for _, v := range p {
			if !(math.Abs(v) <= maxCoordinate) {
				return fmt.Errorf("postprocess: the coordinate %v is out of range", v)
			}
		}
	}
	return nil
}

// columnsBetween returns the columns from ≤ x < to. The edge crosses their middle.
func columnsBetween(a, b refersam.Point, width int) (from, to int) {
	left, right := min(a[0], b[0]), max(a[0], b[0])
	return firstMiddle(left, width), firstMiddle(right, width)
}

// firstMiddle is the first of n pixels with its middle at or after v.
func firstMiddle(v float64, n int) int {
	return int(min(float64(n), max(0, math.Ceil(v-0.5))))
}

func appendCrossings(marks []int32, a, b refersam.Point, width, height int) []int32 {
	from, to := columnsBetween(a, b, width)
	for x := from; x < to; x++ {
		y := a[1] + (float64(x)+0.5-a[0])*((b[1]-a[1])/(b[0]-a[0]))
		marks = append(marks, int32(x*height+firstMiddle(y, height)))
	}
	return marks
}

// union returns the runs of total pixels. Pixel n is foreground if it lies in
// one of the spans marks[0] ≤ n < marks[1], marks[2] ≤ n < marks[3], …
func union(marks []int32, total int) []uint32 {
	starts, ends := make([]int32, 0, len(marks)/2), make([]int32, 0, len(marks)/2)
	for i := 0; i < len(marks); i += 2 {
		starts, ends = append(starts, marks[i]), append(ends, marks[i+1])
	}
	slices.Sort(starts)
	slices.Sort(ends)
	var w runWriter
	at := 0
	for i, first := 0, 0; i < len(starts); i++ {
		// The number of spans that have ended at ends[i] is the number of spans
		// that began before the next start.
		if i+1 == len(starts) || ends[i] < starts[i+1] {
			w.add(false, int(starts[first])-at)
			w.add(true, int(ends[i]-starts[first]))
			at, first = int(ends[i]), i+1
		}
	}
	w.add(false, total-at)
	return w.close()
}
