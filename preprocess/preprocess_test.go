package preprocess_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/refersam/refersam"
	"github.com/refersam/refersam/preprocess"
)

// encoded lists the pictures of testdata/decode by name.
func encoded(t testing.TB) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	names, err := os.ReadDir("testdata/decode")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if filepath.Ext(n.Name()) != ".rgb" {
			all[n.Name()] = readFile(t, "testdata/decode/"+n.Name())
		}
	}
	return all
}

// patch returns data with bytes overwritten at offset.
func patch(data []byte, offset int, with ...byte) []byte {
	data = bytes.Clone(data)
	copy(data[offset:], with)
	return data
}

// after returns the offset behind the first occurrence of marker.
func after(t testing.TB, data []byte, marker string) int {
	t.Helper()
	i := bytes.Index(data, []byte(marker))
	if i < 0 {
		t.Fatalf("no %q", marker)
	}
	return i + len(marker)
}

// pngOfSize makes a PNG with a size and its checksum in the header.
func pngOfSize(t testing.TB, width, height uint32) []byte {
	data := readFile(t, "testdata/decode/rgb.png")
	size := binary.BigEndian.AppendUint32(nil, width)
	data = patch(data, 16, binary.BigEndian.AppendUint32(size, height)...)
	return patch(data, 29, binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data[12:29]))...)
}

// pngOfType makes a PNG with a colour type and its checksum in the header.
func pngOfType(t testing.TB, colourType byte) []byte {
	data := patch(readFile(t, "testdata/decode/rgb.png"), 25, colourType)
	return patch(data, 29, binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data[12:29]))...)
}

// tiffEntry returns where the entry of a tag is in the directory of a TIFF.
func tiffEntry(t testing.TB, data []byte, tag uint16) int {
	t.Helper()
	directory := int(binary.LittleEndian.Uint32(data[4:]))
	for i := range int(binary.LittleEndian.Uint16(data[directory:])) {
		if entry := directory + 2 + 12*i; binary.LittleEndian.Uint16(data[entry:]) == tag {
			return entry
		}
	}
	t.Fatalf("no tag %#x", tag)
	return 0
}

