package postprocess

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zlib"

	"github.com/refersam/refersam"
)

// compression is the zlib level of masks. At 1920×1080 level 6 takes a fifth
// off the size of level 1 for 0.3 ms more.
const compression = 6

// EncodePNG writes the mask as a PNG of 1 bit a pixel, foreground white.
// image/png has no such colour type: it takes 30 times as long to write a
// larger 8-bit file.
func EncodePNG(w io.Writer, m *refersam.Mask) error {
	if m.Width < 1 || m.Height < 1 || len(m.Pix) != m.Width*m.Height {
		return fmt.Errorf("postprocess: mask of %d×%d with %d pixels", m.Width, m.Height, len(m.Pix))
	}
	const (
		bitDepth  = 1
		grayscale = 0
	)
	header := binary.BigEndian.AppendUint32(nil, uint32(m.Width))
	header = binary.BigEndian.AppendUint32(header, uint32(m.Height))
	header = append(header, bitDepth, grayscale, 0, 0, 0) // deflate, adaptive filters, not interlaced

	var data bytes.Buffer
	z, err := zlib.NewWriterLevel(&data, compression)
	if err != nil {
		return err
	}
	row := make([]byte, 1+(m.Width+7)/8) // starts with filter type 0: none
	for y := range m.Height {
		packBits(row[1:], m.Pix[y*m.Width:][:m.Width])
		if _, err := z.Write(row); err != nil {
			return err
		}
	}
	if err := z.Close(); err != nil {
		return err
	}

	out := []byte("\x89PNG\r\n\x1a\n")
	out = appendChunk(out, "IHDR", header)
	out = appendChunk(out, "IDAT", data.Bytes())
	out = appendChunk(out, "IEND", nil)
	_, err = w.Write(out)
	return err
}

// packBits packs pixels of value 0 and 1 into dst, leftmost in the top bit.
func packBits(dst []byte, pix []uint8) {
	// gather moves bit 0 of byte 7-i, counted from the low end, to bit 63-i.
	const gather = 0x0102040810204080
	n := len(pix) / 8
	for i := range n {
		dst[i] = byte(binary.BigEndian.Uint64(pix[8*i:]) * gather >> 56)
	}
	if rest := pix[8*n:]; len(rest) > 0 {
		var last [8]uint8
		copy(last[:], rest)
		dst[n] = byte(binary.BigEndian.Uint64(last[:]) * gather >> 56)
	}
}

func appendChunk(out []byte, kind string, data []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	start := len(out)
	out = append(out, kind...)
	out = append(out, data...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[start:]))
}
