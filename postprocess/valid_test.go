package postprocess_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// whole is a point of whole numbers, so that all tests below are exact. Coordinates
// are doubled, so that the middle of an edge is whole, too.
type whole struct{ x, y int64 }

type wholeRing []whole // without the first point again

type wholeEdge struct {
	from, to whole
	ring     *wholeRing
	// polygon and number say where the ring is.
	polygon, number int
}

func side(a, b, c whole) int {
	switch area := (b.x-a.x)*(c.y-a.y) - (b.y-a.y)*(c.x-a.x); {
	case area > 0:
		return 1
	case area < 0:
		return -1
	}
	return 0
}

// within reports whether c, on the line of a and b, lies between them or equals one
// of them.
func within(a, b, c whole) bool {
	return min(a.x, b.x) <= c.x && c.x <= max(a.x, b.x) && min(a.y, b.y) <= c.y && c.y <= max(a.y, b.y)
}

func (r wholeRing) at(i int) whole { return r[(i+len(r))%len(r)] }

// holds reports whether p, which must not be on the ring, is inside.
func (r wholeRing) holds(p whole) bool {
	inside := false
	for i := range r {
		a, b := r[i], r.at(i+1)
		if (a.y > p.y) == (b.y > p.y) {
			continue
		}
		if a.y > b.y {
			a, b = b, a
		}
		if side(a, b, p) < 0 { // p is at the right of the edge, which goes down
			inside = !inside
		}
	}
	return inside
}

func (r wholeRing) area() (doubled int64) {
	for i, a := range r {
		b := r.at(i + 1)
		doubled += a.x*b.y - b.x*a.y
	}
	return doubled
}

// middle is on the ring. If two rings share only single points, it is not on the
// other.
func (r wholeRing) middle() whole { return whole{(r[0].x + r[1].x) / 2, (r[0].y + r[1].y) / 2} }

func toWhole(polygons []refersam.Polygon) ([][]wholeRing, error) {
	all := make([][]wholeRing, len(polygons))
	for i, polygon := range polygons {
		for _, ring := range polygon {
			if len(ring) < 4 || ring[0] != ring[len(ring)-1] {
				return nil, fmt.Errorf("%v is no ring", ring)
			}
			var w wholeRing
			for _, p := range ring[:len(ring)-1] {
				if p[0] != math.Trunc(p[0]) || p[1] != math.Trunc(p[1]) {
					return nil, fmt.Errorf("%v is not a corner of a pixel", p)
				}
				w = append(w, whole{2 * int64(p[0]), 2 * int64(p[1])})
			}
			all[i] = append(all[i], w)
		}
		if len(polygon) == 0 {
			return nil, fmt.Errorf("polygon %d has no rings", i)
		}
	}
	return all, nil
}

// valid checks polygons against OGC's Simple Feature Access, 6.1.11 and 6.1.14, and
// a little more: rings share a point only where both have a vertex.
func valid(polygons []refersam.Polygon) error {
	all, err := toWhole(polygons)
	if err != nil {
		return err
	}
	var edges []wholeEdge
	for i, rings := range all {
		for j := range rings {
			seen := make(map[whole]bool)
			for k, p := range rings[j] {
				if seen[p] {
					return fmt.Errorf("ring %d of polygon %d meets %v twice", j, i, p)
				}
				seen[p] = true
				edges = append(edges, wholeEdge{p, rings[j].at(k + 1), &rings[j], i, j})
			}
		}
	}
	for i, e := range edges {
		for _, f := range edges[i+1:] {
			if err := meet(e, f); err != nil {
				return err
			}
		}
	}
	for i, rings := range all {
		if err := nested(i, rings); err != nil {
			return err
		}
		for j, others := range all {
			if i != j && rings[0].holds(others[0].middle()) {
				inHole := false
				for _, hole := range rings[1:] {
					inHole = inHole || hole.holds(others[0].middle())
				}
				if !inHole {
					return fmt.Errorf("polygon %d lies in polygon %d", j, i)
				}
			}
		}
	}
	return crossAtPoints(all)
}

