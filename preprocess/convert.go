package preprocess

// clip is fast where little is to be clipped.
func clip(v int32) uint8 {
	if uint32(v) <= 255 {
		return uint8(v)
	}
	return uint8(min(max(v, 0), 255))
}