func TestDecode_Err(t *testing.T) {
	var (
		jpg      = readFile(t, "testdata/decode/420.jpg")
		png      = readFile(t, "testdata/decode/rgb.png")
		gif      = readFile(t, "testdata/decode/offset.gif")
		lossy    = readFile(t, "testdata/decode/lossy.webp")
		alpha    = readFile(t, "testdata/decode/lossy-alpha.webp")
		lossless = readFile(t, "testdata/decode/lossless.webp")
		animated = readFile(t, "testdata/decode/animated.webp")
		bmp      = readFile(t, "testdata/decode/rgb.bmp")
		tiff     = readFile(t, "testdata/decode/rgb.tiff")

		jpegFrame = after(t, jpg, "\xff\xc0")
	)
	const gifPalette = 3 * 8 // bytes behind the header
	const side = "\xea\x60"  // 60000
	for _, tt := range []struct {
		name    string
		data    []byte
		code    refersam.Code
		message string
	}{
		{"nil", nil, refersam.CodeInvalidImage, "0 bytes"},
		{"0 bytes", []byte{}, refersam.CodeInvalidImage, "0 bytes"},
		{"1 byte", []byte{0xff}, refersam.CodeUnsupportedMedia, "JPEG, PNG, WebP, GIF, BMP or TIFF"},
		{"text", []byte("a cat on a mat"), refersam.CodeUnsupportedMedia, "JPEG, PNG, WebP, GIF, BMP or TIFF"},
		{"SVG", []byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), refersam.CodeUnsupportedMedia, "JPEG, PNG, WebP, GIF, BMP or TIFF"},
		{"ICO", []byte("\x00\x00\x01\x00\x01\x00"), refersam.CodeUnsupportedMedia, "JPEG, PNG, WebP, GIF, BMP or TIFF"},
		{"WAV", []byte("RIFF\x24\x00\x00\x00WAVEfmt "), refersam.CodeUnsupportedMedia, "JPEG, PNG, WebP, GIF, BMP or TIFF"},
		{"HEIC whose first box is shorter than its header", []byte("\x00\x00\x00\x01ftypheicmif1heic"), refersam.CodeUnsupportedMedia, "JPEG, PNG, WebP, GIF, BMP or TIFF"},
		{"20 MiB and a byte", make([]byte, 20<<20+1), refersam.CodeImageTooLarge, "20971521 bytes; at most 20971520"},

		{"JPEG magic alone", jpg[:3], refersam.CodeInvalidImage, "JPEG"},
		{"PNG magic alone", png[:8], refersam.CodeInvalidImage, "PNG"},
		{"WebP magic alone", lossy[:12], refersam.CodeInvalidImage, "WebP"},
		{"GIF magic alone", gif[:6], refersam.CodeInvalidImage, "GIF"},
		{"BMP magic alone", []byte("BM"), refersam.CodeInvalidImage, "BMP"},
		{"TIFF magic alone", []byte("II*\x00"), refersam.CodeInvalidImage, "TIFF"},
		{"JPEG whose scan ends early", append(bytes.Clone(jpg[:len(jpg)/2]), 0xff, 0xd9), refersam.CodeInvalidImage, "JPEG"},
		{"JPEG with two SOI markers", append([]byte("\xff\xd8"), jpg...), refersam.CodeInvalidImage, "two SOI markers"},
		{"PNG with a wrong checksum", patch(png, len(png)-14, 1, 2), refersam.CodeInvalidImage, "PNG"},
		{"PNG without IEND", png[:len(png)-12], refersam.CodeInvalidImage, "it ends before its IEND chunk"},
		{"PNG that ends in its IDAT", png[:len(png)-40], refersam.CodeInvalidImage, "it ends in its chunk IDAT, before its IEND chunk"},
		{"PNG without PLTE", pngOfType(t, 3), refersam.CodeInvalidImage, "no PLTE chunk"},
		{"PNG of fewer rows", pngOfSize(t, 13, 10), refersam.CodeInvalidImage, "ends in row 9 of 10"},
		{"PNG with a wrong checksum of IHDR", patch(png, 29, 0), refersam.CodeInvalidImage, "the checksum of its chunk IHDR"},
		{"GIF of fewer pixels", patch(gif, after(t, gif, ",")+4, 7), refersam.CodeInvalidImage, "first frame has the data of 30 pixels"},
		{"BMP cut off", bmp[:len(bmp)-30], refersam.CodeInvalidImage, "its rows need"},
		{"TIFF cut off in its pixels", tiff[:len(tiff)-3], refersam.CodeInvalidImage, "the data of block 0 ends at byte"},
		{"TIFF cut off in its directory", tiff[:20], refersam.CodeInvalidImage, "its directory"},
		{"TIFF whose strip is beyond the end", patch(tiff, tiffEntry(t, tiff, 0x0111)+8, 0xff, 0xff), refersam.CodeInvalidImage, "block 0 ends at byte"},
		{"PNG without IHDR", patch(png, 12, 'i', 'H', 'D', 'R'), refersam.CodeInvalidImage, "PNG"},
		{"WebP without a frame", append([]byte("RIFF\x0e\x00\x00\x00WEBPXMP \x02\x00\x00\x00ab"), 0), refersam.CodeInvalidImage, "WebP"},
		{"WebP whose canvas is not its frame", patch(alpha, 24, 1), refersam.CodeInvalidImage, "WebP"},
		{"WebP whose frame is no key frame", patch(lossy, 20, lossy[20]|1), refersam.CodeInvalidImage, "WebP"},
		{"WebP frame of another size", patch(animated, after(t, animated, "ANMF")+10, 9), refersam.CodeInvalidImage, "WebP"},
		{"WebP frame beside its canvas", patch(animated, after(t, animated, "ANMF")+4, 9), refersam.CodeInvalidImage, "WebP"},
		{"GIF without a frame", append(bytes.Clone(gif[:13+gifPalette]), ';'), refersam.CodeInvalidImage, "GIF"},

		{"JPEG of 12 bits", patch(jpg, jpegFrame+2, 12), refersam.CodeUnsupportedMedia, "not supported"},
		{"JPEG with arithmetic coding", patch(jpg, jpegFrame-1, 0xc9), refersam.CodeUnsupportedMedia, "not supported"},
		{"BMP of 2 bits", patch(bmp, 28, 2), refersam.CodeUnsupportedMedia, "not supported: 2 bits a pixel"},
		{"BMP with runs", patch(bmp, 30, 1), refersam.CodeUnsupportedMedia, "not supported: runs with 24 bits a pixel"},
		{"TIFF with fax compression", patch(tiff, tiffEntry(t, tiff, 0x0103)+8, 4), refersam.CodeUnsupportedMedia, "not supported: fax compression"},
		{"TIFF of YCbCr", patch(tiff, tiffEntry(t, tiff, 0x0106)+8, 6), refersam.CodeUnsupportedMedia, "not supported: YCbCr"},
		{"TIFF of 0 bits", patch(tiff, tiffEntry(t, tiff, 0x0102)+2, 3, 0, 1, 0, 0, 0, 0, 0), refersam.CodeInvalidImage, "TIFF"},
		{"TIFF of 60000×60000", patch(patch(tiff, tiffEntry(t, tiff, 0x0100)+8, 0x60, 0xea), tiffEntry(t, tiff, 0x0101)+8, 0x60, 0xea), refersam.CodeImageTooLarge, "60000×60000"},
		{"TIFF with a huge directory", patch(tiff, int(binary.LittleEndian.Uint32(tiff[4:])), 0xff, 0xff), refersam.CodeInvalidImage, "TIFF"},
		{"PNG of 3 bits", func() []byte {
			data := patch(png, 24, 3)
			return patch(data, 29, binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data[12:29]))...)
		}(), refersam.CodeUnsupportedMedia, "not supported"},

		{"JPEG without height", patch(jpg, jpegFrame+3, 0, 0), refersam.CodeInvalidImage, "47×0"},
		{"PNG without width", pngOfSize(t, 0, 5), refersam.CodeInvalidImage, "0×5"},
		{"PNG of negative width", pngOfSize(t, 1<<31, 5), refersam.CodeInvalidImage, "PNG"},
		{"JPEG of 60000×60000", patch(jpg, jpegFrame+3, []byte(side+side)...), refersam.CodeImageTooLarge, "60000×60000"},
		{"PNG of 60000×60000", pngOfSize(t, 60000, 60000), refersam.CodeImageTooLarge, "60000×60000"},
		{"PNG of 2³¹-1 squared", pngOfSize(t, 1<<31-1, 1<<31-1), refersam.CodeImageTooLarge, "each side may have at most 16384"},
		{"PNG of 8000×8000", pngOfSize(t, 8000, 8000), refersam.CodeImageTooLarge, "64000000 pixels; at most 50000000"},
		{"PNG of 16385×1", pngOfSize(t, 16385, 1), refersam.CodeImageTooLarge, "16385×1"},
		{"GIF on a screen of 60000×60000", patch(gif, 6, 0x60, 0xea, 0x60, 0xea), refersam.CodeImageTooLarge, "60000×60000"},
		{"GIF frame of 60000×60000", patch(gif, 13+gifPalette+1+4, 0x60, 0xea, 0x60, 0xea), refersam.CodeImageTooLarge, "60003×60002"},
		{"BMP of 60000×60000", patch(bmp, 18, 0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0), refersam.CodeImageTooLarge, "60000×60000"},
		{"BMP of -60000×60000", patch(bmp, 18, 0xa0, 0x15, 0xff, 0xff, 0x60, 0xea, 0, 0), refersam.CodeInvalidImage, "-60000×60000"},
		{"WebP of 16383×16383", patch(lossy, 26, 0xff, 0x3f, 0xff, 0x3f), refersam.CodeImageTooLarge, "16383×16383"},
		{"lossless WebP of 16384×16384", patch(lossless, 21, 0xff, 0xff, 0xff, 0x0f), refersam.CodeImageTooLarge, "16384×16384"},
		{"WebP canvas of 60000×60000", patch(animated, 24, 0x5f, 0xea, 0, 0x5f, 0xea, 0), refersam.CodeImageTooLarge, "60000×60000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDecoder(t, preprocess.DefaultConfig())
			var before, behind runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := decode(context.Background(), d, tt.data)
			runtime.ReadMemStats(&behind)

			var e *refersam.Error
			if !errors.As(err, &e) {
				t.Fatalf("got error %v, want a *refersam.Error", err)
			}
			if e.Code != tt.code || e.At != refersam.AtImage || !strings.Contains(e.Message, tt.message) {
				t.Errorf("got %v, want code %s and message with %q", err, tt.code, tt.message)
			}
			const limit = 1 << 20
			if got := behind.TotalAlloc - before.TotalAlloc; got > limit {
				t.Errorf("refusing took %d bytes of memory, want at most %d", got, limit)
			}
		})
	}
}