// meet returns an error if two edges share more than a point that ends both.
func meet(e, f wholeEdge) error {
	a, b, c, d := e.from, e.to, f.from, f.to
	if max(a.x, b.x) < min(c.x, d.x) || max(c.x, d.x) < min(a.x, b.x) || max(a.y, b.y) < min(c.y, d.y) || max(c.y, d.y) < min(a.y, b.y) {
		return nil
	}
	sc, sd, sa, sb := side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)
	if sc*sd < 0 && sa*sb < 0 {
		return fmt.Errorf("edges %v–%v and %v–%v cross", a, b, c, d)
	}
	shared := 0
	for _, p := range []whole{a, b} {
		if p == c || p == d {
			shared++
		} else if side(c, d, p) == 0 && within(c, d, p) {
			return fmt.Errorf("%v lies on the edge %v–%v", p, c, d)
		}
	}
	for _, p := range []whole{c, d} {
		if p != a && p != b && side(a, b, p) == 0 && within(a, b, p) {
			return fmt.Errorf("%v lies on the edge %v–%v", p, a, b)
		}
	}
	if shared == 2 {
		return fmt.Errorf("two edges run from %v to %v", a, b)
	}
	return nil
}

// nested checks that holes lie in their outline and in no other hole, that rings
// have the right direction, and that the inside is connected: rings and the points
// where they touch form no loop.
func nested(i int, rings []wholeRing) error {
	touching := make(map[whole]int) // maps a point to the set of its rings
	sets := make([]int, len(rings))
	root := func(j int) int {
		for sets[j] != j {
			j = sets[j]
		}
		return j
	}
	for j, ring := range rings {
		sets[j] = j
		if (ring.area() > 0) != (j == 0) || ring.area() == 0 {
			return fmt.Errorf("ring %d of polygon %d has the area %d/8", j, i, ring.area())
		}
		if j > 0 && !rings[0].holds(ring.middle()) {
			return fmt.Errorf("hole %d of polygon %d lies outside of it", j, i)
		}
		for k, other := range rings {
			if j > 0 && k > 0 && j != k && other.holds(ring.middle()) {
				return fmt.Errorf("hole %d of polygon %d lies in hole %d", j, i, k)
			}
		}
		for _, p := range ring {
			k, ok := touching[p]
			if !ok {
				touching[p] = j
				continue
			}
			if root(k) == root(j) {
				return fmt.Errorf("the rings of polygon %d cut it in two at %v", i, p)
			}
			sets[root(k)] = root(j)
		}
	}
	return nil
}

// crossAtPoints checks that rings that share a point do not cross each other at it.
func crossAtPoints(all [][]wholeRing) error {
	type pass struct{ before, after whole }
	at := make(map[whole][]pass)
	for _, rings := range all {
		for _, ring := range rings {
			for i, p := range ring {
				passes := at[p]
				here := pass{ring.at(i - 1), ring.at(i + 1)}
				for _, other := range passes {
					if between(p, other.before, other.after, here.before) != between(p, other.before, other.after, here.after) {
						return fmt.Errorf("rings cross at %v", p)
					}
				}
				at[p] = append(passes, here)
			}
		}
	}
	return nil
}

// between reports whether, clockwise, the direction from p to d comes between the
// directions to a and b.
func between(p, a, b, d whole) bool {
	if side(p, a, b) > 0 {
		return side(p, a, d) > 0 && side(p, d, b) > 0
	}
	return side(p, b, d) <= 0 || side(p, d, a) <= 0
}

