package load_test

import (
	"bytes"
	"image/jpeg"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/refersam/refersam/benchmarks/load"
)

// The number of arrivals matches the shape, and its variance per second equals its
// mean, as in a Poisson process.
func TestArrivals(t *testing.T) {
	const seconds = 2000
	for _, shape := range []load.Shape{
		load.Steady(50), load.Bursts(25, 150, 10*time.Second), load.Ramp(10, 90, seconds*time.Second),
	} {
		t.Run(shape.Name, func(t *testing.T) {
			counts := make([]float64, seconds)
			for _, at := range load.Arrivals(rand.New(rand.NewPCG(1, 1)), shape, seconds*time.Second) {
				counts[int(at.Seconds())]++
			}
			var sum, excess float64
			for second, n := range counts {
				want := shape.Rate(time.Duration(second)*time.Second + time.Second/2)
				sum += n / want
				excess += (n - want) * (n - want) / want
			}
			if mean := sum / seconds; math.Abs(mean-1) > 0.02 {
				t.Errorf("%.3f of the arrivals that the shape has", mean)
			}
			if variance := excess / seconds; math.Abs(variance-1) > 0.1 {
				t.Errorf("variance is %.3f times the mean, want that of a Poisson process, 1", variance)
			}
		})
	}
}

// If a service stops for a while, the latency of all requests that were due
// meanwhile includes the stop.
func TestLatencyCountsFromWhenItWasDue(t *testing.T) {
	const stop = 500 * time.Millisecond
	begin := time.Now()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(stop - time.Since(begin)) // the stop of the service, over real connections
	}))
	defer server.Close()
	target := load.NewTarget(server.URL)
	defer target.Close()
	random := rand.New(rand.NewPCG(1, 1))
	source := load.NewSource(random, 1, 16, 16, 1).With(load.Request{Deadline: stop / 2})
	outcomes := target.Open(t.Context(), random, load.Steady(100), stop, source.Next)
	s := load.Summarize(outcomes, 0, stop)
	if s.Failed > 0 || s.OK == 0 || math.Abs(float64(s.Late)/float64(s.Requests)-0.5) > 0.2 {
		t.Errorf("%v; half of the requests were due before half of the stop", s)
	}
}

// Requests are valid for the API, and no two are equal.
func TestSource(t *testing.T) {
	source := load.NewSource(rand.New(rand.NewPCG(1, 1)), 2, 64, 48, 2)
	seen := map[string]bool{}
	for range 10 {
		r := source.Next()
		if img, err := jpeg.Decode(bytes.NewReader(r.Picture)); err != nil || img.Bounds().Dx() != 64 || img.Bounds().Dy() != 48 {
			t.Fatal("not a JPEG of 64 × 48:", err)
		}
		for _, key := range append(r.Phrases, string(r.Picture)) {
			if seen[key] {
				t.Errorf("%.40q is there twice", key)
			}
			seen[key] = true
		}
	}
}

func TestUsageOf(t *testing.T) {
	before, err := load.UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; {
		continue
	}
	after, err := load.UsageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.CPU <= before.CPU || after.Memory == 0 || after.Peak < after.Memory {
		t.Errorf("%+v, then %+v", before, after)
	}
}