// Cutting a file anywhere gives an error or, near the end, the picture.
func TestDecode_Truncated(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	for name, data := range encoded(t) {
		t.Run(name, func(t *testing.T) {
			whole, err := decode(context.Background(), d, data)
			if err != nil {
				t.Fatal(err)
			}
			for n := 12; n < len(data); n += 1 + len(data)/500 {
				got, err := decode(context.Background(), d, data[:n])
				if err != nil {
					if code := refersam.ErrorCode(err); code != refersam.CodeInvalidImage {
						t.Fatalf("first %d of %d bytes: %v", n, len(data), err)
					}
					continue
				}
				if n < len(data)/2 {
					t.Errorf("first %d of %d bytes pass for a picture", n, len(data))
				}
				if got.Width*got.Height != whole.Width*whole.Height {
					t.Errorf("first %d of %d bytes are %d×%d", n, len(data), got.Width, got.Height)
				}
			}
		})
	}
}

// Bytes behind a picture do not matter, as in a JPEG with a film behind it.
func TestDecode_TrailingBytes(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	for name, data := range encoded(t) {
		if name == "noend.jpg" {
			continue
		}
		want, err := decode(context.Background(), d, data)
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := decode(context.Background(), d, append(bytes.Clone(data), "trailing bytes"...))
		if err != nil {
			t.Error(name, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A broken EXIF block does not cost the picture.
func TestDecode_BrokenEXIF(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	data := readFile(t, "testdata/decode/exif6.jpg")
	tiff := after(t, data, "Exif\x00\x00")
	for name, broken := range map[string][]byte{
		"byte order":         patch(data, tiff, 'X', 'X'),
		"directory far away": patch(data, tiff+4, 0xff, 0xff, 0xff, 0xff),
		"endless directory":  patch(data, tiff+8, 0xff, 0xff, 0, 0),
		"orientation 9":      patch(data, tiff+8+2+8, 0, 9),
		"orientation 0":      patch(data, tiff+8+2+8, 0, 0),
		"orientation a text": patch(data, tiff+8+2+2, 0, 2),
	} {
		got, err := decode(context.Background(), d, broken)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Width != 13 || got.Height != 9 {
			t.Errorf("%s: turned to %d×%d", name, got.Width, got.Height)
		}
	}
}

func TestDecode_Limits(t *testing.T) {
	data := readFile(t, "testdata/decode/rgb.png") // 13×9
	for _, tt := range []struct {
		name   string
		change func(*preprocess.Config)
		code   refersam.Code
	}{
		{"at every limit", func(*preprocess.Config) {}, ""},
		{"a byte too many", func(c *preprocess.Config) { c.MaxBytes-- }, refersam.CodeImageTooLarge},
		{"a pixel too many", func(c *preprocess.Config) { c.MaxPixels-- }, refersam.CodeImageTooLarge},
		{"a column too many", func(c *preprocess.Config) { c.MaxSide-- }, refersam.CodeImageTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := preprocess.DefaultConfig()
			cfg.MaxBytes, cfg.MaxPixels, cfg.MaxSide = int64(len(data)), 13*9, 13
			tt.change(&cfg)
			_, err := decode(context.Background(), newDecoder(t, cfg), data)
			if got := refersam.ErrorCode(err); got != tt.code {
				t.Errorf("got %v, want code %q", err, tt.code)
			}
		})
	}
}

// gate is a context that lets a decoder pass only once it is opened: codecs
// ask for its error before they read.
type gate struct {
	context.Context
	reached func()
	open    <-chan struct{}
}

func (g gate) Err() error {
	g.reached()
	<-g.open
	return g.Context.Err()
}

func TestDecode_WaitsForMemory(t *testing.T) {
	data := readFile(t, "testdata/decode/rgb.png")
	d := newDecoder(t, preprocess.DefaultConfig())
	d.SetMemory(1) // whatever is decoded takes all

	open, reached := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := decode(gate{context.Background(), sync.OnceFunc(func() { close(reached) }), open}, d, data)
		first <- err
	}()
	<-reached

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err := decode(ctx, d, data)
	if refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while memory is taken: %v", err)
	}
	close(open)
	if err := <-first; err != nil {
		t.Errorf("first picture: %v", err)
	}
	if _, err := decode(context.Background(), d, data); err != nil {
		t.Errorf("once memory is free: %v", err)
	}
}

func TestDecode_Canceled(t *testing.T) {
	d := newDecoder(t, preprocess.DefaultConfig())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, data := range encoded(t) {
		_, err := decode(ctx, d, data)
		if refersam.ErrorCode(err) != refersam.CodeDeadlineExceeded || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuard(t *testing.T) {
	cause := errors.New("cause")
	if err := preprocess.Guard(func() error { return cause }); !errors.Is(err, cause) {
		t.Errorf("error became %v", err)
	}
	err := preprocess.Guard(func() error { panic("index out of range") })
	if err == nil || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("panic became %v", err)
	}
}

func TestConfig_Validate(t *testing.T) {
	cfg := preprocess.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	bad := preprocess.Config{MaxPixels: 50_000_000, DecodeMemory: 24 * 50_000_000}
	err := bad.Validate()
	for _, name := range []string{"MAX_IMAGE_BYTES", "MAX_IMAGE_SIDE", "MAX_IMAGE_FRAMES", "DECODE_MEMORY_BYTES"} {
		if err == nil || !strings.Contains(err.Error(), "REFERSAM_"+name) {
			t.Errorf("%v does not name REFERSAM_%s", err, name)
		}
	}
	if err != nil && strings.Contains(err.Error(), "REFERSAM_MAX_IMAGE_PIXELS is") {
		t.Errorf("%v blames what is in range", err)
	}
	bad = preprocess.DefaultConfig()
	bad.MaxPixels = -1
	if _, err := preprocess.New(bad); err == nil || !strings.Contains(err.Error(), "REFERSAM_MAX_IMAGE_PIXELS is") {
		t.Errorf("a negative number of pixels: %v", err)
	}
}

// Weights are positive and sum to one, so no sample leaves the input's range.
func TestResize_StaysInRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 60)
		p := noise(size.Draw(t, "width"), size.Draw(t, "height"), rapid.Uint32().Draw(t, "seed"))
		low, high := rapid.Uint8().Draw(t, "low"), rapid.Uint8().Draw(t, "high")
		low, high = min(low, high), max(low, high)
		for i, v := range p.Pix {
			p.Pix[i] = min(max(v, low), high)
		}
		width, height := size.Draw(t, "new width"), size.Draw(t, "new height")
		got := preprocess.Resize(p, width, height)
		if len(got) != 3*width*height {
			t.Fatalf("%d samples, want %d", len(got), 3*width*height)
		}
		for i, v := range got {
			if v < low || v > high {
				t.Fatalf("sample %d is %d, not within %d..%d", i, v, low, high)
			}
		}
	})
}