// The checker agrees with shapely on the polygons in testdata/valid.json.
func TestValid_Golden(t *testing.T) {
	var golden []struct {
		Name     string
		Geometry json.RawMessage
		Valid    bool
		Reason   string
	}
	data, err := os.ReadFile("testdata/valid.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	for _, g := range golden {
		polygons, err := postprocess.ParseGeoJSON(g.Geometry)
		if err != nil {
			t.Fatal(g.Name, err)
		}
		if err := valid(polygons); (err == nil) != g.Valid {
			t.Errorf("%s: %v; shapely: %s", g.Name, err, g.Reason)
		}
	}
}

var tolerances = []float64{0, 0.1, 0.3, 0.5, 0.71, 0.75, 1, 1.2, 1.5, 2, 3, 5, 10, 30}

func smoothMask(t *rapid.T) *refersam.Mask {
	width, height := rapid.IntRange(2, 90).Draw(t, "width"), rapid.IntRange(2, 90).Draw(t, "height")
	columns, rows := rapid.IntRange(2, 12).Draw(t, "columns"), rapid.IntRange(2, 12).Draw(t, "rows")
	m, err := postprocess.Mask(noiseLogits(columns, rows, rapid.Uint32().Draw(t, "seed")), width, height,
		postprocess.Options{Threshold: rapid.Float64Range(0.05, 0.95).Draw(t, "threshold")})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Polygons are valid at every tolerance, and no point that is left out of an
// outline is farther than the tolerance from the rest.
func TestPolygons_Valid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMask(t)
		if rapid.Bool().Draw(t, "smooth") {
			m = smoothMask(t)
		}
		tolerance := rapid.OneOf(rapid.SampledFrom(tolerances), rapid.Float64Range(0, 50)).Draw(t, "tolerance")
		polygons := postprocess.Polygons(m, tolerance)
		if err := valid(polygons); err != nil {
			t.Fatalf("%v of\n%s\nat %v: %v", polygons, picture(m), tolerance, err)
		}
		exact := make(map[refersam.Point]bool)
		for _, polygon := range postprocess.Polygons(m, 0) {
			for _, ring := range polygon {
				for _, p := range ring {
					exact[p] = true
				}
			}
		}
		for _, polygon := range polygons {
			for _, ring := range polygon {
				for _, p := range ring {
					if !exact[p] {
						t.Fatalf("%v is no point of an outline", p)
					}
				}
			}
		}
	})
}

// If a single ring stays, all points of the outline are within the tolerance of its
// remaining points.
func TestPolygons_Distance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := postprocess.Clean(smoothMask(t), postprocess.Options{FillHoles: math.MaxInt, Largest: true})
		tolerance := rapid.Float64Range(0.1, 8).Draw(t, "tolerance")
		exact, left := postprocess.Polygons(m, 0), postprocess.Polygons(m, tolerance)
		if len(left) == 0 {
			return
		}
		for _, p := range exact[0][0] {
			nearest := math.Inf(1)
			for i := 1; i < len(left[0][0]); i++ {
				nearest = min(nearest, distance(p, left[0][0][i-1], left[0][0][i]))
			}
			if nearest > tolerance*(1+1e-9) {
				t.Fatalf("%v is %v from %v, tolerance %v", p, nearest, left[0][0], tolerance)
			}
		}
	})
}

func distance(p, a, b refersam.Point) float64 {
	dx, dy := b[0]-a[0], b[1]-a[1]
	along := min(1, max(0, ((p[0]-a[0])*dx+(p[1]-a[1])*dy)/(dx*dx+dy*dy)))
	return math.Hypot(p[0]-a[0]-along*dx, p[1]-a[1]-along*dy)
}

