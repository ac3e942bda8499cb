package preprocess_test

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/refersam/refersam/preprocess"
	"github.com/refersam/refersam/preprocess/jpegtest"
)

// A JPEG is resized as it is decoded: 36 MB of pixels pass by, turned or not,
// and what is allocated is the result, once more to turn it, the rows that make
// one of the result, and a decoder if the pool has none at hand.
func TestStretch_Memory(t *testing.T) {
	const (
		side    = 448
		result  = 3 * side * side
		rows    = 16 * 3 * 4032
		small   = 16 << 10
		buffers = 1 << 20 // more than a decoder has
		calls   = 4
	)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the pool keeps what it has
	allocated := func(f func()) uint64 {
		var before, behind runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&behind)
		return behind.TotalAlloc - before.TotalAlloc
	}
	d := newDecoder(t, preprocess.DefaultConfig())
	data := jpegtest.Encode(t, 4032, 3024, 50, 1)
	exif := readFile(t, "testdata/decode/exif6.jpg")
	app1 := bytes.Index(exif, []byte("\xff\xe1"))
	turned := bytes.Join([][]byte{data[:2], exif[app1 : app1+2+int(exif[app1+2])<<8+int(exif[app1+3])], data[2:]}, nil)

	for _, tt := range []struct {
		name  string
		data  []byte
		limit uint64
	}{{"upright", data, result + rows + small}, {"turned", turned, 2*result + rows + small}} {
		call := func() {
			if _, err := stretch(d, tt.data, side, side); err != nil {
				t.Error(err)
			}
		}
		call()
		if got := allocated(func() {
			for range calls {
				call()
			}
		}); got > calls*tt.limit+buffers {
			t.Errorf("%s: %d pictures take %d bytes, want at most %d", tt.name, calls, got, calls*tt.limit+buffers)
		}
		if got := allocated(func() {
			var wg sync.WaitGroup
			for range calls {
				wg.Go(call)
			}
			wg.Wait()
		}); got > calls*(tt.limit+buffers) {
			t.Errorf("%s: %d pictures at once take %d bytes, want at most %d", tt.name, calls, got, calls*(tt.limit+buffers))
		}
	}
}

// Turning while resizing gives what resizing the turned picture does, whichever
// axis comes first.
func TestStretch_EqualsResize(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	for name, data := range encoded(t) {
		p, err := decode(context.Background(), d, data)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, size := range [][2]int{{5, 6}, {6, 1}, {p.Width, 3}, {40, p.Height}, {p.Width, p.Height}} {
			got, err := stretch(d, data, size[0], size[1])
			if err != nil {
				t.Fatal(name, err)
			}
			if want := preprocess.ResizeExact(p, size[0], size[1]); !bytes.Equal(got, want) {
				t.Errorf("%s to %v: samples differ", name, size)
			}
		}
	}
}
