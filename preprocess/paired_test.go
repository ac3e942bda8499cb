//go:build cgo && libjpeg

package preprocess_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/refersam/refersam/preprocess"
)

// BenchmarkDecoders decodes and resizes a baseline JPEG with each decoder in
// turn, in another order each round, with the same C resizer behind all. It
// reports for each decoder the median and the least time of all rounds, and the
// median of its time relative to the AVX2 decoder's time in the same round.
func BenchmarkDecoders(b *testing.B) {
	decoders := []string{"AVX2", "libjpeg-turbo", "Go"}
	for name, data := range benchPictures(b) {
		b.Run(name, func(b *testing.B) {
			times, ratios := make([][]float64, len(decoders)), make([][]float64, len(decoders))
			var want []uint8
			for round := 0; b.Loop(); round++ {
				took := make([]float64, len(decoders))
				for n := range decoders {
					i := (n + round) % len(decoders)
					start := time.Now()
					got, err := preprocess.StretchJPEG(decoders[i], data, benchSide, benchSide)
					took[i] = float64(time.Since(start).Nanoseconds()) / 1e6
					if err != nil {
						b.Fatal(err)
					}
					if want == nil {
						want = got
					}
					if !bytes.Equal(got, want) {
						b.Fatalf("%s makes other pixels", decoders[i])
					}
				}
				for i := range decoders {
					times[i] = append(times[i], took[i])
					ratios[i] = append(ratios[i], took[i]/took[0])
				}
			}
			for i, d := range decoders {
				slices.Sort(times[i])
				slices.Sort(ratios[i])
				b.ReportMetric(times[i][0], d+"-least-ms")
				b.ReportMetric(times[i][len(times[i])/2], d+"-median-ms")
				b.ReportMetric(ratios[i][len(ratios[i])/2], d+"/AVX2")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
