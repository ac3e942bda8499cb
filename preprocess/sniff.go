package preprocess

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/refersam/refersam/preprocess/bmp"
	"github.com/refersam/refersam/preprocess/exif"
	"github.com/refersam/refersam/preprocess/gif"
	"github.com/refersam/refersam/preprocess/heic"
	"github.com/refersam/refersam/preprocess/jpeg"
	"github.com/refersam/refersam/preprocess/picture"
	"github.com/refersam/refersam/preprocess/png"
	"github.com/refersam/refersam/preprocess/tiff"
	"github.com/refersam/refersam/preprocess/webp"
)

// formats are the accepted encodings. open reads the header only. It may return
// a size beyond the limits, which its caller must check.
var formats = []struct {
	name  string
	magic func(data []byte) bool
	open  func(data []byte, cfg *Config) (picture.Source, error)
}{
	{"JPEG", begins("\xff\xd8\xff"), func(data []byte, cfg *Config) (picture.Source, error) {
		return jpeg.Open(data, jpeg.Options{Lenient: cfg.LenientJPEG, Reduce: cfg.ReduceJPEG})
	}},
	{"PNG", begins(png.Magic), within(png.Open)},
	{"WebP", func(b []byte) bool { return len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP" }, within(webp.Open)},
	{"GIF", begins("GIF87a", "GIF89a"), within(gif.Open)},
	{"BMP", begins("BM"), within(bmp.Open)},
	{"TIFF", begins(exif.LittleEndian, exif.BigEndian, exif.BigTIFFLittleEndian, exif.BigTIFFBigEndian), within(tiff.Open)},
	{"HEIC", isHEIC, within(heic.Open)},
}

// begins returns a function that reports whether data begins with one of the
// magic bytes.
func begins(magics ...string) func(data []byte) bool {
	return func(data []byte) bool {
		return slices.ContainsFunc(magics, func(magic string) bool { return bytes.HasPrefix(data, []byte(magic)) })
	}
}

// within passes the limits of a Config to the Open of a format.
func within(open func([]byte, picture.Limits) (picture.Source, error)) func([]byte, *Config) (picture.Source, error) {
	return func(data []byte, cfg *Config) (picture.Source, error) { return open(data, cfg.limits()) }
}

// heicBrands are the brands of a file with pictures that are coded with HEVC
// (ISO/IEC 23008-12, annex B).
var heicBrands = []string{"heic", "heix", "heim", "heis", "hevc", "hevx"}

// isHEIC looks for a brand of heicBrands in the first box of a file.
func isHEIC(b []byte) bool {
	if len(b) < 16 || string(b[4:8]) != "ftyp" {
		return false
	}
	const header, most = 8, 256
	size := min(uint64(binary.BigEndian.Uint32(b)), uint64(len(b)), most)
	brands := b[header:max(size, header)]
	for ; len(brands) >= 4; brands = brands[4:] {
		if slices.Contains(heicBrands, string(brands[:4])) {
			return true
		}
	}
	return false
}
