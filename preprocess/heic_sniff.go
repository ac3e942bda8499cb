package preprocess

import (
	"encoding/binary"
	"slices"
)

// heicBrands are those of a file whose pictures are coded with HEVC (ISO/IEC
// 23008-12, annex B).
var heicBrands = []string{"heic", "heix", "heim", "heis", "hevc", "hevx"}

// isHEIC looks for one of them in the first box of a file.
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
