package postprocess_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// drawMask draws runs along rows or columns, so that long runs occur too, or noise.
func drawMask(t *rapid.T) *refersam.Mask {
	width, height := rapid.IntRange(1, 40).Draw(t, "width"), rapid.IntRange(1, 40).Draw(t, "height")
	if rapid.Bool().Draw(t, "noise") {
		return noiseMask(width, height, rapid.Uint32().Draw(t, "seed"), rapid.Uint32Range(0, 1<<16).Draw(t, "share"))
	}
	pix := make([]uint8, width*height)
	across := rapid.Bool().Draw(t, "across")
	for i := 0; i < len(pix); {
		run := rapid.IntRange(1, len(pix)).Draw(t, "run")
		value := rapid.Uint8Range(0, 1).Draw(t, "value")
		for ; run > 0 && i < len(pix); run-- {
			at := i
			if !across {
				at = i%height*width + i/height
			}
			pix[at] = value
			i++
		}
	}
	return postprocess.FromPixels(pix, width, height)
}

func TestPixels(t *testing.T) {
	pix := []uint8{
		0, 1, 1,
		0, 0, 1,
	}
	m := postprocess.FromPixels(pix, 3, 2)
	if diff := cmp.Diff(&refersam.Mask{Width: 3, Height: 2, Runs: []uint32{2, 1, 1, 2}}, m); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(pix, postprocess.Pixels(m)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := drawMask(t)
		if diff := cmp.Diff(want, postprocess.FromPixels(postprocess.Pixels(want), want.Width, want.Height)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// A mask larger than one strip.
func TestPixels_Strips(t *testing.T) {
	m := noiseMask(70000, 300, 1, 20)
	if diff := cmp.Diff(m, postprocess.FromPixels(postprocess.Pixels(m), m.Width, m.Height)); diff != "" {
		t.Error("the mask changed")
	}
}

func TestAreaBoxIoU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMask(t)
		other := noiseMask(m.Width, m.Height, rapid.Uint32().Draw(t, "other"), 1<<15)
		pix, others := postprocess.Pixels(m), postprocess.Pixels(other)
		box, area, both, either := image.Rectangle{}, 0, 0, 0
		for i, v := range pix {
			if v == 1 {
				area++
				box = box.Union(image.Rect(i%m.Width, i/m.Width, i%m.Width+1, i/m.Width+1))
			}
			both += int(v & others[i])
			either += int(v | others[i])
		}
		if got := postprocess.Area(m); got != area {
			t.Errorf("area %d, want %d", got, area)
		}
		want := refersam.Box{X: box.Min.X, Y: box.Min.Y, W: box.Dx(), H: box.Dy()}
		if got := postprocess.Box(m); got != want {
			t.Errorf("box %v, want %v", got, want)
		}
		iou := 1.0
		if either > 0 {
			iou = float64(both) / float64(either)
		}
		if got := postprocess.IoU(m, other); got != iou {
			t.Errorf("IoU %v, want %v", got, iou)
		}
	})
}