// Masks that gave invalid polygons when each ring was simplified alone, and masks
// where rings touch or lie in holes that are left out.
var awkwardMasks = []string{
	".#../###./#.##/#...",
	"#./.#", ".#/#.",
	"###/#.#/##.",
	"####/#.##/##.#/####",
	"#####/#...#/#.#.#/#...#/#####",
	"#######/#.....#/#.###.#/#.#.#.#/#.###.#/#.....#/#######",
	"######/#.#..#/##.#.#/#.#..#/######",
	"..#../.#.#./#...#/.#.#./..#..",
	"#.#.#.#/.#.#.#./#.#.#.#/.#.#.#./#.#.#.#",
	"########/#......#/#.####.#/#.#..#.#/#.#.##.#/#.#....#/#.######/#......./########",
}

func TestPolygons_Awkward(t *testing.T) {
	for _, mask := range awkwardMasks {
		for _, tolerance := range tolerances {
			if err := valid(postprocess.Polygons(fromPicture(mask), tolerance)); err != nil {
				t.Errorf("%s at %v: %v", mask, tolerance, err)
			}
		}
	}
}

// With a hole, everything that lies in it is left out, even if it is thicker than
// the tolerance: the line of the hole runs through its middle, the line of the T
// along its foot.
func TestPolygons_LeavesOut(t *testing.T) {
	const letter = "###############/##...........##/##.....#.....##/##.....#.....##/#......#......#/##.....#.....##/##.#########.##/##...........##/###############"
	const island = "########/#......#/#.####.#/#.#..#.#/#.####.#/#......#/########"
	for _, tt := range []struct {
		mask      string
		tolerance float64
		want      string
	}{
		{island, 0.8, "2 polygons of 4 rings"},
		{island, 1, "2 polygons of 3 rings"},
		{island, 3.9, "1 polygons of 1 rings"},
		{island, 9, "0 polygons of 0 rings"},
		{letter, 3.9, "2 polygons of 3 rings"},
		{letter, 4.2, "1 polygons of 1 rings"},
	} {
		polygons := postprocess.Polygons(fromPicture(tt.mask), tt.tolerance)
		rings := 0
		for _, p := range polygons {
			rings += len(p)
		}
		if got := fmt.Sprintf("%d polygons of %d rings", len(polygons), rings); got != tt.want {
			t.Errorf("at %v: %s, want %s: %v", tt.tolerance, got, tt.want, polygons)
		}
	}
}

// FuzzPolygons checks that polygons of any mask are valid at any tolerance.
func FuzzPolygons(f *testing.F) {
	for _, mask := range awkwardMasks {
		f.Add([]byte(strings.ReplaceAll(mask, "/", "")), uint8(strings.Index(mask, "/")), 1.5)
	}
	f.Fuzz(func(t *testing.T, data []byte, width uint8, tolerance float64) {
		if width == 0 || len(data) < int(width) || len(data) > 900 {
			return
		}
		pix := data[:len(data)/int(width)*int(width)]
		for i, v := range pix {
			pix[i] = v & 1 // '#' is odd, '.' is even
		}
		m := postprocess.FromPixels(pix, int(width), len(pix)/int(width))
		if err := valid(postprocess.Polygons(m, tolerance)); err != nil {
			t.Fatalf("at %v: %v\n%s", tolerance, err, picture(m))
		}
	})
}

// shapely, if it is installed, agrees on the polygons of 400 masks.
func TestPolygons_Shapely(t *testing.T) {
	python := filepath.Join("..", ".venv", "bin", "python")
	if exec.Command(python, "-c", "import shapely").Run() != nil {
		t.Skip("no shapely in .venv")
	}
	command := exec.Command(python, "testdata/valid.py", "judge")
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for seed := range uint32(400) {
		m := noiseMask(12+int(seed%20), 9+int(seed%31), seed, 20_000+seed*60)
		for _, tolerance := range tolerances {
			data, err := postprocess.GeoJSON(postprocess.Polygons(m, tolerance))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(in, "%s\n", data); err != nil {
				t.Fatal(err)
			}
			if !lines.Scan() || lines.Text() != "Valid Geometry" {
				t.Errorf("seed %d at %v: %s", seed, tolerance, lines.Text())
			}
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
}
