package preprocess_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
)

// expectClientError fails unless err is one that a client can act on, and no
// codec's panic.
func expectClientError(t *testing.T, err error) {
	t.Helper()
	var e *refersam.Error
	if !errors.As(err, &e) || e.At != refersam.AtImage || e.Message == "" {
		t.Fatalf("error %v", err)
	}
	if e.Err != nil && strings.HasPrefix(e.Err.Error(), "panic:") {
		t.Fatalf("codec panics: %v", e.Err)
	}
	switch e.Code {
	case refersam.CodeInvalidImage, refersam.CodeUnsupportedMedia, refersam.CodeImageTooLarge:
	default:
		t.Fatalf("code %s", e.Code)
	}
}

// FuzzDecode holds that whatever comes in gives a picture within the limits or
// an error that a client can act on.
func FuzzDecode(f *testing.F) {
	for _, data := range encoded(f) {
		f.Add(data)
	}
	cfg := preprocess.DefaultConfig()
	cfg.MaxBytes, cfg.MaxPixels, cfg.MaxSide = 1<<16, 1<<16, 1<<10
	d := newDecoder(f, cfg)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decode(context.Background(), d, data)
		if err != nil {
			expectClientError(t, err)
			return
		}
		if p.Width < 1 || p.Height < 1 || len(p.Pix) != 3*p.Width*p.Height ||
			p.Width > cfg.MaxSide || p.Height > cfg.MaxSide || p.Width*p.Height > cfg.MaxPixels {
			t.Fatalf("picture of %d×%d with %d bytes", p.Width, p.Height, len(p.Pix))
		}
	})
}

// fuzzHeader holds of one format that whatever follows its magic bytes has a
// size, a cost and a number of frames within the limits, or is an error that a
// client can act on. Nothing is decoded, so that most of the time goes into the
// parser of the header.
func fuzzHeader(f *testing.F, extension, magic string) {
	for name, data := range encoded(f) {
		if strings.HasSuffix(name, extension) && strings.HasPrefix(string(data), magic) {
			f.Add(data[len(magic):])
		}
	}
	cfg := preprocess.DefaultConfig()
	cfg.MaxFrames = 20
	d := newDecoder(f, cfg)
	f.Fuzz(func(t *testing.T, rest []byte) {
		e, err := d.Open(t.Context(), append([]byte(magic), rest...))
		if err != nil {
			expectClientError(t, err)
			return
		}
		defer e.Close()
		width, height := e.Size()
		if width < 1 || height < 1 || width > cfg.MaxSide || height > cfg.MaxSide || width*height > cfg.MaxPixels {
			t.Fatalf("%d×%d pixels", width, height)
		}
		const base, most = 36_000, 12 // a pixel of a lossless WebP costs most
		if cost := e.Cost(); cost < int64(width*height) || cost > base+most*int64(width*height) {
			t.Fatalf("%d×%d pixels cost %d", width, height, cost)
		}
	})
}

func FuzzOpenJPEG(f *testing.F) { fuzzHeader(f, ".jpg", "\xff\xd8\xff") }
func FuzzOpenPNG(f *testing.F)  { fuzzHeader(f, ".png", "\x89PNG\r\n\x1a\n") }
func FuzzOpenWebP(f *testing.F) { fuzzHeader(f, ".webp", "RIFF") }
func FuzzOpenGIF(f *testing.F)  { fuzzHeader(f, ".gif", "GIF89a") }
func FuzzOpenBMP(f *testing.F)  { fuzzHeader(f, ".bmp", "BM") }
func FuzzOpenTIFF(f *testing.F) { fuzzHeader(f, ".tiff", "II*\x00") }

// FuzzOpenAny chooses the format, too.
func FuzzOpenAny(f *testing.F) { fuzzHeader(f, "", "") }

// FuzzEXIF holds that no EXIF block costs the picture that it comes with: it is
// turned or it is not.
func FuzzEXIF(f *testing.F) {
	turned := readFile(f, "testdata/decode/exif6.jpg")
	block := after(f, turned, "Exif\x00\x00")
	f.Add(turned[block : block+64])
	f.Add([]byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("MM\x00*\xff\xff\xff\xff"))
	plain := readFile(f, "testdata/decode/420.jpg") // 47×35
	d := newDecoder(f, preprocess.DefaultConfig())
	f.Fuzz(func(t *testing.T, tiff []byte) {
		if len(tiff) > 1<<16-9 {
			return
		}
		segment := append([]byte("Exif\x00\x00"), tiff...)
		data := binary.BigEndian.AppendUint16([]byte("\xff\xd8\xff\xe1"), uint16(len(segment)+2))
		data = append(append(data, segment...), plain[2:]...)
		p, err := decode(t.Context(), d, data)
		if err != nil {
			t.Fatal(err)
		}
		if size := [2]int{p.Width, p.Height}; size != [2]int{47, 35} && size != [2]int{35, 47} {
			t.Fatalf("%v pixels", size)
		}
	})
}

// A corpus of broken pictures, the same in every run: bytes changed, pieces cut
// out or doubled. `make test` runs it under the sanitizers too.
func TestDecode_Broken(t *testing.T) {
	configs := map[string]preprocess.Config{"": preprocess.DefaultConfig()}
	if preprocess.JPEGDecoder == "libjpeg-turbo" {
		lenient, reduced := preprocess.DefaultConfig(), preprocess.DefaultConfig()
		lenient.LenientJPEG, reduced.ReduceJPEG = true, true
		configs["lenient"], configs["reduced"] = lenient, reduced
	}
	for kind, cfg := range configs {
		cfg.MaxPixels = 1 << 18
		d := newDecoder(t, cfg)
		for name, data := range encoded(t) {
			if kind != "" && !strings.HasSuffix(name, ".jpg") {
				continue
			}
			t.Run(fmt.Sprint(name, " ", kind), func(t *testing.T) {
				random := generator(uint32(len(data)))
				for range 100 {
					broken := mangle(data, &random)
					pixels, err := stretch(d, broken, 8, 8)
					if err != nil {
						expectClientError(t, err)
					} else if len(pixels) != 3*8*8 {
						t.Fatalf("%d bytes of pixels", len(pixels))
					}
				}
			})
		}
	}
}

// generator is a linear congruential one.
type generator uint32

func (g *generator) below(n int) int {
	*g = *g*1664525 + 1013904223
	return int(uint64(*g) * uint64(n) >> 32)
}

// mangle breaks a picture in one to three places behind its magic bytes.
func mangle(data []byte, random *generator) []byte {
	const magic = 4
	out := append([]byte(nil), data...)
	for range 1 + random.below(3) {
		if len(out) <= magic+1 {
			break
		}
		at := magic + random.below(len(out)-magic)
		n := min(1+random.below(16), len(out)-at)
		switch random.below(4) {
		case 0:
			out[at] = byte(random.below(256))
		case 1:
			out[at] ^= 1 << random.below(8)
		case 2:
			out = append(out[:at], out[at+n:]...)
		default:
			out = append(out[:at+n], append([]byte(nil), out[at:]...)...)
		}
	}
	return out
}