func TestClean(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    postprocess.Options
		want string
	}{
		{"nothing", postprocess.Options{}, "####.#/#..#../#.##../####.."},
		{"holes up to 2", postprocess.Options{FillHoles: 2}, "####.#/#..#../#.##../####.."},
		{"holes up to 3", postprocess.Options{FillHoles: 3}, "####.#/####../####../####.."},
		{"2 pixels or more", postprocess.Options{MinArea: 2}, "####../#..#../#.##../####.."},
		{"the largest", postprocess.Options{Largest: true}, "####../#..#../#.##../####.."},
		{"all holes, 14 or more", postprocess.Options{FillHoles: math.MaxInt, MinArea: 14}, "####../####../####../####.."},
		{"17 pixels or more", postprocess.Options{FillHoles: 3, MinArea: 17}, "....../....../....../......"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := picture(postprocess.Clean(fromPicture("####.#/#..#../#.##../####.."), tt.o))
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// fromPicture reads rows of # and . separated by /; picture writes them.
func fromPicture(rows string) *refersam.Mask {
	lines := strings.Split(rows, "/")
	pix := make([]uint8, 0, len(rows))
	for _, c := range strings.Join(lines, "") {
		if c == '#' {
			pix = append(pix, 1)
		} else {
			pix = append(pix, 0)
		}
	}
	return postprocess.FromPixels(pix, len(lines[0]), len(lines))
}

func picture(m *refersam.Mask) string {
	var b strings.Builder
	for i, v := range postprocess.Pixels(m) {
		if i > 0 && i%m.Width == 0 {
			b.WriteByte('/')
		}
		b.WriteByte(".#"[v])
	}
	return b.String()
}

func TestComponents(t *testing.T) {
	got := postprocess.Components(fromPicture("#..##/.#..#/.##../....."))
	want := []postprocess.Component{
		{3, refersam.Box{X: 1, Y: 1, W: 2, H: 2}},
		{3, refersam.Box{X: 3, Y: 0, W: 2, H: 2}},
		{1, refersam.Box{X: 0, Y: 0, W: 1, H: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRLE_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawMask(t)
		got, err := postprocess.DecodeRLE(postprocess.RLE(want), want.Width, want.Height)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("mask differs (-want +got):\n%s", diff)
		}
		for _, counts := range []any{postprocess.RLE(want), want.Runs} {
			data, err := json.Marshal(map[string]any{"size": []int{want.Height, want.Width}, "counts": counts})
			if err != nil {
				t.Fatal(err)
			}
			got, err := postprocess.ParseRLE(data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("mask differs (-want +got):\n%s", diff)
			}
		}
	})
}

func TestDecodeRLE_Err(t *testing.T) {
	for _, tt := range []struct {
		name, counts  string
		width, height int
	}{
		{"empty", "", 2, 2},
		{"too short", "3", 2, 2},
		{"too long", "5", 2, 2},
		{"pixels after the end", "41", 2, 2},
		{"negative", "O", 2, 2},
		{"below the alphabet", "/", 2, 2},
		{"above the alphabet", "p", 2, 2},
		{"not ASCII", "4\xff", 2, 2},
		{"cut off within a number", "P", 2, 2},
		{"number without end", strings.Repeat("P", 100), 2, 2},
		{"no width", "0", 0, 2},
		{"negative height", "0", 2, -2},
		{"more pixels than memory", "0", math.MaxInt, math.MaxInt},
		{"more pixels than allowed", "0", 1 << 15, 1 << 15},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := postprocess.DecodeRLE(tt.counts, tt.width, tt.height); err == nil {
				t.Errorf("got a mask of %d×%d, want an error", m.Width, m.Height)
			}
		})
	}
}

func TestParseRLE_Err(t *testing.T) {
	for _, data := range []string{
		``, `null`, `[]`, `{}`, `{"size":[2,2]}`, `{"counts":[4]}`, `{"size":[2,2],"counts":[5]}`, `{"size":[2,2],"counts":[-4,8]}`,
		`{"size":[2,2],"counts":[4.5]}`, `{"size":[2,2],"counts":{}}`, `{"size":[2],"counts":[4]}`, `{"size":[2,2],"counts":"9"}`,
		`{"size":[2,2],"counts":[1,9223372036854775807,5]}`,
	} {
		if _, err := postprocess.ParseRLE([]byte(data)); err == nil {
			t.Errorf("%s: no error", data)
		}
	}
}

