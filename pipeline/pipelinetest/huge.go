package pipelinetest

import (
	"encoding/binary"
	"hash/crc32"
)

// HugePNG returns a PNG without pixels. Its header claims the given size.
func HugePNG(width, height uint32) string {
	header := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	header = binary.BigEndian.AppendUint32(header, height)
	header = append(header, 8, 2, 0, 0, 0) // 8 bits, RGB
	out := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), header...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(header))
	return string(out) + "\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e" + "\x00\x00\x00\x00IEND\xae\x42\x60\x82"
}
