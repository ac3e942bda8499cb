//go:build cgo && libjpeg

package jpeg_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/refersam/refersam/preprocess/jpeg"
	"github.com/refersam/refersam/preprocess/jpegtest"
)

// BenchmarkDecoders decodes pictures with both decoders in turn, in another order
// each round. It reports for each decoder the least and the median time of all
// rounds, and the median of the ratio of the two within a round. The pictures
// are the JPEGs in REFERSAM_BENCH_PICTURES; without it, noise of 1920×1080.
func BenchmarkDecoders(b *testing.B) {
	pictures := map[string][]byte{"1920x1080.jpg": jpegtest.Encode(b, 1920, 1080, 90, 1)}
	if folder := os.Getenv("REFERSAM_BENCH_PICTURES"); folder != "" {
		names, err := filepath.Glob(filepath.Join(folder, "*.jpg"))
		if err != nil || len(names) == 0 {
			b.Fatalf("no pictures in %s: %v", folder, err)
		}
		clear(pictures)
		for _, name := range names {
			if pictures[filepath.Base(name)], err = os.ReadFile(name); err != nil {
				b.Fatal(err)
			}
		}
	}
	decoders := []func([]byte) ([]uint8, error){jpeg.DecodeLibJPEG, jpeg.DecodeGo}
	for name, data := range pictures {
		b.Run(name, func(b *testing.B) {
			var times [2][]float64
			var ratios []float64
			for round := 0; b.Loop(); round++ {
				for n := range decoders {
					i := (n + round) % 2
					start := time.Now()
					if _, err := decoders[i](data); err != nil {
						b.Fatal(err)
					}
					times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/1e6)
				}
				ratios = append(ratios, times[1][round]/times[0][round])
			}
			for i, decoder := range []string{jpeg.LibJPEG, "Go"} {
				slices.Sort(times[i])
				b.ReportMetric(times[i][0], decoder+"-least-ms")
				b.ReportMetric(times[i][len(times[i])/2], decoder+"-median-ms")
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "Go/libjpeg-turbo")
			b.ReportMetric(0, "ns/op")
		})
	}
}
