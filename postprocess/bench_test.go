package postprocess_test

import (
	"fmt"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/postprocess"
)

// The benchmarks use the size of a Full HD picture and logits of a 448² model. MB/s
// count the bytes that a mask of bytes would have, although no such mask is made.
// Copying a mask of bytes takes at least 46 µs: 2 MB at some 45 GB/s. Results that
// are computed from runs have a lower floor, given at each benchmark: reading the
// mask's 4,000 or so runs takes 2 µs.
const benchWidth, benchHeight = 1920, 1080

func benchMask(b *testing.B) *refersam.Mask {
	m, err := postprocess.Mask(blobLogits(112, 112), benchWidth, benchHeight, postprocess.Options{Threshold: 0.5})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchWidth * benchHeight)
	b.ReportAllocs()
	return m
}

// patchLogits are logits of a dozen patches of all sizes, with longer outlines than
// most objects; benchmarks/masks.py uses the same.
func patchLogits(b *testing.B) refersam.Logits {
	b.Helper()
	const coarse, side = 8, 112
	values, err := postprocess.Upsample(noiseLogits(coarse, coarse, 1), side, side)
	if err != nil {
		b.Fatal(err)
	}
	return refersam.Logits{Width: side, Height: side, Values: values}
}

// benchmarks/masks.py compares this with torch, OpenCV and pycocotools. Floor:
// classifying the cells, a division for each crossing and writing the runs, some 50
// µs.
func BenchmarkLogitsToRLE(b *testing.B) {
	l := patchLogits(b)
	benchMask(b)
	for b.Loop() {
		m, err := postprocess.Mask(l, benchWidth, benchHeight, postprocess.Options{Threshold: 0.5})
		if err != nil {
			b.Fatal(err)
		}
		postprocess.RLE(m)
	}
}

// The patches as PNG. Floor: deflating 260 kB of mostly equal bytes, 0.3 ms.
func BenchmarkMaskToPNG(b *testing.B) {
	benchMask(b)
	m, err := postprocess.Mask(patchLogits(b), benchWidth, benchHeight, postprocess.Options{Threshold: 0.5})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := postprocess.EncodePNG(io.Discard, m); err != nil {
			b.Fatal(err)
		}
	}
}

// The peer of BenchmarkMaskToPNG: image/png with the same pixels.
func BenchmarkImagePNG(b *testing.B) {
	benchMask(b)
	m, err := postprocess.Mask(patchLogits(b), benchWidth, benchHeight, postprocess.Options{Threshold: 0.5})
	if err != nil {
		b.Fatal(err)
	}
	gray := image.NewGray(image.Rect(0, 0, benchWidth, benchHeight))
	for i, v := range postprocess.Pixels(m) {
		gray.Pix[i] = 255 * v
	}
	for b.Loop() {
		if err := png.Encode(io.Discard, gray); err != nil {
			b.Fatal(err)
		}
	}
}

// Floor: classifying 12,500 cells and writing the runs, some 20 µs.
func BenchmarkMask(b *testing.B) {
	l := blobLogits(112, 112)
	benchMask(b)
	for b.Loop() {
		if _, err := postprocess.Mask(l, benchWidth, benchHeight, postprocess.Options{Threshold: 0.5}); err != nil {
			b.Fatal(err)
		}
	}
}

// The worst case: every cell is crossed. Floor: a division for each crossing,
// 215,000 of 3 ns.
func BenchmarkMask_Noise(b *testing.B) {
	l := noiseLogits(112, 112, 1)
	benchMask(b)
	for b.Loop() {
		if _, err := postprocess.Mask(l, benchWidth, benchHeight, postprocess.Options{Threshold: 0.5}); err != nil {
			b.Fatal(err)
		}
	}
}

// The reference: all upsampled values. Floor: writing 8 MB, 0.5 ms.
func BenchmarkUpsample(b *testing.B) {
	l := blobLogits(112, 112)
	benchMask(b)
	for b.Loop() {
		if _, err := postprocess.Upsample(l, benchWidth, benchHeight); err != nil {
			b.Fatal(err)
		}
	}
}

// Floor: three sigmoids for each of the 50,000 cells of a column in the
// foreground, 2 ns each.
func BenchmarkMeanProbability(b *testing.B) {
	l, m := blobLogits(112, 112), benchMask(b)
	for b.Loop() {
		postprocess.MeanProbability(l, m)
	}
}

// Floor: 2 µs.
func BenchmarkRLE(b *testing.B) {
	m := benchMask(b)
	for b.Loop() {
		postprocess.RLE(m)
	}
}

// Floor: 2 µs.
func BenchmarkDecodeRLE(b *testing.B) {
	counts := postprocess.RLE(benchMask(b))
	for b.Loop() {
		if _, err := postprocess.DecodeRLE(counts, benchWidth, benchHeight); err != nil {
			b.Fatal(err)
		}
	}
}

// Floor: 20 µs for each of labelling, filling and labelling again.
func BenchmarkClean(b *testing.B) {
	m := benchMask(b)
	for b.Loop() {
		postprocess.Clean(m, postprocess.Options{FillHoles: 100, MinArea: 100, Largest: true})
	}
}

// Floor: 20 µs for the vertices of the outline.
func BenchmarkPolygons(b *testing.B) {
	m := benchMask(b)
	for b.Loop() {
		postprocess.Polygons(m, 1)
	}
}

// Floor: deflating 2 MB of mostly equal bytes and summing them up, 1.4 ms.
func BenchmarkEncodePNG8(b *testing.B) {
	m := benchMask(b)
	for b.Loop() {
		if err := postprocess.EncodePNG8(io.Discard, m); err != nil {
			b.Fatal(err)
		}
	}
}

// Floor: deflating 4 MB of smooth levels, 6 ms.
func BenchmarkEncodeProbability(b *testing.B) {
	l := blobLogits(112, 112)
	benchMask(b)
	for b.Loop() {
		if err := postprocess.EncodeProbability(io.Discard, l, benchWidth, benchHeight); err != nil {
			b.Fatal(err)
		}
	}
}

// Floor: the work of image/jpeg apart from reading pixels, 14 ms.
func BenchmarkEncodeOverlayJPEG(b *testing.B) {
	m := benchMask(b)
	p := &refersam.Picture{Width: benchWidth, Height: benchHeight, Pix: make([]uint8, 3*benchWidth*benchHeight)}
	for b.Loop() {
		if err := postprocess.EncodeOverlayJPEG(io.Discard, p, m, postprocess.Tint{R: 255, Opacity: 0.5}, 85); err != nil {
			b.Fatal(err)
		}
	}
}

// Floor: 20 µs for the vertices of the outline.
func BenchmarkPolygons_Exact(b *testing.B) {
	m := benchMask(b)
	for b.Loop() {
		postprocess.Polygons(m, 0)
	}
}

// The worst mask: every pixel of 4096² is random. Floor: reading the 12 million
// vertices once takes 20 ms.
func BenchmarkPolygons_Noise(b *testing.B) {
	pix := make([]uint8, 4096*4096)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range pix {
		pix[i] = uint8(random.Uint32() & 1)
	}
	m := postprocess.FromPixels(pix, 4096, 4096)
	for _, tolerance := range []float64{0, 1, 10, 1000} {
		b.Run(fmt.Sprint(tolerance), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				postprocess.Polygons(m, tolerance)
			}
		})
	}
}
