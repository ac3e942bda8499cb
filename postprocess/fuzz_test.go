package postprocess_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// FuzzDecodeRLE checks that every accepted string gives a mask of the given size,
// and that encoding the mask gives an equivalent string.
func FuzzDecodeRLE(f *testing.F) {
	for _, g := range loadGolden(f).RLE {
		if g.Size[0]*g.Size[1] < 4096 {
			f.Add(g.Counts, g.Size[0], g.Size[1])
		}
	}
	f.Fuzz(func(t *testing.T, counts string, width, height int) {
		m, err := postprocess.DecodeRLE(counts, width, height)
		if err != nil {
			return
		}
		expectSound(t, m, width, height)
		again, err := postprocess.DecodeRLE(postprocess.RLE(m), width, height)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("mask changed (-want +got):\n%s", diff)
		}
	})
}

// FuzzParseRLE checks the same for the JSON.
func FuzzParseRLE(f *testing.F) {
	f.Add([]byte(`{"size":[3,4],"counts":"52203"}`))
	f.Add([]byte(`{"size":[2,2],"counts":[1,2,1]}`))
	f.Add([]byte(`{"counts":[0,0,0,4],"size":[2,2],"more":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := postprocess.ParseRLE(data)
		if err != nil {
			return
		}
		expectSound(t, m, m.Width, m.Height)
		data, err = json.Marshal(map[string]any{"size": []int{m.Height, m.Width}, "counts": m.Runs})
		if err != nil {
			t.Fatal(err)
		}
		again, err := postprocess.ParseRLE(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("mask changed (-want +got):\n%s", diff)
		}
	})
}

// FuzzGeoJSON checks that all accepted input gives a mask, and that the mask's
// outlines give the same mask again.
func FuzzGeoJSON(f *testing.F) {
	f.Add([]byte(`{"type":"Polygon","coordinates":[[[0,0],[4,0],[4,3],[0,3],[0,0]],[[1,1],[3,1],[3,2],[1,2],[1,1]]]}`), 4, 3)
	f.Add([]byte(`{"type":"MultiPolygon","coordinates":[[[[0,0],[3.5,0],[3,2e1],[-7,2],[0,0]]],[[[1,1],[4,1],[4,3],[1,1]]]]}`), 9, 9)
	f.Add([]byte(`{"type":"MultiPolygon","coordinates":[[],[[]],null]}`), 1, 1)
	f.Fuzz(func(t *testing.T, data []byte, width, height int) {
		polygons, err := postprocess.ParseGeoJSON(data)
		if err != nil {
			return
		}
		m, err := postprocess.FromPolygons(polygons, width, height)
		if err != nil {
			return
		}
		expectSound(t, m, width, height)
		if width*height > 1<<16 {
			return // one is fast enough, but many are not
		}
		again, err := postprocess.FromPolygons(postprocess.Polygons(m, 0), width, height)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("mask changed (-want +got):\n%s", diff)
		}
	})
}

// FuzzMask checks that the mask of any logits equals the mask of all upsampled
// values.
func FuzzMask(f *testing.F) {
	f.Add([]byte("\x00\x00\x80\x3f\x00\x00\x80\xbf\x00\x00\x80\xbf\x00\x00\x80\x3f"), uint8(2), uint8(5), uint8(5), 0.5)
	f.Add([]byte("\x01\x00\x00\x80\x01\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00"), uint8(1), uint8(99), uint8(40), 0.5)
	f.Fuzz(func(t *testing.T, data []byte, columns, width, height uint8, threshold float64) {
		l := refersam.Logits{Width: int(columns)}
		for ; len(data) >= 4; data = data[4:] {
			l.Values = append(l.Values, math.Float32frombits(binary.LittleEndian.Uint32(data)))
		}
		if columns > 0 {
			l.Height = len(l.Values) / l.Width
			l.Values = l.Values[:l.Width*l.Height]
		}
		m, err := postprocess.Mask(l, int(width), int(height), postprocess.Options{Threshold: threshold})
		if err != nil {
			return
		}
		values, err := postprocess.Upsample(l, int(width), int(height))
		if err != nil {
			t.Fatal(err)
		}
		for i, inside := range postprocess.Pixels(m) {
			if want := float64(values[i]) >= math.Log(threshold/(1-threshold)); want != (inside == 1) {
				t.Fatalf("pixel %d with logit %v is %d", i, values[i], inside)
			}
		}
	})
}

func expectSound(t *testing.T, m *refersam.Mask, width, height int) {
	t.Helper()
	total := 0
	for i, n := range m.Runs {
		if n == 0 && i > 0 {
			t.Fatalf("run %d of %v is empty", i, m.Runs)
		}
		total += int(n)
	}
	if m.Width != width || m.Height != height || total != width*height {
		t.Fatalf("mask of %d×%d with %d pixels, want %d×%d", m.Width, m.Height, total, width, height)
	}
}
