package preprocess_test

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/draw"

	"github.com/refersam/refersam/preprocess"
)

// benchSide is a common side of the square that a model reads.
const benchSide = 448

// benchPictures are JPEGs from REFERSAM_BENCH_PICTURES, where benchmarks/pictures.py
// puts those that it gives to Pillow too; without it, noise that image/jpeg made.
func benchPictures(b *testing.B) map[string][]byte {
	b.Helper()
	pictures := make(map[string][]byte)
	if folder := os.Getenv("REFERSAM_BENCH_PICTURES"); folder != "" {
		names, err := filepath.Glob(filepath.Join(folder, "*.jpg"))
		if err != nil || len(names) == 0 {
			b.Fatalf("no pictures in %s: %v", folder, err)
		}
		for _, name := range names {
			pictures[filepath.Base(name)] = readFile(b, name)
		}
		return pictures
	}
	for name, size := range map[string][2]int{"640x480.jpg": {640, 480}, "1920x1080.jpg": {1920, 1080}} {
		p := noise(size[0], size[1], 1)
		img := image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
		for i := range p.Width * p.Height {
			img.SetRGBA(i%p.Width, i/p.Width, color.RGBA{p.Pix[3*i] / 4, p.Pix[3*i+1] / 4, p.Pix[3*i+2] / 4, 255})
		}
		var data bytes.Buffer
		if err := jpeg.Encode(&data, img, &jpeg.Options{Quality: 90}); err != nil {
			b.Fatal(err)
		}
		pictures[name] = data.Bytes()
	}
	return pictures
}

// MB/s count the decoded RGB pixels. Floor: writing and reading them once runs
// at some 15 GB/s. libjpeg-turbo takes 2.3 ms to read the coefficients of a
// picture of 1920×1080 and to do nothing with them, and 3.9 ms to decode it. The
// target of 2.5 times Pillow's speed is not met at 1920×1080.
func BenchmarkStretch(b *testing.B) {
	d := newDecoder(b, preprocess.DefaultConfig())
	for name, data := range benchPictures(b) {
		b.Run(name, func(b *testing.B) {
			p, err := decode(context.Background(), d, data)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(p.Pix)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := stretch(d, data, benchSide, benchSide); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStandard decodes and resizes as most Go programs do. The pixels
// differ, see docs/architecture.md.
func BenchmarkStandard(b *testing.B) {
	for name, data := range benchPictures(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				img, err := jpeg.Decode(bytes.NewReader(data))
				if err != nil {
					b.Fatal(err)
				}
				dst := image.NewRGBA(image.Rect(0, 0, benchSide, benchSide))
				draw.BiLinear.Scale(dst, dst.Rect, img, img.Bounds(), draw.Src, nil)
			}
		})
	}
}
