package picture

// Clip brings v into the range of a sample. It is fast for values that are in
// the range.
func Clip(v int32) uint8 {
	if uint32(v) <= 255 {
		return uint8(v)
	}
	return uint8(min(max(v, 0), 255))
}

// CMYKToRGB converts inks (255 is full) as Pillow does: what the black lets
// through, less the ink's share of it.
func CMYKToRGB(rgb, cmyk []uint8) {
	for ; len(rgb) >= 3; rgb, cmyk = rgb[3:], cmyk[4:] {
		light := 255 - uint32(cmyk[3])
		for c := range 3 {
			t := uint32(cmyk[c])*light + 128 // t/255, rounded
			rgb[c] = uint8(light - (t+t>>8)>>8)
		}
	}
}
