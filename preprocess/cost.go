package preprocess

// Cost is an estimate, made from the header alone, of the time that Decode or
// Stretch will take on one CPU. The unit is the time of a pixel of cost 1 in
// picture/cost.go; the caller must learn how long that is on its machine. Every
// picture costs at least baseCost.
func (e *Encoded) Cost() int64 {
	return baseCost + int64(e.header.PixelCost)*int64(e.header.Width)*int64(e.header.Height)
}

// baseCost is the cost on top of the pixels, some 100 µs: setting up a codec,
// and the result.
const baseCost = 36_000