// The fast kernels give what the plain ones do, at any size, however extreme.
func TestResize_FastIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few pixels to draw, but strips as long as a picture may be.
		side := rapid.OneOf(rapid.IntRange(1, 40), rapid.IntRange(1, 400), rapid.IntRange(1, 16384))
		width := side.Draw(t, "width")
		height := min(side.Draw(t, "height"), 1+300_000/width)
		outWidth := side.Draw(t, "outWidth")
		outHeight := min(side.Draw(t, "outHeight"), 1+300_000/outWidth)
		p := noise(width, height, rapid.Uint32().Draw(t, "seed"))
		if rapid.Bool().Draw(t, "extremes") {
			for i, v := range p.Pix {
				p.Pix[i] = uint8(int8(v) >> 7)
			}
		}
		want, got := preprocess.ResizeExact(p, outWidth, outHeight), preprocess.Resize(p, outWidth, outHeight)
		if !bytes.Equal(got, want) {
			t.Errorf("%d×%d to %d×%d: samples differ", width, height, outWidth, outHeight)
		}
	})
}

// Between the passes there are never more rows than make one row.
func TestResize_Memory(t *testing.T) {
	p := noise(2000, 1500, 1)
	const side = 448
	preprocess.Resize(p, side, side)
	allocated := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			preprocess.Resize(p, side, side)
		}
	}).AllocedBytesPerOp()
	const between = 3 * side * 12 // rows that make a row, rounded up
	if limit := int64(3*side*side + between + 8192); allocated > limit {
		t.Errorf("a resize allocates %d bytes, want at most %d", allocated, limit)
	}
}

func TestResize_Panics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	preprocess.Resize(noise(2, 2, 0), 0, 3)
}

// MB/s count the RGB pixels that are read. Floor: reading them once runs at some
// 15 GB/s.
func BenchmarkResize(b *testing.B) {
	for _, size := range []struct {
		name          string
		width, height int
	}{{"640x480", 640, 480}, {"1920x1080", 1920, 1080}, {"4032x3024", 4032, 3024}} {
		b.Run(size.name, func(b *testing.B) {
			p := noise(size.width, size.height, 1)
			b.SetBytes(int64(len(p.Pix)))
			b.ReportAllocs()
			for b.Loop() {
				preprocess.Resize(p, 256, 256)
			}
		})
	}
}