// The components' outlines, with holes after them.
func TestPolygons(t *testing.T) {
	for _, tt := range []struct{ mask, want string }{
		{"...", `[]`},
		{"#", `[[[[0,1],[0,0],[1,0],[1,1],[0,1]]]]`},
		{"##/##", `[[[[0,2],[0,0],[2,0],[2,2],[0,2]]]]`},
		// Pixels that touch only at a corner are two components.
		{"#./.#", `[[[[0,1],[0,0],[1,0],[1,1],[0,1]]],[[[1,2],[1,1],[2,1],[2,2],[1,2]]]]`},
		{".#/#.", `[[[[0,2],[0,1],[1,1],[1,2],[0,2]]],[[[1,1],[1,0],[2,0],[2,1],[1,1]]]]`},
		{"###/#.#/###", `[[[[0,3],[0,0],[3,0],[3,3],[0,3]],[[1,1],[1,2],[2,2],[2,1],[1,1]]]]`},
		// A hole that touches the outside at a corner, and two holes that touch
		// each other.
		{"###/#.#/##.", `[[[[0,3],[0,0],[3,0],[3,2],[2,2],[2,3],[0,3]],[[2,2],[2,1],[1,1],[1,2],[2,2]]]]`},
		{"####/#.##/##.#/####", `[[[[0,4],[0,0],[4,0],[4,4],[0,4]],[[2,2],[2,3],[3,3],[3,2],[2,2]],[[1,1],[1,2],[2,2],[2,1],[1,1]]]]`},
	} {
		data, err := postprocess.GeoJSON(postprocess.Polygons(fromPicture(tt.mask), 0))
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"type":"MultiPolygon","coordinates":` + tt.want + `}`; string(data) != want {
			t.Errorf("%s:\n%s, want\n%s", tt.mask, data, want)
		}
	}
}

func TestPolygons_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawMask(t)
		polygons := postprocess.Polygons(want, 0)
		if got := len(postprocess.Components(want)); len(polygons) != got {
			t.Fatalf("%d polygons of %d components", len(polygons), got)
		}
		for _, p := range polygons {
			for i, ring := range p {
				checkRing(t, ring, i == 0)
			}
		}
		data, err := postprocess.GeoJSON(polygons)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := postprocess.ParseGeoJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := postprocess.FromPolygons(parsed, want.Width, want.Height)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(picture(want), picture(got)); diff != "" {
			t.Fatalf("mask differs (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("mask differs (-want +got):\n%s", diff)
		}
	})
}

// checkRing checks that a ring is closed and simple, turns at each of its points
// and has the right direction.
func checkRing(t *rapid.T, r refersam.Ring, outline bool) {
	if r[0] != r[len(r)-1] {
		t.Fatalf("%v is not closed", r)
	}
	seen := make(map[refersam.Point]bool)
	area := 0.0
	for i := 1; i < len(r); i++ {
		a, b, c := r[i-1], r[i], r[i%(len(r)-1)+1]
		if seen[b] {
			t.Fatalf("%v meets %v twice", r, b)
		}
		seen[b] = true
		if (a[0] == b[0]) == (b[0] == c[0]) {
			t.Fatalf("%v goes straight at %v", r, b)
		}
		area += a[0]*b[1] - b[0]*a[1]
	}
	if outline != (area > 0) {
		t.Fatalf("%v has an area of %v, outline: %v", r, area/2, outline)
	}
}

func TestPolygons_Tolerance(t *testing.T) {
	m, err := postprocess.Mask(blobLogits(64, 64), 640, 480, postprocess.Options{Threshold: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	count := func(tolerance, least float64) (points int) {
		polygons := postprocess.Polygons(m, tolerance)
		for _, p := range polygons {
			for _, r := range p {
				points += len(r)
			}
		}
		back, err := postprocess.FromPolygons(polygons, m.Width, m.Height)
		if err != nil {
			t.Fatal(err)
		}
		iou := postprocess.IoU(m, back)
		t.Logf("tolerance %v: %d points, IoU %.4f", tolerance, points, iou)
		if iou < least {
			t.Errorf("tolerance %v: IoU %v, want at least %v", tolerance, iou, least)
		}
		return points
	}
	all, some, few := count(0, 1), count(1, 0.98), count(4, 0.93)
	if all < 5*some || some <= few {
		t.Errorf("%d points, %d at 1 and %d at 4", all, some, few)
	}
	if got := postprocess.Polygons(m, 1000); len(got) > 0 {
		t.Errorf("%v is left at 1000", got)
	}
}

func TestFromPolygons(t *testing.T) {
	for _, tt := range []struct{ name, geometry, want string }{
		{"nothing", `{"type":"MultiPolygon","coordinates":[]}`, "..../..../...."},
		{"a polygon", `{"type":"Polygon","coordinates":[[[1,1],[3,1],[3,2],[1,2],[1,1]]]}`, "..../.##./...."},
		{"the other way round", `{"type":"Polygon","coordinates":[[[1,1],[1,2],[3,2],[3,1],[1,1]]]}`, "..../.##./...."},
		{"beyond the picture", `{"type":"Polygon","coordinates":[[[-9,-1e8],[9,-1e8],[9,1e9],[-9,1e9],[-9,-1e8]]]}`, "####/####/####"},
		{"beside the picture", `{"type":"Polygon","coordinates":[[[5,0],[9,0],[9,9],[5,9],[5,0]]]}`, "..../..../...."},
		{"a triangle", `{"type":"Polygon","coordinates":[[[0,0],[4,0],[0,4],[0,0]]]}`, "###./##../#..."},
		{"polygons one over another", `{"type":"MultiPolygon","coordinates":[[[[0,0],[3,0],[3,2],[0,2],[0,0]]],[[[1,1],[4,1],[4,3],[1,3],[1,1]]]]}`, "###./####/.###"},
		{"a hole", `{"type":"Polygon","coordinates":[[[0,0],[4,0],[4,3],[0,3],[0,0]],[[1,1],[3,1],[3,2],[1,2],[1,1]]]}`, "####/#..#/####"},
		{"a property of its own", `{"type":"Polygon","bbox":[0,0,1,1],"coordinates":[[[0,0],[1,0],[1,1],[0,1],[0,0]]]}`, "#.../..../...."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			polygons, err := postprocess.ParseGeoJSON([]byte(tt.geometry))
			if err != nil {
				t.Fatal(err)
			}
			m, err := postprocess.FromPolygons(polygons, 4, 3)
			if err != nil {
				t.Fatal(err)
			}
			if got := picture(m); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestFromPolygons_Err(t *testing.T) {
	zigzag := `[0,0]` + strings.Repeat(`,[16384,1],[0,0]`, 300)
	for name, geometry := range map[string]string{
		"nothing":          ``,
		"not an object":    `[]`,
		"another type":     `{"type":"Point","coordinates":[0,0]}`,
		"an altitude":      `{"type":"Polygon","coordinates":[[[0,0,0],[1,0,0],[1,1,0],[0,0,0]]]}`,
		"half a point":     `{"type":"Polygon","coordinates":[[[0],[1,0],[1,1],[0,0]]]}`,
		"not closed":       `{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,1]]]}`,
		"two points":       `{"type":"Polygon","coordinates":[[[0,0],[1,0],[0,0]]]}`,
		"an empty ring":    `{"type":"Polygon","coordinates":[[]]}`,
		"beyond all":       `{"type":"Polygon","coordinates":[[[0,0],[1e10,0],[1,1],[0,0]]]}`,
		"overflow":         `{"type":"Polygon","coordinates":[[[0,0],[1e999,0],[1,1],[0,0]]]}`,
		"too deep":         `{"type":"Polygon","coordinates":[[[[0,0],[1,0],[1,1],[0,0]]]]}`,
		"edges beyond all": `{"type":"Polygon","coordinates":[[` + zigzag + `]]}`,
	} {
		polygons, err := postprocess.ParseGeoJSON([]byte(geometry))
		if err == nil {
			_, err = postprocess.FromPolygons(polygons, 1<<14, 1<<14)
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := postprocess.FromPolygons(nil, 0, 1); err == nil {
		t.Error("no width: no error")
	}
	if _, err := postprocess.ParseGeoJSON(make([]byte, 16<<20+1)); err == nil {
		t.Error("too many bytes: no error")
	}
}

func TestEncodePNG_RoundTrip(t *testing.T) {
	for depth, encode := range map[int]func(io.Writer, *refersam.Mask) error{1: postprocess.EncodePNG, 8: postprocess.EncodePNG8} {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := drawMask(t)
				var buf bytes.Buffer
				if err := encode(&buf, m); err != nil {
					t.Fatal(err)
				}
				if got := int(buf.Bytes()[24]); got != depth {
					t.Fatalf("%d bits a pixel", got)
				}
				img, err := png.Decode(&buf)
				if err != nil {
					t.Fatal(err)
				}
				gray, ok := img.(*image.Gray)
				if !ok || gray.Rect != image.Rect(0, 0, m.Width, m.Height) {
					t.Fatalf("got a %T of %v, want %d×%d gray", img, img.Bounds(), m.Width, m.Height)
				}
				for i, v := range postprocess.Pixels(m) {
					if got := gray.GrayAt(i%m.Width, i/m.Width).Y; got != 255*v {
						t.Fatalf("pixel %d is %d, want %d", i, got, 255*v)
					}
				}
			})
		})
	}
}

// Many chunks of data.
func TestEncodePNG_Large(t *testing.T) {
	m := noiseMask(1999, 1001, 5, 1<<15)
	var buf bytes.Buffer
	if err := postprocess.EncodePNG(&buf, m); err != nil {
		t.Fatal(err)
	}
	if buf.Len() < 200_000 {
		t.Fatalf("%d bytes of noise", buf.Len())
	}
	img, err := png.Decode(&buf)
	if err != nil {
		t.Fatal(err)
	}
	gray, _ := img.(*image.Gray)
	for i := range gray.Pix {
		gray.Pix[i] &= 1
	}
	if !bytes.Equal(gray.Pix, postprocess.Pixels(m)) {
		t.Error("the mask changed")
	}
}

func TestEncodePNG_Err(t *testing.T) {
	for name, m := range map[string]*refersam.Mask{
		"no pixels":   {},
		"too short":   {Width: 2, Height: 2, Runs: []uint32{3}},
		"too long":    {Width: 2, Height: 2, Runs: []uint32{4, 1}},
		"empty run":   {Width: 2, Height: 2, Runs: []uint32{4, 0}},
		"wraps round": {Width: 2, Height: 2, Runs: []uint32{math.MaxUint32, 5}},
		"negative":    {Width: -2, Height: -2, Runs: []uint32{4}},
	} {
		if err := postprocess.EncodePNG(io.Discard, m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	m := noiseMask(999, 999, 0, 1<<15)
	for after := range 4 {
		if err := postprocess.EncodePNG(&brokenWriter{after}, m); err == nil {
			t.Errorf("writer's error after %d writes is lost", after)
		}
	}
}

// brokenWriter fails after a given number of writes.
type brokenWriter struct{ left int }

func (b *brokenWriter) Write(data []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(data), nil
}

func TestEncodeProbability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLogits(t)
		width, height := drawSize(t)
		var buf bytes.Buffer
		if err := postprocess.EncodeProbability(&buf, l, width, height); err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(&buf)
		if err != nil {
			t.Fatal(err)
		}
		gray, ok := img.(*image.Gray16)
		if !ok || gray.Rect != image.Rect(0, 0, width, height) {
			t.Fatalf("got a %T of %v", img, img.Bounds())
		}
		values, err := postprocess.Upsample(l, width, height)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			got, want := gray.Gray16At(i%width, i/width).Y, 65535/(1+math.Exp(-float64(v)))
			if math.Abs(float64(got)-want) > 0.55 {
				t.Fatalf("%d for logit %v, want %v", got, v, want)
			}
		}
	})
	if err := postprocess.EncodeProbability(io.Discard, refersam.Logits{}, 1, 1); err == nil {
		t.Error("no logits: no error")
	}
}

func TestOverlay(t *testing.T) {
	m := noiseMask(75, 37, 3, 1<<15)
	p := &refersam.Picture{Width: 75, Height: 37, Pix: make([]uint8, 3*75*37)}
	for i, v := range draw(len(p.Pix), 9) {
		p.Pix[i] = uint8(v)
	}
	tint := postprocess.Tint{R: 255, G: 64, B: 0, Opacity: 0.25}
	want := image.NewRGBA(image.Rect(0, 0, m.Width, m.Height))
	for i, inside := range postprocess.Pixels(m) {
		c := [3]float64{float64(p.Pix[3*i]), float64(p.Pix[3*i+1]), float64(p.Pix[3*i+2])}
		if inside == 1 {
			c = [3]float64{0.75*c[0] + 0.25*255, 0.75*c[1] + 0.25*64, 0.75 * c[2]}
		}
		want.Set(i%m.Width, i/m.Width, color.RGBA{uint8(c[0] + 0.5), uint8(c[1] + 0.5), uint8(c[2] + 0.5), 255})
	}
	var buf, reference bytes.Buffer
	if err := postprocess.EncodeOverlayPNG(&buf, p, m, tint); err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(&buf)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := img.(*image.RGBA)
	if !ok || !bytes.Equal(got.Pix, want.Pix) {
		t.Errorf("a %T, and not the blended picture", img)
	}

	buf.Reset()
	if err := postprocess.EncodeOverlayJPEG(&buf, p, m, tint, 90); err != nil {
		t.Fatal(err)
	}
	if err := jpeg.Encode(&reference, want, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), reference.Bytes()) {
		t.Error("the JPEG is not that of the blended picture")
	}
}

func TestOverlay_Err(t *testing.T) {
	m := noiseMask(4, 3, 0, 1<<15)
	p := &refersam.Picture{Width: 4, Height: 3, Pix: make([]uint8, 36)}
	for name, tt := range map[string]struct {
		p *refersam.Picture
		m *refersam.Mask
		t postprocess.Tint
	}{
		"another size":    {&refersam.Picture{Width: 3, Height: 4, Pix: p.Pix}, m, postprocess.Tint{}},
		"too few pixels":  {&refersam.Picture{Width: 4, Height: 3, Pix: p.Pix[:35]}, m, postprocess.Tint{}},
		"no mask":         {p, &refersam.Mask{Width: 4, Height: 3}, postprocess.Tint{}},
		"opaque and more": {p, m, postprocess.Tint{Opacity: 1.5}},
		"opacity NaN":     {p, m, postprocess.Tint{Opacity: math.NaN()}},
	} {
		if err := postprocess.EncodeOverlayPNG(io.Discard, tt.p, tt.m, tt.t); err == nil {
			t.Errorf("%s: no error for PNG", name)
		}
		if err := postprocess.EncodeOverlayJPEG(io.Discard, tt.p, tt.m, tt.t, 90); err == nil {
			t.Errorf("%s: no error for JPEG", name)
		}
	}
}
